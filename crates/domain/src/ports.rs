//! The port through which rollouts reach a policy: tokens in, tokens and log-probs out. Text never crosses it.
//!
//! The in-process engine implements it; so can an external server, a recorder or a scripted explorer.

use std::future::Future;

use crate::{Failure, PictureId, PolicyVersion, Round};

/// Tokens to append to a sequence, with the pictures whose placeholder tokens are among them, in order.
///
/// Pictures go by name: whoever implements [`Generate`] finds them where they are kept, and makes of them what its model reads. An
/// engine of this process cuts patches, a server is sent the encoded bytes. How many placeholders a picture has follows from its size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// Token ids, with every placeholder that the model reads.
    pub tokens: Vec<u32>,
    /// Pictures in the order of their placeholders.
    pub pictures: Vec<PictureId>,
}

/// Beyond it every token is as likely as any other.
const MOST_TEMPERATURE: f32 = 1000.0;

/// How to choose the next token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// 0 is greedy; otherwise logits are divided by it.
    pub temperature: f32,
    /// Keep only this many of the most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Of those, keep the smallest set with at least this much of their probability; 1 keeps all.
    pub top_p: f32,
    /// Of those, keep the tokens at least this much as likely as the most likely one; 0 keeps all.
    pub min_p: f32,
}

impl Sampling {
    /// The most likely token, always.
    pub const GREEDY: Self = Self::of(0.0, 1.0);

    /// Temperature and nucleus.
    pub const fn of(temperature: f32, top_p: f32) -> Self {
        Self { temperature, top_k: 0, top_p, min_p: 0.0 }
    }

    /// What no token can be chosen with.
    ///
    /// # Errors
    /// A sentence that names the number and what would be right.
    pub fn check(&self) -> Result<(), String> {
        let Self { temperature, top_p, min_p, .. } = *self;
        if !(0.0..=MOST_TEMPERATURE).contains(&temperature) {
            return Err(format!("temperature is {temperature}: give 0, which is greedy, up to {MOST_TEMPERATURE}"));
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return Err(format!("top_p is {top_p}: give a number above 0 and up to 1"));
        }
        if !(0.0..=1.0).contains(&min_p) {
            return Err(format!("min_p is {min_p}: give a number within 0..=1"));
        }
        Ok(())
    }
}

/// The seed of one turn of a sequence: the sequence's own for the first, and one made of it and the turn's number for the others. Whoever
/// samples, and whoever is asked again, draws the same numbers for the same turn. Seeds of turns have 63 bits: servers keep them in signed
/// numbers.
pub const fn turn_seed(seed: u64, turn: u64) -> u64 {
    const BITS: u64 = u64::MAX >> 1;
    if turn == 0 {
        return seed & BITS;
    }
    // SplitMix64: the turn-th number of the stream that begins at the seed.
    let mut mixed = seed.wrapping_add(turn.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) & BITS
}

/// Why a turn stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The end token was sampled (it is the last of the tokens).
    EndToken,
    /// The turn's token limit was reached.
    Length,
    /// The sequence's slot is full.
    ContextFull,
}

/// One sampled turn.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    /// Sampled ids, the end token included.
    pub tokens: Vec<u32>,
    /// Log-prob of each at the sampling temperature (1 when greedy), before the distribution is truncated.
    pub logprobs: Vec<f32>,
    /// Policy version of each token.
    pub versions: Vec<PolicyVersion>,
    /// Why it stopped.
    pub stop: Stop,
}

/// A policy gave no tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenerateError {
    /// Whose fault it is.
    pub failure: Failure,
    /// What happened.
    pub message: String,
}

impl std::fmt::Display for GenerateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "generation failed ({}): {}", self.failure, self.message)
    }
}

impl std::error::Error for GenerateError {}

/// A policy that continues token sequences.
pub trait Generate: Clone + Send + Sync + 'static {
    /// A sequence that keeps its place (its KV slot) between turns; dropping it gives the place back.
    type Sequence: Sequence;

    /// Starts one sequence per seed, all from the same prompt, which is processed once.
    fn start(
        &self,
        prompt: Chunk,
        seeds: Vec<u64>,
        sampling: Sampling,
    ) -> impl Future<Output = Result<Vec<Self::Sequence>, GenerateError>> + Send;

    /// The largest group that it can ever hold at once.
    fn most_siblings(&self) -> usize {
        usize::MAX
    }
}

/// A policy whose weights can be replaced while it runs; `W` is what weights are to whoever sends them.
pub trait SetWeights<W>: Generate {
    /// Puts weights in between two tokens. Sequences under way go on with them; every token says which version sampled it.
    fn set_weights(&self, weights: W, version: PolicyVersion) -> impl Future<Output = Result<(), SetWeightsError>> + Send;
}

/// Weights were not taken: the ones before are still in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetWeightsError {
    /// Whose fault it is.
    pub failure: Failure,
    /// What happened.
    pub message: String,
}

impl std::fmt::Display for SetWeightsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "weights were not taken ({}): {}", self.failure, self.message)
    }
}

impl std::error::Error for SetWeightsError {}

/// One sequence of a [`Generate`].
pub trait Sequence: Send + 'static {
    /// Appends an observation (empty on the first turn), then samples until the end token or `max_tokens`.
    fn advance(&mut self, observation: Chunk, max_tokens: usize) -> impl Future<Output = Result<Sampled, GenerateError>> + Send;

    /// Told what the environment did for the last turn, before [`Sequence::advance`] brings it as tokens. A model reads the tokens and
    /// needs no more; a scripted policy has its findings from here. Default: nothing.
    fn executed(&mut self, _round: &Round) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_turn_of_every_sequence_has_a_seed_of_its_own() {
        assert_eq!((turn_seed(7, 0), turn_seed(7, 3)), (7, turn_seed(7, 3)));
        assert_eq!(turn_seed(0, 1), 0x6220_a839_7b1d_cdaf, "the published first value of SplitMix64, without its sign");
        let seeds = (0..100).flat_map(|seed| (0..10).map(move |turn| turn_seed(seed, turn)));
        assert_eq!(seeds.collect::<std::collections::BTreeSet<_>>().len(), 1000);
    }
}
