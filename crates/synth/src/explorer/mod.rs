//! A scripted explorer: plays a policy for one task, so that demonstrations come out of the same rollouts as training.
//!
//! In: what its rounds found, as any policy is shown it. Out: turns as tokens. It knows what the question means and where the
//! pictures are (that is why it can demonstrate), but names and facts it has only from what it reads: a wrong box gives a
//! wrong name, and a wrong name a wrong answer, which rejection sampling then drops.

mod habit;
mod mind;
mod reading;

use std::sync::Arc;

use hypereyes_chat::Chat;
use hypereyes_domain::{Area, Chunk, Findings, Generate, GenerateError, PolicyVersion, Round, Sampled, Sampling, Sequence, Stop};
use hypereyes_environment::BoxUnits;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

pub use habit::Habit;

use crate::tasks::{Draft, Puzzle};
use mind::Mind;

/// An explorer of one task. Cheap to clone.
#[derive(Clone)]
pub struct Explorer {
    chat: Arc<Chat>,
    plan: Arc<Plan>,
}

/// What an explorer knows before it looks.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// What the question means.
    pub(crate) puzzle: Puzzle,
    /// Where the pictures are.
    pub(crate) areas: Vec<Area>,
    /// How it goes about it.
    pub(crate) habit: Habit,
    /// In what it writes boxes, and on a picture of which size (width, height).
    pub(crate) boxes: (BoxUnits, (u32, u32)),
}

impl Explorer {
    /// An explorer of `draft` with a habit, fitted to at most `max_rounds` rounds, that writes boxes in `units`.
    pub fn new(chat: Arc<Chat>, draft: &Draft, habit: Habit, max_rounds: u32, units: BoxUnits) -> Self {
        let areas: Vec<Area> = draft.task.shown.iter().map(|shown| shown.area).collect();
        let habit = habit.fitted(&draft.puzzle, areas.len(), max_rounds);
        let size = draft.picture.as_ref().map_or((1, 1), |picture| chat.processor().seen_as(picture.image.dimensions()));
        Self { chat, plan: Arc::new(Plan { puzzle: draft.puzzle.clone(), areas, habit, boxes: (units, size) }) }
    }

    /// The fewest rounds in which this explorer can be right: below it, sampling is a waste.
    pub fn least_rounds(&self) -> u32 {
        self.plan.habit.least_rounds(&self.plan.puzzle, self.plan.areas.len())
    }
}

impl Generate for Explorer {
    type Sequence = ExplorerSequence;

    async fn start(&self, _prompt: Chunk, seeds: Vec<u64>, _sampling: Sampling) -> Result<Vec<ExplorerSequence>, GenerateError> {
        let sequence = |seed| {
            let mind = Mind::new(self.plan.clone(), ChaCha8Rng::seed_from_u64(seed));
            ExplorerSequence { chat: self.chat.clone(), mind, found: Findings::NONE }
        };
        Ok(seeds.into_iter().map(sequence).collect())
    }
}

/// One try of an [`Explorer`].
pub struct ExplorerSequence {
    chat: Arc<Chat>,
    mind: Mind,
    /// What the last turn found.
    found: Findings,
}

impl Sequence for ExplorerSequence {
    fn executed(&mut self, round: &Round) {
        self.found = round.found.clone();
    }

    async fn advance(&mut self, _observation: Chunk, max_tokens: usize) -> Result<Sampled, GenerateError> {
        let mut tokens = self.chat.encode(&self.mind.turn(&std::mem::take(&mut self.found)));
        tokens.push(self.chat.end_token());
        let stop = if tokens.len() > max_tokens { Stop::Length } else { Stop::EndToken };
        tokens.truncate(max_tokens);
        let count = tokens.len();
        Ok(Sampled { tokens, logprobs: vec![0.0; count], versions: vec![PolicyVersion(0); count], stop })
    }
}
