//! A task: what is asked, on which pictures, and what is right.

use serde::{Deserialize, Serialize};

use crate::{Area, EntityId, PictureId, Reference, TaskId, text};

/// How a task was made (docs/spec.md#synthesis).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    /// Several entities on one picture; a constraint singles one out.
    VisualSelect,
    /// As above, and another fact of the entity found is asked.
    VisualHop,
    /// No picture; several constraints of which no proper subset suffices.
    TextualConstraints,
}

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
    /// How it was made.
    pub kind: TaskKind,
    /// The question as the policy reads it, without picture placeholders.
    pub question: String,
    /// Right answers: the canonical one first, then aliases. Never empty. Numbers are read as their text.
    #[serde(deserialize_with = "text::many")]
    pub answers: Vec<String>,
    /// Pictures of the prompt, in order; `pictures/<id>.png` beside the task file.
    #[serde(default)]
    pub pictures: Vec<PictureId>,
    /// Counterfactual layer of the world that the tools answer from; 0 is the world as it is.
    #[serde(default)]
    pub layer: u64,
    /// Who is on the (first) picture, and where.
    #[serde(default)]
    pub shown: Vec<Shown>,
    /// Cost of the cheapest known success when the set was made; `None` when none is known (docs/spec.md#d5).
    #[serde(default)]
    pub reference: Option<Reference>,
}

impl Task {
    /// The canonical right answer.
    pub fn answer(&self) -> &str {
        self.answers.first().map_or("", String::as_str)
    }
}
