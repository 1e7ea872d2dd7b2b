//! The port through which an episode searches: texts, pictures or addresses in, hits out, in a layer of a world. Whatever is behind
//! it (the embedded world, a service) fails only in the ways of [`SearchError`]. Knows no turn.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use hypereyes_domain::Failure;
use hypereyes_pictures::RgbImage;
use serde::{Deserialize, Deserializer, Serialize};

/// One thing that is searched for.
#[derive(Clone, Debug, PartialEq)]
pub enum Query {
    /// Free text, for which documents are searched.
    Text(String),
    /// A picture, of which is searched what it shows.
    Picture(Arc<RgbImage>),
    /// An address, or the title of a hit, of which the page is read: one hit with its text, or none where there is no such page.
    Page(String),
}

impl Query {
    /// What counters and messages call its kind: `text`, `image` or `page`.
    pub fn tool(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Picture(_) => "image",
            Self::Page(_) => "page",
        }
    }

    /// A failure of this query.
    pub fn failed(&self, fault: Fault, reason: impl fmt::Display) -> SearchError {
        SearchError { tool: self.tool(), fault, reason: reason.to_string() }
    }
}

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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Where it is from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Who says it, as services name a site.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// When it was said, in the words of who says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
    /// Relevance, normally 0..=1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
}

fn null_as_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.unwrap_or_default())
}

/// In which way a search failed. These are different things for whoever runs it, and alike for a policy: none is its fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The service was asked too often in a short time.
    RateLimited,
    /// What may be asked or spent is used up: of the account at the service, or of the run.
    Quota,
    /// The service does not take what it is asked, or whoever asks.
    Refused,
    /// It took too long, waiting for its turn included.
    Timeout,
    /// It cannot be reached, is broken, or says what nobody understands.
    Unavailable,
    /// A replay does not hold it.
    Miss,
}

impl Fault {
    /// Every fault there is.
    pub const ALL: [Self; 6] = [Self::RateLimited, Self::Quota, Self::Refused, Self::Timeout, Self::Unavailable, Self::Miss];

    /// Its name in counters, settings and JSON.
    pub fn label(self) -> &'static str {
        match self {
            Self::RateLimited => "rate_limited",
            Self::Quota => "quota",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Unavailable => "unavailable",
            Self::Miss => "miss",
        }
    }
}

/// Why a search gave no list of hits. "Nothing found" is an empty list, never an error.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("the {tool} search failed ({}): {reason}", fault.label())]
pub struct SearchError {
    /// `text`, `image` or `page`.
    pub tool: &'static str,
    /// In which way.
    pub fault: Fault,
    /// What happened, and what helps, without anything secret.
    pub reason: String,
}

impl SearchError {
    /// Whose fault it is; never the policy's.
    pub fn failure(&self) -> Failure {
        match self.fault {
            Fault::Timeout => Failure::Timeout,
            _ => Failure::Tool,
        }
    }
}

/// What one search gave.
pub type Outcome = Result<Vec<Hit>, SearchError>;

/// Searches under way: an outcome for each query, in their order.
pub type SearchFuture<'a> = Pin<Box<dyn Future<Output = Vec<Outcome>> + Send + 'a>>;

/// Something that can be searched. Hits come best first; how many are shown is the episode's business.
pub trait Search: Send + Sync {
    /// Searches for all of these at once. `layer` is the counterfactual layer's seed; services that have none ignore it. It gives as
    /// many outcomes as there are queries; one that fails takes no other with it.
    fn search<'a>(&'a self, layer: u64, queries: &'a [Query]) -> SearchFuture<'a>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_of_services_may_lack_or_null_anything() {
        let hit: Hit = serde_json::from_str(r#"{"score":0.995,"title":null,"more":1}"#).expect("reads");
        assert_eq!(hit, Hit { score: Some(0.995), ..Hit::default() });
    }

    #[test]
    fn a_fault_is_written_as_it_is_called() {
        for fault in Fault::ALL {
            assert_eq!(serde_json::to_value(fault).expect("a name"), fault.label());
        }
        let error = Query::Text("q".into()).failed(Fault::Quota, "used up");
        assert_eq!((error.failure(), error.to_string().as_str()), (Failure::Tool, "the text search failed (quota): used up"));
    }
}
