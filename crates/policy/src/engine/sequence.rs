//! What the engine knows of one sequence: its place in the cache, what is still to be fed, and who waits for it. No work is done here.

use hypereyes_domain::{Failure, GenerateError, PolicyVersion, Sampled, Stop};
use tokio::sync::oneshot;

use super::images::Images;
use super::metrics;
use super::sampler::Sampler;
use crate::models::Positions;
use crate::ops::Kernels;

/// Who is told how something ended.
pub(super) type Reply<T> = oneshot::Sender<Result<T, GenerateError>>;

/// A sampled turn under way.
pub(super) struct Turn {
    pub(super) reply: Reply<Sampled>,
    pub(super) tokens: Vec<u32>,
    pub(super) logprobs: Vec<f32>,
    pub(super) versions: Vec<PolicyVersion>,
    pub(super) max_tokens: usize,
}

impl Turn {
    pub(super) fn new(reply: Reply<Sampled>, max_tokens: usize) -> Self {
        Self { reply, tokens: vec![], logprobs: vec![], versions: vec![], max_tokens: max_tokens.max(1) }
    }

    /// Hands over what was sampled.
    pub(super) fn end(self, stop: Stop) {
        let sampled = Sampled { tokens: self.tokens, logprobs: self.logprobs, versions: self.versions, stop };
        let _ = self.reply.send(Ok(sampled)); // The asker may be gone; dropping its handle releases the sequence.
    }
}

/// A prompt being processed for its siblings-to-be.
pub(super) struct Opening {
    pub(super) samplers: Vec<Sampler>,
    /// The prompt's last token, which each sibling feeds for itself.
    pub(super) last: u32,
    pub(super) reply: Reply<Vec<u64>>,
}

/// One sequence, with its slot of the cache.
pub(super) struct Sequence<B: Kernels, S> {
    pub(super) slot: S,
    pub(super) positions: Positions,
    /// Tokens that the cache holds.
    pub(super) fed: usize,
    /// Tokens that come next.
    pub(super) feed: Vec<u32>,
    /// Pictures whose placeholders are among those.
    pub(super) images: Images<B>,
    pub(super) sampler: Option<Sampler>,
    pub(super) turn: Option<Turn>,
    pub(super) opening: Option<Opening>,
}

impl<B: Kernels, S> Sequence<B, S> {
    /// A prompt that is about to be read.
    pub(super) fn of_prompt(slot: S, feed: Vec<u32>, images: Images<B>) -> Self {
        Self { slot, positions: Positions::default(), fed: 0, feed, images, sampler: None, turn: None, opening: None }
    }

    /// One that goes on after the first `fed` tokens of a prompt, whose last token it feeds itself.
    pub(super) fn of_sibling(slot: S, positions: Positions, fed: usize, last: u32, sampler: Sampler) -> Self {
        let images = Images::default();
        Self { slot, positions, fed, feed: vec![last], images, sampler: Some(sampler), turn: None, opening: None }
    }

    /// Whether somebody waits for it.
    pub(super) fn is_awaited(&self) -> bool {
        self.turn.is_some() || self.opening.is_some()
    }

    /// Tokens that it could feed now: none while a picture among them is not encoded.
    pub(super) fn ready(&self) -> usize {
        if self.is_awaited() && self.images.are_encoded() { self.feed.len() } else { 0 }
    }

    /// Tells whoever waits for it that it has come to nothing.
    pub(super) fn fail(&mut self, failure: Failure, message: &str) {
        if let Some(turn) = self.turn.take() {
            fail(turn.reply, failure, message.to_owned());
        }
        if let Some(opening) = self.opening.take() {
            fail(opening.reply, failure, message.to_owned());
        }
    }
}

/// Answers with a failure, which is counted.
pub(super) fn fail<T>(reply: Reply<T>, failure: Failure, message: String) {
    metrics::failed(failure);
    let _ = reply.send(Err(GenerateError { failure, message })); // The asker may be gone; the failure is counted.
}
