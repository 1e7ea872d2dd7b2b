//! How an evaluation samples. In: a configuration. Out: defaults.

use hypereyes_domain::Sampling;
use serde::{Deserialize, Serialize};

/// Rollouts of a task beyond which an interval gets no narrower that anybody could tell.
const MOST_SAMPLES: usize = 10_000;

/// Settings of an evaluation.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct EvalConfig {
    /// Divides logits; 0 is greedy. Default 0.8 (docs/spec.md#sampling): a greedy policy trained on mixed habits flips wholly to one.
    pub temperature: f32,
    /// Nucleus. Default 0.7 (docs/spec.md#sampling).
    pub top_p: f32,
    /// Rollouts per task, at least 1. Default 1.
    pub samples: usize,
    /// Tasks rolled out at the same time, at least 1. Default 16: keeps an engine's batch full without crowding it.
    pub concurrency: usize,
    /// Seeds of rollouts derive from it. Default 0.
    pub seed: u64,
}

impl Default for EvalConfig {
    fn default() -> Self {
        Self { temperature: 0.8, top_p: 0.7, samples: 1, concurrency: 16, seed: 0 }
    }
}

impl EvalConfig {
    /// Refuses what nothing can be measured with, naming the key.
    ///
    /// # Errors
    /// A sentence for whoever wrote the settings.
    pub fn check(&self) -> Result<(), String> {
        self.sampling().check()?;
        if !(1..=MOST_SAMPLES).contains(&self.samples) {
            return Err(format!("samples is {}: give 1 to {MOST_SAMPLES}", self.samples));
        }
        if self.concurrency == 0 {
            return Err("concurrency is 0: give at least 1".to_owned());
        }
        Ok(())
    }

    /// How turns are sampled.
    pub fn sampling(&self) -> Sampling {
        Sampling::of(self.temperature, self.top_p)
    }

    /// Seeds of one task's rollouts; each rollout of an evaluation has its own.
    pub(crate) fn seeds(&self, task: usize) -> Vec<u64> {
        let first = (task as u64).wrapping_mul(self.samples.max(1) as u64);
        // A large odd factor keeps the seeds of neighbouring evaluations apart.
        (0..self.samples.max(1) as u64).map(|sample| self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(first + sample)).collect()
    }
}
