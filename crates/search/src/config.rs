//! The `[search]` table. In: what a file says. Out: values with defaults. Opens nothing.

use serde::{Deserialize, Serialize};

use crate::backends;

/// Where searches go, and within which bounds.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct SearchConfig {
    /// Searches at once; the others wait. Default 64: a service's usual quota, and plenty for the embedded world.
    pub concurrency: usize,
    /// Seconds that one search may take, waiting included. Default 300, as the reference's tools have it (docs/spec.md#search-services).
    pub deadline_s: f64,
    /// Where texts are searched.
    pub text: BackEndConfig,
    /// Where pictures are searched.
    pub image: BackEndConfig,
}

/// One side of searching.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct BackEndConfig {
    /// Which back end answers. Default `world`: the world pack of `world` answers by itself, without any service.
    pub backend: String,
}

impl Default for BackEndConfig {
    fn default() -> Self {
        Self { backend: backends::world::NAME.into() }
    }
}

impl Default for SearchConfig {
    fn default() -> Self {
        Self { concurrency: 64, deadline_s: 300.0, text: BackEndConfig::default(), image: BackEndConfig::default() }
    }
}

/// The longest time that a search can be given, in seconds.
const LONGEST_S: f64 = 3600.0;

impl SearchConfig {
    /// Refuses back ends that do not exist and bounds that no search fits in, naming the key.
    ///
    /// # Errors
    /// A sentence for whoever wrote the settings.
    pub fn check(&self) -> Result<(), String> {
        if self.concurrency == 0 {
            return Err("concurrency is 0: no search could be made; give at least 1".to_owned());
        }
        if !(self.deadline_s > 0.0 && self.deadline_s <= LONGEST_S) {
            return Err(format!("deadline_s is {}: give more than 0 and at most {LONGEST_S}", self.deadline_s));
        }
        backends::of_text(&self.text.backend)?;
        backends::of_image(&self.image.backend)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_back_end_is_refused_with_the_key_and_the_choices() {
        assert_eq!(SearchConfig::default().check(), Ok(()));
        let named = |name: &str| BackEndConfig { backend: name.into() };
        let text = SearchConfig { text: named("bing"), ..SearchConfig::default() };
        assert_eq!(text.check(), Err("text.backend is \"bing\": there is no such back end for texts; there is world".into()));
        let image = SearchConfig { image: named(""), ..SearchConfig::default() };
        assert!(image.check().expect_err("no name").starts_with("image.backend is \"\""));
    }
}
