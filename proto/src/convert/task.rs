//! Tasks and references.
//!
//! In: tasks of a task set, references of the scorer. Out: their messages, and back.

use hypereyes_domain::{EntityId, Reference, Shown, Task, TaskKind};

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

impl From<TaskKind> for v1::TaskKind {
    fn from(kind: TaskKind) -> Self {
        match kind {
            TaskKind::VisualSelect => Self::VisualSelect,
            TaskKind::VisualHop => Self::VisualHop,
            TaskKind::TextualConstraints => Self::TextualConstraints,
        }
    }
}

impl TryFrom<v1::TaskKind> for TaskKind {
    type Error = Invalid;

    fn try_from(kind: v1::TaskKind) -> Result<Self, Invalid> {
        match kind {
            v1::TaskKind::VisualSelect => Ok(Self::VisualSelect),
            v1::TaskKind::VisualHop => Ok(Self::VisualHop),
            v1::TaskKind::TextualConstraints => Ok(Self::TextualConstraints),
            v1::TaskKind::Unspecified => Err(Invalid::new("kind", "is not said, or is of a kind not known here")),
        }
    }
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
            kind: v1::TaskKind::from(task.kind).into(),
            question: task.question,
            answers: task.answers,
            pictures: ids::texts(task.pictures),
            layer: task.layer,
            shown: task.shown.into_iter().map(Into::into).collect(),
            reference: task.reference.map(Into::into),
        }
    }
}

impl TryFrom<v1::Task> for Task {
    type Error = Invalid;

    fn try_from(task: v1::Task) -> Result<Self, Invalid> {
        let kind = TaskKind::try_from(task.kind())?;
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
            layer: task.layer,
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
        let bare = Task { pictures: vec![], shown: vec![], reference: None, kind: TaskKind::TextualConstraints, ..samples::task() };
        for task in [samples::task(), bare, Task { kind: TaskKind::VisualHop, layer: u64::MAX, ..samples::task() }] {
            assert_eq!(Task::try_from(v1::Task::from(task.clone())), Ok(task));
        }
    }

    #[test]
    fn broken_tasks_are_rejected_by_name() {
        let good = v1::Task::from(samples::task());
        let cases: [(&str, v1::Task); 10] = [
            ("id", v1::Task { id: String::new(), ..good.clone() }),
            ("kind", v1::Task { kind: 99, ..good.clone() }),
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
