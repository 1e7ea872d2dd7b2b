//! What a round found, as the policy was shown it. In local records only: it never travels to whoever scores or trains.
//!
//! Reports, answers on a terminal and scripted policies read it, so that nobody takes an observation's words apart again.

use std::ops::Deref;

use serde::{Deserialize, Serialize};

/// What became of one thing that a call asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// The label that the observation gives it: that of a picture, or a number from 1. Empty where the whole call is meant.
    pub label: String,
    /// Hits that were shown, best first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hits: Vec<FoundHit>,
    /// What was said instead of hits, such as `no relevant information` or `crop failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Found {
    /// Something that was said of a whole call: what it was refused with, or why nothing was searched.
    pub fn said(text: impl Into<String>) -> Self {
        Self { note: Some(text.into()), ..Self::default() }
    }
}

/// One hit as it was shown.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FoundHit {
    /// What it is about; may be empty.
    pub title: String,
    /// What it says; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub content: String,
    /// Who says it, as a service names a site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// When it was said, in the words of who says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
    /// Where it is from. The policy is shown it where it can visit it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Relevance, normally 0..=1; none where a service gives none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
}

/// A list of [`Found`] that is small while it is empty: whoever adds up costs goes over many rounds and has no use for it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<Found>", into = "Vec<Found>")]
pub struct Findings(Option<Box<List>>);

/// In a box of its own, so that [`Findings`] has the size of one address.
#[derive(Clone, Debug, PartialEq)]
struct List(Vec<Found>);

impl Findings {
    /// None.
    pub const NONE: Self = Self(None);
}

impl From<Vec<Found>> for Findings {
    fn from(found: Vec<Found>) -> Self {
        Self((!found.is_empty()).then(|| Box::new(List(found))))
    }
}

impl From<Findings> for Vec<Found> {
    fn from(findings: Findings) -> Self {
        findings.0.map_or_else(Vec::new, |list| list.0)
    }
}

impl Deref for Findings {
    type Target = [Found];

    fn deref(&self) -> &[Found] {
        self.0.as_ref().map_or(&[], |list| &list.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Round;

    #[test]
    fn rounds_stay_small_and_records_without_findings_are_as_they_were() {
        assert!(size_of::<Round>() <= 24, "{}", size_of::<Round>());
        let counted = Round::counted(2, 1);
        let text = serde_json::to_string(&counted).expect("plain data");
        assert_eq!(text, r#"{"call":null,"searches":2,"failed_searches":1}"#);
        assert_eq!(serde_json::from_str::<Round>(&text).expect("reads back"), counted);
        let hit = FoundHit { title: "Mexico".into(), score: Some(0.97), ..FoundHit::default() };
        let found = vec![Found { label: "img_1".into(), hits: vec![hit], note: None }, Found::said("crop failed")];
        let full = Round { found: found.clone().into(), ..counted };
        let text = serde_json::to_string(&full).expect("plain data");
        assert!(
            text.ends_with(r#""found":[{"label":"img_1","hits":[{"title":"Mexico","score":0.97}]},{"label":"","note":"crop failed"}]}"#)
        );
        assert_eq!(serde_json::from_str::<Round>(&text).expect("reads back").found[..], found);
        assert!(Findings::from(vec![]) == Findings::NONE && Findings::NONE.is_empty());
    }
}
