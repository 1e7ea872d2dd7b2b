//! How good a policy was while it was trained: a line per version that was measured, and which of them is the best.
//!
//! In: evaluations. Out: `evaluations.jsonl`, read back in the order of steps; which of two is better. It knows nobody who measures.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use hypereyes_outside::jsonl::Lines;
use serde::{Deserialize, Serialize};

use crate::Report;

/// The file of the evaluations in a folder.
pub const EVALUATIONS: &str = "evaluations.jsonl";
/// The policy that was best, as a model folder.
pub const BEST: &str = "best";
/// What it was measured to be: an [`Evaluation`].
pub const BEST_JSON: &str = "best.json";
/// Rollouts of which one may have been left out: what more of them say may be luck.
const ONE_OF: usize = 10;
/// Longest line that is read.
const MAX_LINE: usize = 1 << 20;

/// One version on the held-out tasks: a line of `evaluations.jsonl`, and `best.json`. Field order is the order of the JSON keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Optimiser steps that the version has behind it.
    pub step: u64,
    /// Its number.
    pub version: u64,
    /// The step that was to be measured: an earlier one than `step` where that version was not published any more.
    pub due: u64,
    /// BLAKE3 of the policy's tensors in f32, as `policy.json` of the learner has it.
    pub digest: String,
    /// Seconds that it took; none where more was measured at the same time, as before and after training.
    pub seconds: Option<f64>,
    /// When it ended, in seconds since 1970.
    pub time: u64,
    /// The numbers, with their intervals.
    #[serde(flatten)]
    pub report: Report,
}

/// What makes a version the best.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BestBy {
    /// The most right answers; of equals the higher cost-aware score.
    #[default]
    Accuracy,
    /// The highest cost-aware score; of equals the one with more right answers.
    Cas,
}

impl BestBy {
    /// Whether `one` is better than `other`. Equals are not: the version that came first stays. Before all, what was measured as good as
    /// whole is better than what was not: a server or a judge that fails leaves few rollouts, and those may all be right.
    pub fn prefers(self, one: &Report, other: &Report) -> bool {
        let is_whole = |report: &Report| report.invalid.saturating_mul(ONE_OF) <= report.rollouts.saturating_add(report.invalid);
        let key = |report: &Report| match self {
            Self::Accuracy => [report.accuracy, report.cas],
            Self::Cas => [report.cas, report.accuracy],
        };
        let whole = is_whole(one).cmp(&is_whole(other));
        let (one, other) = (key(one), key(other));
        whole.then(one[0].total_cmp(&other[0])).then(one[1].total_cmp(&other[1])).is_gt()
    }

    /// Its name in settings and results.
    pub fn label(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::Cas => "cas",
        }
    }
}

/// Evaluations of a file, in the order of steps. Of a step that was measured twice, as after a learner went back to a checkpoint and took
/// it again, the later one counts; lines that are damaged are passed over. A file that is not there has none.
///
/// # Errors
/// When the file cannot be read.
pub fn read(path: &Path) -> io::Result<Vec<Evaluation>> {
    let lines = match Lines::open(path, MAX_LINE) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        opened => opened?,
    };
    let mut by_step = BTreeMap::new();
    for row in lines.values::<Evaluation>() {
        if let Ok(evaluation) = row?.value {
            by_step.insert(evaluation.step, evaluation);
        }
    }
    Ok(by_step.into_values().collect())
}

/// The best of some evaluations: of equals the earliest.
pub fn best(evaluations: &[Evaluation], by: BestBy) -> Option<&Evaluation> {
    evaluations.iter().reduce(|best, one| if by.prefers(&one.report, &best.report) { one } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::outcomes;

    fn evaluation(step: u64, accuracy: f64, cas: f64) -> Evaluation {
        let report = Report { accuracy, cas, ..Report::new(5, &outcomes(), 0) };
        Evaluation { step, version: step, due: step, digest: format!("{step:064}"), seconds: Some(1.5), time: 9, report }
    }

    #[test]
    fn the_best_is_told_by_one_number_then_by_the_other_then_by_who_came_first() {
        let all = [evaluation(0, 0.5, 3.0), evaluation(10, 0.75, 2.0), evaluation(20, 0.75, 2.5), evaluation(30, 0.75, 2.5)];
        assert_eq!(best(&all, BestBy::Accuracy).map(|one| one.step), Some(20));
        assert_eq!(best(&all, BestBy::Cas).map(|one| one.step), Some(0));
        assert_eq!(best(&[], BestBy::Cas), None);
        assert!(!BestBy::Accuracy.prefers(&all[2].report, &all[3].report), "an equal is not better");
    }

    #[test]
    fn what_most_rollouts_are_missing_of_is_not_the_best() {
        let of = |step, accuracy, rollouts, invalid| {
            let evaluation = evaluation(step, accuracy, 1.0);
            Evaluation { report: Report { rollouts, invalid, ..evaluation.report }, ..evaluation }
        };
        let all = [of(0, 0.5, 9, 1), of(10, 1.0, 1, 9), of(20, 0.75, 10, 0), of(30, 0.9, 8, 2)];
        assert_eq!(best(&all, BestBy::Accuracy).map(|one| one.step), Some(20));
        assert_eq!(best(&all[1..2], BestBy::Accuracy).map(|one| one.step), Some(10), "as long as there is no other");
    }

    #[test]
    fn a_line_has_the_numbers_beside_the_step_and_is_read_back() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join(EVALUATIONS);
        assert_eq!(read(&path).expect("no file"), []);
        let all = [evaluation(20, 0.5, 1.0), evaluation(10, 0.25, 1.0), evaluation(20, 0.75, 2.0)];
        let text: String = all.iter().map(|one| serde_json::to_string(one).expect("plain") + "\n").collect();
        assert!(text.starts_with("{\"step\":20,\"version\":20,\"due\":20,\"digest\":\"0"), "{text}");
        assert!(text.contains("\"time\":9,\"tasks\":5,\"accuracy\":0.5,\"rounds\":3.0"), "{text}");
        std::fs::write(&path, format!("{text}{{\"step\":30,\"ver")).expect("written");
        let read = read(&path).expect("there");
        assert_eq!(read, [all[1].clone(), all[2].clone()], "the later line of a step, in the order of steps");
    }
}
