//! Tasks and references.
//!
//! In: tasks of a task set, references of the scorer. Out: their messages, and back.

use hypereyes_domain::task::metadata_text;
use hypereyes_domain::{EntityId, Metadata, Reference, Shown, Task, TaskKind};

use super::{Invalid, at_most, each, ids, present};
use crate::limits::{MAX_ANSWER_BYTES, MAX_ANSWERS, MAX_QUESTION_BYTES, MAX_ROUNDS, MAX_SEARCHES_PER_CALL, MAX_SHOWN};
use crate::v1;

impl From<Reference> for v1::Reference {
    fn from(Reference { rounds, searches }: Reference) -> Self {
        Self { rounds, searches }
    }
}

impl TryFrom<v1::Reference> for Reference {
    type Error = Invalid;

    fn try_from(v1::Reference { rounds, searches }: v1::Reference) -> Result<Self, Invalid> {
        // A reference comes from a success that searched. Letting one in that did not would tighten for ever, and nothing undoes it.
        let reference = Self { rounds, searches };
        reference.check().map_err(|(what, reason)| Invalid::new(what, reason))?;
        at_most("rounds", rounds as usize, MAX_ROUNDS)?;
        at_most("searches", searches as usize, MAX_ROUNDS * MAX_SEARCHES_PER_CALL)?;
        Ok(reference)
    }
}

/// An optional reference.
pub(crate) fn reference(message: Option<v1::Reference>) -> Result<Option<Reference>, Invalid> {
    message.map(|message| Reference::try_from(message).map_err(|invalid| invalid.within("reference"))).transpose()
}

impl From<&TaskKind> for v1::TaskKind {
    fn from(kind: &TaskKind) -> Self {
        let at = TaskKind::SYNTHETIC.iter().position(|known| known == kind);
        at.map_or(Self::Unspecified, |at| [Self::VisualSelect, Self::VisualHop, Self::TextualConstraints][at])
    }
}

/// The kind by its name, or where that is missing by its number; two that contradict each other are none.
fn kind(number: i32, name: String) -> Result<TaskKind, Invalid> {
    let unknown = || Invalid::new("kind", "is not said, or is of a kind not known here");
    let number = match v1::TaskKind::try_from(number).map_err(|_| unknown())? {
        v1::TaskKind::VisualSelect => Some(TaskKind::VISUAL_SELECT),
        v1::TaskKind::VisualHop => Some(TaskKind::VISUAL_HOP),
        v1::TaskKind::TextualConstraints => Some(TaskKind::TEXTUAL_CONSTRAINTS),
        v1::TaskKind::Unspecified => None,
    };
    if name.is_empty() {
        return number.ok_or_else(unknown);
    }
    at_most("kind_name", name.len(), TaskKind::MAX_BYTES)?;
    let name = TaskKind::new(ids::text("kind_name", name)?);
    match number {
        Some(number) if number != name => Err(Invalid::new("kind", format!("says {number}, and kind_name {name}"))),
        _ => Ok(name),
    }
}

/// What a set keeps beside a task, from its JSON text.
fn metadata(text: &str) -> Result<Metadata, Invalid> {
    at_most("metadata", text.len(), Task::MAX_METADATA_BYTES)?;
    if text.is_empty() {
        return Ok(Metadata::new());
    }
    serde_json::from_str(text).map_err(|error| Invalid::new("metadata", format!("is no JSON object: {error}")))
}

impl From<Shown> for v1::Shown {
    fn from(shown: Shown) -> Self {
        Self { entity_id: shown.entity.as_str().to_owned(), area: Some(shown.area.into()) }
    }
}

impl TryFrom<v1::Shown> for Shown {
    type Error = Invalid;

    fn try_from(shown: v1::Shown) -> Result<Self, Invalid> {
        let area = present("area", shown.area)?.try_into().map_err(|invalid: Invalid| invalid.within("area"))?;
        Ok(Self { entity: EntityId::new(ids::text("entity_id", shown.entity_id)?), area })
    }
}

impl From<Task> for v1::Task {
    fn from(task: Task) -> Self {
        Self {
            id: task.id.as_str().to_owned(),
            kind: v1::TaskKind::from(&task.kind).into(),
            kind_name: task.kind.to_string(),
            metadata: metadata_text(&task.metadata),
            question: task.question,
            answers: task.answers,
            pictures: ids::texts(task.pictures),
            layer: task.layer.unwrap_or(0),
            shown: task.shown.into_iter().map(Into::into).collect(),
            reference: task.reference.map(Into::into),
        }
    }
}

impl TryFrom<v1::Task> for Task {
    type Error = Invalid;

    fn try_from(task: v1::Task) -> Result<Self, Invalid> {
        let kind = kind(task.kind, task.kind_name)?;
        at_most("question", task.question.len(), MAX_QUESTION_BYTES)?;
        let answer = |answer: String| at_most("answer", answer.len(), MAX_ANSWER_BYTES).map(|()| answer);
        let answers = each("answers", task.answers, MAX_ANSWERS, answer)?;
        if answers.is_empty() {
            return Err(Invalid::new("answers", "is empty"));
        }
        Ok(Self {
            id: ids::task("id", task.id)?,
            kind,
            question: task.question,
            answers,
            pictures: ids::pictures("pictures", task.pictures)?,
            layer: Some(task.layer).filter(|layer| *layer != 0),
            metadata: metadata(&task.metadata)?,
            shown: each("shown", task.shown, MAX_SHOWN, Shown::try_from)?,
            reference: reference(task.reference)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::samples;

    #[test]
    fn tasks_survive_the_wire() {
        let bare = Task { pictures: vec![], shown: vec![], reference: None, kind: TaskKind::TEXTUAL_CONSTRAINTS, ..samples::task() };
        for task in [samples::task(), bare, Task { kind: TaskKind::VISUAL_HOP, layer: Some(u64::MAX), ..samples::task() }] {
            assert_eq!(Task::try_from(v1::Task::from(task.clone())), Ok(task));
        }
    }

    #[test]
    fn kinds_and_metadata_of_other_sets_survive_the_wire() {
        let metadata = Metadata::from_iter([("benchmark".to_owned(), "MMSearch".into()), ("row".to_owned(), 7.into())]);
        let task = Task { kind: TaskKind::new("mmsearch/news"), layer: None, metadata, ..samples::task() };
        let message = v1::Task::from(task.clone());
        assert_eq!((message.kind, message.layer), (0, 0));
        assert_eq!(Task::try_from(message), Ok(task));
    }

    #[test]
    fn peers_that_say_a_kind_by_its_number_alone_are_understood() {
        let message = v1::Task { kind_name: String::new(), ..samples::task().into() };
        assert_eq!(Task::try_from(message), Ok(samples::task()));
        let torn = v1::Task { kind_name: "visual_hop".into(), ..samples::task().into() };
        assert_eq!(Task::try_from(torn).expect_err("two kinds").to_string(), "kind says visual_select, and kind_name visual_hop");
    }

    #[test]
    fn broken_tasks_are_rejected_by_name() {
        let good = v1::Task::from(samples::task());
        let cases: [(&str, v1::Task); 13] = [
            ("id", v1::Task { id: String::new(), ..good.clone() }),
            ("kind", v1::Task { kind: 99, ..good.clone() }),
            ("kind_name", v1::Task { kind_name: "x".repeat(TaskKind::MAX_BYTES + 1), ..good.clone() }),
            ("metadata", v1::Task { metadata: "[1]".into(), ..good.clone() }),
            ("metadata", v1::Task { metadata: " ".repeat(Task::MAX_METADATA_BYTES + 1), ..good.clone() }),
            ("question", v1::Task { question: "q".repeat(MAX_QUESTION_BYTES + 1), ..good.clone() }),
            ("answers", v1::Task { answers: vec![], ..good.clone() }),
            ("pictures[0].id", v1::Task { pictures: vec!["../x".into()], ..good.clone() }),
            ("shown[0].area", v1::Task { shown: vec![v1::Shown { entity_id: "mx".into(), area: None }], ..good.clone() }),
            ("reference.rounds", v1::Task { reference: Some(v1::Reference { rounds: 0, searches: 0 }), ..good.clone() }),
            ("reference.rounds", v1::Task { reference: Some(v1::Reference { rounds: 0, searches: 3 }), ..good.clone() }),
            ("reference.searches", v1::Task { reference: Some(v1::Reference { rounds: 1, searches: 0 }), ..good.clone() }),
            ("reference.rounds", v1::Task { reference: Some(v1::Reference { rounds: u32::MAX, searches: 9 }), ..good.clone() }),
        ];
        for (what, task) in cases {
            assert_eq!(Task::try_from(task).expect_err(what).what, what);
        }
    }
}
