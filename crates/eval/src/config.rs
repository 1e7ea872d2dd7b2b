//! How much an evaluation does and with which seeds. In: a configuration. Out: defaults. How its turns are sampled is told to the run.

use serde::{Deserialize, Serialize};

use crate::curve::BestBy;

/// Visual tokens of a picture above this are a slip.
const MOST_PICTURE_TOKENS: usize = 1 << 20;

/// Rollouts of a task beyond which an interval gets no narrower that anybody could tell.
const MOST_SAMPLES: usize = 10_000;

/// Rollouts under way, unless more tasks than that are to be: each holds the pictures of its task.
const MOST_AT_ONCE: usize = 1024;

/// Settings of an evaluation.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct EvalConfig {
    /// Rollouts per task, at least 1. Default 1.
    pub samples: usize,
    /// Tasks rolled out at the same time, at least 1. Default 16: keeps an engine's batch full without crowding it.
    pub concurrency: usize,
    /// Seeds of rollouts derive from it. Default 0.
    pub seed: u64,
    /// Visual tokens of a picture at most: larger ones are scaled down. Default 0, which is what the model's folder says; with
    /// `--benchmark` 1200, as published. Servers read that folder themselves, so that it must say no more than this; a chat endpoint makes
    /// of pictures what it likes.
    pub max_picture_tokens: usize,
    /// Under `up`: the policy is measured on held-out tasks every so many optimiser steps while it is trained, by a process of its own for
    /// which the learner does not wait. Default 0: only before and after training.
    pub every: u64,
    /// Held-out tasks that such a measurement is made on, the first of them; 0 takes all. Default 0: an interval of fewer is wider.
    pub every_tasks: usize,
    /// Which version is kept in `best/`: that with the highest `accuracy`, or `cas`. Default `accuracy`; of equals the other number decides,
    /// then the earlier one stays.
    pub best: BestBy,
}

impl Default for EvalConfig {
    fn default() -> Self {
        Self { samples: 1, concurrency: 16, seed: 0, max_picture_tokens: 0, every: 0, every_tasks: 0, best: BestBy::default() }
    }
}

impl EvalConfig {
    /// Refuses what nothing can be measured with, naming the key.
    ///
    /// # Errors
    /// A sentence for whoever wrote the settings.
    pub fn check(&self) -> Result<(), String> {
        if !(1..=MOST_SAMPLES).contains(&self.samples) {
            return Err(format!("samples is {}: give 1 to {MOST_SAMPLES}", self.samples));
        }
        if self.concurrency == 0 {
            return Err("concurrency is 0: give at least 1".to_owned());
        }
        if self.max_picture_tokens > MOST_PICTURE_TOKENS {
            return Err(format!(
                "max_picture_tokens is {}: give at most {MOST_PICTURE_TOKENS}, or 0 for the model's own",
                self.max_picture_tokens
            ));
        }
        Ok(())
    }

    /// Rollouts under way at the same time, where each begins by itself.
    pub(crate) fn at_once(&self) -> usize {
        let tasks = self.concurrency.max(1);
        tasks.saturating_mul(self.samples.max(1)).min(tasks.max(MOST_AT_ONCE))
    }

    /// Seeds of one task's rollouts; each rollout of an evaluation has its own.
    pub(crate) fn seeds(&self, task: usize) -> Vec<u64> {
        let first = (task as u64).wrapping_mul(self.samples.max(1) as u64);
        // A large odd factor keeps the seeds of neighbouring evaluations apart.
        (0..self.samples.max(1) as u64).map(|sample| self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(first + sample)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rollouts_under_way_are_those_of_some_tasks_and_never_too_many() {
        let at_once = |concurrency, samples| EvalConfig { concurrency, samples, ..EvalConfig::default() }.at_once();
        assert_eq!((at_once(16, 1), at_once(16, 4), at_once(16, 10_000)), (16, 64, 1024));
        assert_eq!((at_once(5000, 2), at_once(usize::MAX, 2)), (5000, usize::MAX), "so many were asked for");
    }
}
