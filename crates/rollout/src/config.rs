//! What an episode runs with. In: a configuration. Out: defaults, and the bundle of parts that every episode shares.

use std::sync::Arc;
use std::time::Duration;

use hypereyes_chat::Chat;
use hypereyes_environment::{EnvConfig, Search, Tools};
use hypereyes_pictures::Store;
use serde::{Deserialize, Serialize};

/// Limits above this are slips.
const MOST: u64 = 1 << 24;

/// Limits and wording of episodes.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct RolloutConfig {
    /// System text of every prompt. Default `Search wide, then answer.`: the cold-start data has the same. With `env.box_units` other
    /// than `ratio` a sentence that says so follows.
    pub system_prompt: String,
    /// Offers the tools with their JSON schemas to the policy, where its chat template has a place for them. Default true; the shipped
    /// policies' template has none. An answer without tools is never offered any. A chat endpoint is told how to answer, too; with false it
    /// is sent the system prompt alone, which its policy was taught.
    pub offer_tools: bool,
    /// Tokens of one turn, at least 1. Default 1524 (docs/spec.md#episodes).
    pub max_turn_tokens: usize,
    /// Tokens of a whole episode, prompt included. Default 38000, as in evaluation (docs/spec.md#episodes).
    pub max_context_tokens: usize,
    /// Tokens of an answer without tools. Default 32: an answer is a name or a value.
    pub max_closed_book_tokens: usize,
    /// Seconds that one turn or one tool round may take; then the trajectory is masked. Default 600.
    pub turn_timeout_s: u64,
    /// Tools, turns and wording of observations.
    pub env: EnvConfig,
}

impl Default for RolloutConfig {
    fn default() -> Self {
        Self {
            system_prompt: "Search wide, then answer.".into(),
            offer_tools: true,
            max_turn_tokens: 1524,
            max_context_tokens: 38_000,
            max_closed_book_tokens: 32,
            turn_timeout_s: 600,
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
        ];
        if let Some((key, _)) = limits.iter().find(|(_, limit)| *limit == 0) {
            return Err(format!("{key} is 0: no episode fits in; give at least 1"));
        }
        self.env.check().map_err(|error| format!("env.{error}"))?;
        if let Some((key, limit)) = limits.iter().find(|(_, limit)| *limit > MOST) {
            return Err(format!("{key} is {limit}: give at most {MOST}"));
        }
        Ok(())
    }

    /// System text of every prompt: the configured one, and in which units boxes are written where they are not ratios.
    pub fn system_text(&self) -> String {
        match self.env.box_units.sentence() {
            Some(sentence) if self.system_prompt.is_empty() => sentence.to_owned(),
            Some(sentence) => format!("{} {sentence}", self.system_prompt),
            None => self.system_prompt.clone(),
        }
    }

    /// The tools offered in every prompt, as chat templates take them; none where they are not offered.
    pub fn offered(&self) -> Vec<serde_json::Value> {
        if self.offer_tools { Tools::of(&self.env.tools).offered(self.env.box_units) } else { Vec::new() }
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
    /// Where the engine finds the pictures that episodes name: those of tasks, and crops while their group lasts.
    pub pictures: Arc<Store>,
    /// Limits and wording.
    pub config: RolloutConfig,
}

#[cfg(test)]
mod tests {
    use hypereyes_environment::BoxUnits;

    use super::*;

    #[test]
    fn the_prompt_says_units_that_are_not_the_grammars() {
        let with = |box_units| {
            let env = EnvConfig { box_units, ..EnvConfig::default() };
            RolloutConfig { env, ..RolloutConfig::default() }.system_text()
        };
        assert_eq!(with(BoxUnits::Ratio), "Search wide, then answer.", "the shipped policies know this prompt");
        assert!(with(BoxUnits::Thousandths).starts_with("Search wide, then answer. Areas are [x1,y1,x2,y2] in thousandths"));
        assert!(with(BoxUnits::Pixels).contains("in pixels"));
    }

    #[test]
    fn tools_are_offered_by_default_and_the_shipped_template_has_no_place_for_them() {
        let setup = crate::scripted::setup();
        let offered = setup.config.offered();
        let names: Vec<&str> = offered.iter().filter_map(|tool| tool["function"]["name"].as_str()).collect();
        assert_eq!(names, ["image_search", "text_search"]);
        let prompt = |tools: &[serde_json::Value]| setup.chat.prompt_offering("s", "q", &[(4, 6)], tools).expect("a prompt");
        assert_eq!(prompt(&offered), prompt(&[]), "the shipped policies know this prompt");
        assert!(RolloutConfig { offer_tools: false, ..RolloutConfig::default() }.offered().is_empty());
    }

    #[test]
    fn settings_under_which_nothing_found_is_shown_are_refused_by_name() {
        let refused = |env: EnvConfig| RolloutConfig { env, ..RolloutConfig::default() }.check().expect_err("refused");
        let default = EnvConfig::default();
        assert!(refused(EnvConfig { text_hits: 0, ..default.clone() }).starts_with("env.text_hits is 0"));
        assert!(refused(EnvConfig { image_hits: 0, ..default.clone() }).starts_with("env.image_hits is 0"));
        assert!(refused(EnvConfig { max_hit_chars: 0, ..default.clone() }).starts_with("env.max_hit_chars is 0"));
        assert!(refused(EnvConfig { max_turns: 0, ..default.clone() }).starts_with("env.max_turns is 0"));
        assert!(refused(EnvConfig { text_min_relevance: f64::NAN, ..default.clone() }).starts_with("env.text_min_relevance is NaN"));
        assert!(refused(EnvConfig { text_min_relevance: 1.5, ..default }).starts_with("env.text_min_relevance is 1.5"));
    }
}
