//! What a back end is asked, and what it is asked through. In: queries of one kind, and until when somebody waits. Out: an outcome for each.
//!
//! [`BackEnd`] is the inside of the environment's port: it knows when the caller stops waiting, and by what name an outcome can be kept.

use std::sync::{Arc, LazyLock};

use hypereyes_environment::{Fault, Outcome, Query, Search};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

use crate::steps::{How, Steps};

/// Queries on their way.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The counterfactual layer's seed.
    pub layer: u64,
    /// What is searched for: one kind, at least one.
    pub queries: &'a [Query],
    /// When the caller stops waiting.
    pub until: Instant,
    /// Where is written down what is done for them.
    pub steps: &'a Steps,
}

/// Outcomes under way.
pub type AskFuture<'a> = futures::future::BoxFuture<'a, Vec<Outcome>>;

/// Everything that the outcome of a query depends on, and nothing secret: who is asked where, and for what.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// The back end's name in settings.
    pub service: String,
    /// Where exactly: an address, or what identifies a world.
    pub endpoint: String,
    /// What is asked, as JSON with sorted names; a picture is its digest.
    pub parameters: String,
}

/// Something that answers.
pub trait BackEnd: Send + Sync {
    /// Its name in settings.
    fn name(&self) -> &'static str;

    /// Whether it searches for such a query.
    fn can(&self, query: &Query) -> bool;

    /// Queries that it asks for in one request, at most: what comes with a request is lost with it.
    fn most(&self) -> usize {
        usize::MAX
    }

    /// The name of a query's outcome, wherever outcomes are kept.
    fn key(&self, layer: u64, query: &Query) -> Key;

    /// As many outcomes as queries, in their order, before `until` or not long after it.
    fn ask<'a>(&'a self, asked: Asked<'a>) -> AskFuture<'a>;
}

/// A [`Search`] of this process as a back end: nothing of it comes late but through a fault of its own.
pub struct InProcess {
    name: &'static str,
    /// What it searches; found out when it is asked for.
    of: LazyLock<String, Box<dyn FnOnce() -> String + Send>>,
    inner: Arc<dyn Search>,
}

impl InProcess {
    /// `name` as settings have it; `of` names what is searched.
    pub fn new(name: &'static str, of: impl FnOnce() -> String + Send + 'static, inner: Arc<dyn Search>) -> Self {
        Self { name, of: LazyLock::new(Box::new(of)), inner }
    }
}

impl BackEnd for InProcess {
    fn name(&self) -> &'static str {
        self.name
    }

    fn can(&self, _query: &Query) -> bool {
        true
    }

    fn key(&self, layer: u64, query: &Query) -> Key {
        Key { service: self.name.to_owned(), endpoint: self.of.clone(), parameters: parameters(query, [("layer", layer.into())]) }
    }

    fn ask<'a>(&'a self, Asked { layer, queries, until, steps }: Asked<'a>) -> AskFuture<'a> {
        Box::pin(async move {
            let outcomes = timeout_at(until, self.inner.search(layer, queries)).await.unwrap_or_else(|_| late(queries));
            steps.note(self.name, How::Asked, 0.0, outcomes.iter().find_map(fault));
            outcomes
        })
    }
}

/// In which way an outcome failed, if it did.
pub(crate) fn fault(outcome: &Outcome) -> Option<Fault> {
    outcome.as_ref().err().map(|error| error.fault)
}

/// The outcomes of queries for which nobody waits any more.
pub fn late(queries: &[Query]) -> Vec<Outcome> {
    queries.iter().map(|query| Err(query.failed(Fault::Timeout, "it took longer than deadline_s; raise that, or concurrency"))).collect()
}

/// The parameters of a key: what is asked, and what else is said.
pub fn parameters<'a>(query: &Query, others: impl IntoIterator<Item = (&'a str, serde_json::Value)>) -> String {
    let mut said: std::collections::BTreeMap<&str, serde_json::Value> = others.into_iter().collect();
    said.insert(
        query.tool(),
        match query {
            Query::Text(text) | Query::Page(text) => normalised(text).into(),
            Query::Picture(picture) => digest(picture).into(),
        },
    );
    serde_json::to_string(&said).expect("plain values")
}

/// A text as it is asked: of queries that differ in blanks alone, one is asked.
pub fn normalised(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A picture's name: BLAKE3 of its size and pixels.
pub fn digest(picture: &hypereyes_pictures::RgbImage) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("{}x{}\n", picture.width(), picture.height()).as_bytes());
    hasher.update(picture.as_raw());
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_make_no_other_query_and_pixels_do() {
        let of = |text: &str| parameters(&Query::Text(text.into()), [("hl", "en".into())]);
        assert_eq!(of(" capital\n of  Peru "), of("capital of Peru"));
        assert_eq!(of("capital of Peru"), r#"{"hl":"en","text":"capital of Peru"}"#);
        assert_ne!(of("capital of Peru"), of("Capital of Peru"), "services tell letters apart");
        let mut picture = hypereyes_pictures::RgbImage::new(2, 3);
        let before = digest(&picture);
        assert_ne!(before, digest(&hypereyes_pictures::RgbImage::new(3, 2)), "as many pixels, in another shape");
        picture.put_pixel(1, 1, [0, 0, 1].into());
        assert_ne!(before, digest(&picture));
    }
}
