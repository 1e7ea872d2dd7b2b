//! What a set holds, in numbers. In: a set in memory. Out: counts and means; it reads nothing.

use std::collections::BTreeMap;

use hypereyes_domain::{TaskKind, Trajectory};
use serde::Serialize;

use crate::DataSet;

/// What a data set holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    /// Tasks.
    pub tasks: usize,
    /// Tasks by kind.
    pub visual_select: usize,
    /// As above.
    pub visual_hop: usize,
    /// As above.
    pub textual: usize,
    /// Tasks of every kind, by its name.
    pub kinds: BTreeMap<TaskKind, usize>,
    /// Pictures.
    pub pictures: usize,
    /// Demonstrations.
    pub demonstrations: usize,
    /// Mean rounds of a demonstration; 0 without any.
    pub mean_rounds: f64,
    /// Mean searches of a demonstration.
    pub mean_searches: f64,
    /// Mean tokens of a demonstration, prompt included.
    pub mean_tokens: f64,
    /// Tokens of the longest demonstration.
    pub longest: usize,
    /// Demonstrations by number of rounds; the last entry counts all that have more.
    pub by_rounds: Vec<usize>,
    /// Draws that were passed over while it was made, by reason.
    pub dropped: BTreeMap<&'static str, usize>,
}

impl DataSet {
    /// Counts.
    pub fn stats(&self) -> Stats {
        let mut kinds = BTreeMap::new();
        self.tasks.iter().for_each(|task| *kinds.entry(task.kind.clone()).or_default() += 1);
        let kind = |kind: TaskKind| kinds.get(&kind).copied().unwrap_or(0);
        let mean = |value: &dyn Fn(&Trajectory) -> f64| {
            let sum: f64 = self.demonstrations.iter().map(|one| value(&one.trajectory)).sum();
            sum / self.demonstrations.len().max(1) as f64
        };
        let mut by_rounds = vec![0; 10];
        for demonstration in &self.demonstrations {
            by_rounds[demonstration.trajectory.summary.rounds.len().min(9)] += 1;
        }
        Stats {
            tasks: self.tasks.len(),
            visual_select: kind(TaskKind::VISUAL_SELECT),
            visual_hop: kind(TaskKind::VISUAL_HOP),
            textual: kind(TaskKind::TEXTUAL_CONSTRAINTS),
            kinds: kinds.clone(),
            pictures: self.pictures.len(),
            demonstrations: self.demonstrations.len(),
            mean_rounds: mean(&|trajectory| f64::from(trajectory.summary.round_count())),
            mean_searches: mean(&|trajectory| f64::from(trajectory.summary.searches())),
            mean_tokens: mean(&|trajectory| trajectory.tokens() as f64),
            longest: self.demonstrations.iter().map(|one| one.trajectory.tokens()).max().unwrap_or(0),
            by_rounds,
            dropped: self.dropped.clone(),
        }
    }
}
