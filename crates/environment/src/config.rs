//! Settings of an episode. In: what a file says. Out: values with defaults. Knows no turn.

use hypereyes_domain::{IMAGE_SEARCH, TEXT_SEARCH};
use serde::{Deserialize, Serialize};

use crate::boxes::BoxUnits;
use crate::tools::Tools;

/// Limits and wording of an episode.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct EnvConfig {
    /// Assistant turns; a call in the last one is not run. Default 9 (docs/spec.md#episodes).
    pub max_turns: u32,
    /// Executed calls. Default 8, one less than the turns, so that the last turn is for the answer.
    pub max_rounds: u32,
    /// Return crops as pictures. Default true, as the reference does; without, the names found must do.
    pub crop_pictures: bool,
    /// Hits shown per picture searched. Default 3 (docs/spec.md#search-services).
    pub image_hits: usize,
    /// Hits shown per query. Default 3 (docs/spec.md#search-services).
    pub text_hits: usize,
    /// Text hits below this relevance are not shown. Default 0: embedded relevances are not a service's, which has 0.6.
    pub text_min_relevance: f64,
    /// Begin image observations with the labels found and failed. Default false: the blocks below say the same.
    pub header: bool,
    /// Said when one call is left; empty says nothing.
    pub hint_one_left: String,
    /// Said when none is left; empty says nothing.
    pub hint_none_left: String,
    /// Characters of a hit's title, content and detail each. Default 8000: the reference has no limit, a context has.
    pub max_hit_chars: usize,
    /// Tools that a policy may call, in the order in which they are offered to it: of `image_search`, `text_search` and `visit`, which
    /// reads pages. Default the first two.
    pub tools: Vec<String>,
    /// In what the policy writes boxes: `ratio`, `thousandths` or `pixels`. Default `ratio`, the published grammar. The prompt says it
    /// where it is another; a box in other units is answered by an error that names these.
    pub box_units: BoxUnits,
}

impl EnvConfig {
    /// Refuses settings under which nothing that is searched would be shown, or no episode fits, naming the key.
    ///
    /// # Errors
    /// A sentence for whoever wrote the settings.
    pub fn check(&self) -> Result<(), String> {
        let counts = [
            ("max_turns", u64::from(self.max_turns), "no episode fits in"),
            ("max_rounds", u64::from(self.max_rounds), "no episode fits in"),
            ("image_hits", self.image_hits as u64, "what an image search finds is never shown"),
            ("text_hits", self.text_hits as u64, "what a text search finds is never shown"),
            ("max_hit_chars", self.max_hit_chars as u64, "what a search finds is never shown"),
        ];
        if let Some((key, _, why)) = counts.iter().find(|(_, count, _)| *count == 0) {
            return Err(format!("{key} is 0: {why}; give at least 1"));
        }
        Tools::named(&self.tools)?;
        // A relevance is at most 1.
        let least = self.text_min_relevance;
        if !(least.is_finite() && least <= 1.0) {
            return Err(format!("text_min_relevance is {least}: what a text search finds is never shown; give a number up to 1"));
        }
        Ok(())
    }
}

impl Default for EnvConfig {
    fn default() -> Self {
        Self {
            max_turns: 9,
            max_rounds: 8,
            crop_pictures: true,
            image_hits: 3,
            text_hits: 3,
            text_min_relevance: 0.0,
            header: false,
            hint_one_left: "one call left".into(),
            hint_none_left: "no calls left, answer now".into(),
            max_hit_chars: 8000,
            tools: [IMAGE_SEARCH, TEXT_SEARCH].map(str::to_owned).to_vec(),
            box_units: BoxUnits::default(),
        }
    }
}
