//! The port through which an episode searches: text or a picture in, hits out, in a layer of a world. Whatever is behind
//! it (the embedded world, a service) fails only in the ways of [`SearchError`]. Knows no turn.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hypereyes_domain::Failure;
use hypereyes_pictures::RgbImage;
use serde::{Deserialize, Deserializer, Serialize};

/// One result. Backends of services answer in this shape as JSON; what is missing or null is empty.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default)]
pub struct Hit {
    /// What it is about.
    #[serde(deserialize_with = "null_as_empty")]
    pub title: String,
    /// What it says; may be empty for pictures.
    #[serde(deserialize_with = "null_as_empty")]
    pub content: String,
    /// More of it, where the backend was asked for more.
    pub detail: Option<String>,
    /// Where it is from.
    pub url: Option<String>,
    /// Relevance, normally 0..=1.
    pub score: Option<f64>,
}

fn null_as_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.unwrap_or_default())
}

/// Why a search gave no list of hits. "Nothing found" is an empty list, never an error.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SearchError {
    /// The backend failed.
    #[error("the {tool} search failed: {reason}; the search backend's own log says more")]
    Tool {
        /// `text`, `image` or `page`.
        tool: &'static str,
        /// What happened.
        reason: String,
    },
    /// It took too long, waiting for its turn included.
    #[error("the {tool} search took longer than {after:?}; raise its deadline or its concurrency")]
    Timeout {
        /// `text`, `image` or `page`.
        tool: &'static str,
        /// The deadline.
        after: Duration,
    },
}

impl SearchError {
    /// Whose fault it is; never the policy's.
    pub fn failure(&self) -> Failure {
        match self {
            SearchError::Tool { .. } => Failure::Tool,
            SearchError::Timeout { .. } => Failure::Timeout,
        }
    }
}

/// A search under way.
pub type SearchFuture<'a> = Pin<Box<dyn Future<Output = Result<Vec<Hit>, SearchError>> + Send + 'a>>;

/// Something that can be searched. Hits come best first; how many are shown is the episode's business.
pub trait Search: Send + Sync {
    /// Searches documents for free text. `layer` is the counterfactual layer's seed; services that have none ignore it.
    fn text<'a>(&'a self, layer: u64, query: &'a str) -> SearchFuture<'a>;

    /// Searches for what a picture shows.
    fn image(&self, layer: u64, picture: Arc<RgbImage>) -> SearchFuture<'_>;

    /// Reads the page of an address or of a hit's title: one hit with its text, or none where there is no such page. Default: this
    /// back end reads no pages.
    fn page<'a>(&'a self, _layer: u64, _address: &'a str) -> SearchFuture<'a> {
        Box::pin(async { Err(SearchError::Tool { tool: "page", reason: "this back end reads no pages".into() }) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_of_services_may_lack_or_null_anything() {
        let hit: Hit = serde_json::from_str(r#"{"score":0.995,"title":null,"more":1}"#).expect("reads");
        assert_eq!(hit, Hit { score: Some(0.995), ..Hit::default() });
    }
}
