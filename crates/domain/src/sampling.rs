//! How tokens are sampled, as a setting. In: a configuration. Out: the [`Sampling`] that a policy is asked with. It knows neither who
//! samples nor what for.

use serde::{Deserialize, Serialize};

use crate::Sampling;

/// How tokens are sampled.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SamplingConfig {
    /// Divides logits; 0 is greedy.
    pub temperature: f32,
    /// Nucleus: the smallest set of tokens with this much of the probability is sampled from; 1 keeps all.
    pub top_p: f32,
}

impl SamplingConfig {
    /// This temperature, this nucleus.
    pub const fn of(temperature: f32, top_p: f32) -> Self {
        Self { temperature, top_p }
    }

    /// What a policy is asked with.
    pub const fn sampling(&self) -> Sampling {
        Sampling::of(self.temperature, self.top_p)
    }

    /// Refuses what no token can be sampled with, naming the key.
    ///
    /// # Errors
    /// A sentence for whoever wrote the settings.
    pub fn check(&self) -> Result<(), String> {
        self.sampling().check()
    }
}

impl Default for SamplingConfig {
    /// The policy's own distribution, untouched.
    fn default() -> Self {
        Self::of(1.0, 1.0)
    }
}
