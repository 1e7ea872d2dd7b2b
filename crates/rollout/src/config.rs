//! What an episode runs with. In: a configuration. Out: defaults, and the bundle of parts that every episode shares.

use std::sync::Arc;
use std::time::Duration;

use hypereyes_chat::Chat;
use hypereyes_domain::Sampling;
use hypereyes_search::{EnvConfig, Search};
use serde::{Deserialize, Serialize};

/// Limits and wording of episodes.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct RolloutConfig {
    /// System text of every prompt. Default `Search wide, then answer.`: the cold-start data has the same.
    pub system_prompt: String,
    /// Tokens of one turn, at least 1. Default 1524 (spec 1.6).
    pub max_turn_tokens: usize,
    /// Tokens of a whole episode, prompt included. Default 38000, as in evaluation (spec 1.6, 7.2).
    pub max_context_tokens: usize,
    /// Tokens of an answer without tools. Default 32: an answer is a name or a value.
    pub max_closed_book_tokens: usize,
    /// Seconds that one turn or one tool round may take; then the trajectory is masked. Default 600.
    pub turn_timeout_s: u64,
    /// Divides logits when sampling; 0 is greedy. Default 0.8 (spec 1.6).
    pub temperature: f32,
    /// Nucleus of sampling; 1 keeps all tokens. Default 0.95 in training (spec 1.6).
    pub top_p: f32,
    /// Tools, turns and wording of observations.
    pub env: EnvConfig,
}

impl Default for RolloutConfig {
    fn default() -> Self {
        Self {
            system_prompt: "Search wide, then answer.".into(),
            max_turn_tokens: 1524,
            max_context_tokens: 38_000,
            max_closed_book_tokens: 32,
            turn_timeout_s: 600,
            temperature: 0.8,
            top_p: 0.95,
            env: EnvConfig::default(),
        }
    }
}

impl RolloutConfig {
    /// Refuses limits that no episode fits in, naming the key.
    ///
    /// # Errors
    /// A sentence for whoever wrote the settings.
    pub fn check(&self) -> Result<(), String> {
        let limits = [
            ("max_turn_tokens", self.max_turn_tokens as u64),
            ("max_context_tokens", self.max_context_tokens as u64),
            ("max_closed_book_tokens", self.max_closed_book_tokens as u64),
            ("turn_timeout_s", self.turn_timeout_s),
            ("env.max_turns", u64::from(self.env.max_turns)),
            ("env.max_rounds", u64::from(self.env.max_rounds)),
        ];
        if let Some((key, _)) = limits.iter().find(|(_, limit)| *limit == 0) {
            return Err(format!("{key} is 0: no episode fits in; give at least 1"));
        }
        self.sampling().check()
    }

    /// How training samples.
    pub fn sampling(&self) -> Sampling {
        Sampling::of(self.temperature, self.top_p)
    }

    pub(crate) fn turn_timeout(&self) -> Duration {
        Duration::from_secs(self.turn_timeout_s)
    }
}

/// What all episodes of a process share. Cheap to clone.
#[derive(Clone)]
pub struct Setup {
    /// Text to tokens and back.
    pub chat: Arc<Chat>,
    /// Where searches go.
    pub search: Arc<dyn Search>,
    /// Limits and wording.
    pub config: RolloutConfig,
}
