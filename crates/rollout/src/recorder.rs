//! The one copy of an episode's tokens while it runs.
//!
//! In: sampled turns and observations. Out: what the engine has not seen yet, and in the end a trajectory. It knows no
//! text. The engine is only ever given the tail of this record, so what it holds is a prefix of the trajectory by
//! construction, and each turn asserts it: nothing that was sampled is ever tokenised again.

use std::sync::Arc;

use hypereyes_domain::{Chunk, Ending, Failure, GenerateError, PictureId, PolicyVersion, RolloutSummary, Round, Sampled, Trajectory};
use metrics::counter;

use crate::metrics::MASKED;

/// Tokens of one episode so far.
pub struct Recorder {
    prompt: Arc<[u32]>,
    response: Vec<u32>,
    mask: Vec<bool>,
    logprobs: Vec<f32>,
    versions: Vec<PolicyVersion>,
    pictures: Vec<PictureId>,
    rounds: Vec<Round>,
    /// Response tokens that the engine holds.
    held: usize,
    /// Pictures among the tokens that it does not hold.
    unseen: Vec<PictureId>,
}

impl Recorder {
    /// An episode whose prompt the engine holds.
    pub fn new(prompt: Arc<[u32]>, pictures: Vec<PictureId>) -> Self {
        Self {
            prompt,
            response: Vec::new(),
            mask: Vec::new(),
            logprobs: Vec::new(),
            versions: Vec::new(),
            pictures,
            rounds: Vec::new(),
            held: 0,
            unseen: Vec::new(),
        }
    }

    /// Tokens so far, prompt included.
    pub fn len(&self) -> usize {
        self.prompt.len() + self.response.len()
    }

    /// True before anything was recorded, prompt included.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the engine must append before it samples the next turn.
    pub fn unseen(&mut self) -> Chunk {
        Chunk { tokens: self.response[self.held..].to_vec(), pictures: std::mem::take(&mut self.unseen) }
    }

    /// Records a turn as the engine sampled it, after it was given [`Recorder::unseen`].
    pub fn sampled(&mut self, turn: &Sampled) -> Result<(), GenerateError> {
        let count = turn.tokens.len();
        if count == 0 || turn.logprobs.len() != count || turn.versions.len() != count {
            let message = format!("a turn of {count} tokens, {} log-probs and {} versions", turn.logprobs.len(), turn.versions.len());
            return Err(GenerateError { failure: Failure::Infrastructure, message });
        }
        self.response.extend(&turn.tokens);
        self.mask.extend(std::iter::repeat_n(true, count));
        self.logprobs.extend(&turn.logprobs);
        self.versions.extend(&turn.versions);
        self.held = self.response.len();
        Ok(())
    }

    /// Records an executed round.
    pub fn round(&mut self, round: Round) {
        self.rounds.push(round);
    }

    /// Records an observation; its tokens carry the version of the turn before and no log-prob.
    pub fn observed(&mut self, tokens: &[u32], pictures: &[PictureId]) {
        assert_eq!(self.held, self.response.len(), "an observation follows a turn that the engine holds");
        let version = self.versions.last().copied().unwrap_or_default();
        self.response.extend(tokens);
        self.mask.resize(self.response.len(), false);
        self.logprobs.resize(self.response.len(), 0.0);
        self.versions.resize(self.response.len(), version);
        self.pictures.extend_from_slice(pictures);
        self.unseen.extend_from_slice(pictures);
    }

    /// Ends the episode. A failure outside the policy masks every token.
    pub fn finish(mut self, ending: Ending, answer: Option<String>) -> Trajectory {
        if let Ending::Failed(failure) = ending {
            counter!(MASKED, "reason" => failure.label()).increment(1);
            self.mask.fill(false);
            self.logprobs.fill(0.0);
        }
        let trajectory = Trajectory {
            prompt: self.prompt.to_vec(),
            response: self.response,
            mask: self.mask,
            logprobs: self.logprobs,
            versions: self.versions,
            pictures: self.pictures,
            summary: RolloutSummary { rounds: self.rounds, ending, answer },
            spoken: None,
        };
        crate::metrics::count(&trajectory);
        trajectory
    }
}
