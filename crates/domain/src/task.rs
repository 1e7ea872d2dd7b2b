//! A task: what is asked, on which pictures, and what is right.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use crate::{Area, EntityId, PictureId, Reference, TaskId, text};

/// What a set calls tasks of one sort: a category of a benchmark, or how the task was made (docs/spec.md#synthesis). Reports are split by it; nothing else
/// depends on it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskKind(Cow<'static, str>);

impl TaskKind {
    /// Several entities on one picture; a constraint singles one out.
    pub const VISUAL_SELECT: Self = Self(Cow::Borrowed("visual_select"));
    /// As above, and another fact of the entity found is asked.
    pub const VISUAL_HOP: Self = Self(Cow::Borrowed("visual_hop"));
    /// No picture; several constraints of which no proper subset suffices.
    pub const TEXTUAL_CONSTRAINTS: Self = Self(Cow::Borrowed("textual_constraints"));
    /// The kinds that are synthesised here, in the order in which reports list them: before all others.
    pub const SYNTHETIC: [Self; 3] = [Self::VISUAL_SELECT, Self::VISUAL_HOP, Self::TEXTUAL_CONSTRAINTS];
    /// Bytes of its text at most.
    pub const MAX_BYTES: usize = 128;

    /// Takes the text as it is.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Cow::Owned(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What orders kinds in a report: those that are synthesised here first, then the others by their text.
    pub fn rank(&self) -> (usize, &str) {
        let at = Self::SYNTHETIC.iter().position(|kind| kind == self).unwrap_or(Self::SYNTHETIC.len());
        (at, self.as_str())
    }
}

impl fmt::Display for TaskKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a data set keeps beside a task: a JSON object that nobody here reads, kept from the set to the report.
pub type Metadata = serde_json::Map<String, serde_json::Value>;

/// One entity that the picture shows, and where. Known because the picture was composed; the policy never sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shown {
    /// Who.
    pub entity: EntityId,
    /// Where.
    pub area: Area,
}

/// One row of a task set (`tasks.jsonl`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// Unique within the set. A number is read as its text.
    #[serde(deserialize_with = "text::one")]
    pub id: TaskId,
    /// Of which sort it is.
    pub kind: TaskKind,
    /// The question as the policy reads it, without picture placeholders.
    pub question: String,
    /// Right answers: the canonical one first, then aliases. Never empty. Numbers are read as their text.
    #[serde(deserialize_with = "text::many")]
    pub answers: Vec<String>,
    /// Pictures of the prompt, in order; `pictures/<id>.png` beside the task file.
    #[serde(default)]
    pub pictures: Vec<PictureId>,
    /// Counterfactual layer of the world that the tools answer from; `None` is the world as it is, which older sets write as 0.
    #[serde(default, deserialize_with = "layer", skip_serializing_if = "Option::is_none")]
    pub layer: Option<u64>,
    /// Who is on the (first) picture, and where.
    #[serde(default)]
    pub shown: Vec<Shown>,
    /// Cost of the cheapest known success when the set was made; `None` when none is known (docs/spec.md#d5).
    #[serde(default)]
    pub reference: Option<Reference>,
    /// What the set keeps beside it. A value that is no object is kept under the key `value`.
    #[serde(default, deserialize_with = "metadata", skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
}

impl Task {
    /// Bytes of the metadata's JSON text at most.
    pub const MAX_METADATA_BYTES: usize = 64 << 10;

    /// The canonical right answer.
    pub fn answer(&self) -> &str {
        self.answers.first().map_or("", String::as_str)
    }

    /// Seed of the world that the tools answer from; 0 is the world as it is.
    pub fn world_seed(&self) -> u64 {
        self.layer.unwrap_or(0)
    }

    /// Whether kind and metadata are of a size that travels.
    ///
    /// # Errors
    /// The field, and a sentence of which it is the subject.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        if self.kind.as_str().is_empty() {
            return Err(("kind", "is empty".to_owned()));
        }
        let sizes = [
            ("kind", self.kind.as_str().len(), TaskKind::MAX_BYTES),
            ("metadata", metadata_text(&self.metadata).len(), Self::MAX_METADATA_BYTES),
        ];
        match sizes.into_iter().find(|(_, size, most)| size > most) {
            Some((what, size, most)) => Err((what, format!("is too long: {size} bytes, limit {most}"))),
            None => Ok(()),
        }
    }
}

/// The JSON text of a task's metadata; empty where there is none.
pub fn metadata_text(metadata: &Metadata) -> String {
    if metadata.is_empty() { String::new() } else { serde_json::to_string(metadata).expect("keys are texts") }
}

/// A layer; 0 is none.
fn layer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(Option::<u64>::deserialize(deserializer)?.filter(|seed| *seed != 0))
}

fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Metadata, D::Error> {
    use serde_json::Value;
    Ok(match Value::deserialize(deserializer)? {
        Value::Null => Metadata::new(),
        Value::Object(metadata) => metadata,
        other => Metadata::from_iter([("value".to_owned(), other)]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(more: &str) -> Task {
        let text = format!(r#"{{"id": 7, "kind": "fvqa/people", "question": "q", "answers": ["a"]{more}}}"#);
        serde_json::from_str(&text).expect(more)
    }

    #[test]
    fn kind_is_free_and_a_layer_is_optional() {
        let bare = read("");
        assert_eq!((bare.kind.as_str(), bare.layer, bare.world_seed()), ("fvqa/people", None, 0));
        assert_eq!(read(r#", "layer": 0"#), bare, "older sets say 0");
        assert_eq!(read(r#", "layer": null"#), bare);
        assert_eq!(read(r#", "layer": 3"#).layer, Some(3));
        assert!(!serde_json::to_string(&bare).expect("plain data").contains("layer"));
        assert_eq!(serde_json::to_string(&TaskKind::VISUAL_HOP).expect("a text"), r#""visual_hop""#);
        assert_eq!(serde_json::from_str::<TaskKind>(r#""visual_hop""#).expect("a text"), TaskKind::VISUAL_HOP);
    }

    #[test]
    fn metadata_stays_as_it_was_written() {
        let task = read(r#", "metadata": {"source": {"row": 12345678901234567890, "b": 1, "a": [0.1]}}"#);
        let again: Task = serde_json::from_str(&serde_json::to_string(&task).expect("plain data")).expect("reads back");
        assert_eq!(again, task);
        assert_eq!(metadata_text(&task.metadata), r#"{"source":{"row":12345678901234567890,"b":1,"a":[0.1]}}"#);
        assert_eq!(metadata_text(&read(r#", "metadata": "mmsearch""#).metadata), r#"{"value":"mmsearch"}"#);
        assert!(read(r#", "metadata": null"#).metadata.is_empty());
    }

    #[test]
    fn what_does_not_travel_is_named() {
        let large = Metadata::from_iter([("x".to_owned(), "y".repeat(Task::MAX_METADATA_BYTES).into())]);
        for (what, task) in [
            ("kind", Task { kind: TaskKind::new(""), ..read("") }),
            ("kind", Task { kind: TaskKind::new("x".repeat(TaskKind::MAX_BYTES + 1)), ..read("") }),
            ("metadata", Task { metadata: large, ..read("") }),
        ] {
            assert_eq!(task.check().expect_err(what).0, what);
        }
        assert_eq!(read("").check(), Ok(()));
    }

    #[test]
    fn reports_list_our_own_kinds_first() {
        let mut kinds = [TaskKind::new("b"), TaskKind::TEXTUAL_CONSTRAINTS, TaskKind::new("a"), TaskKind::VISUAL_SELECT];
        kinds.sort_by(|one, other| one.rank().cmp(&other.rank()));
        assert_eq!(kinds.map(|kind| kind.to_string()), ["visual_select", "textual_constraints", "a", "b"]);
    }
}
