//! One rollout of an evaluation, as it is kept. In: a task, what the policy did, the verdict. Out: a line with all that a report, a
//! comparison or another judge needs of it. It knows no file.

use hypereyes_domain::{Accuracy, Failure, GenerateError, Task, TaskId, TaskKind, Trajectory};
use serde::{Deserialize, Serialize};

use crate::bill::Spent;

/// Which rollout.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its task.
    pub task: TaskId,
    /// Which of the task's rollouts, from 0.
    pub sample: u32,
    /// Without tools.
    pub closed_book: bool,
}

/// A rollout that came to an end. What is not known is absent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Its task.
    pub task: TaskId,
    /// Which of the task's rollouts, from 0.
    pub sample: u32,
    /// Without tools: what the policy knows or guesses.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub closed_book: bool,
    /// The kind of its task.
    pub kind: TaskKind,
    /// What was asked.
    pub question: String,
    /// What is right.
    pub answers: Vec<String>,
    /// What the policy answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// The verdict.
    pub verdict: Accuracy,
    /// What the benchmark's own metric gives for the answer, 0..=1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<f64>,
    /// Tool rounds.
    pub rounds: u32,
    /// Searches over all rounds.
    pub searches: u32,
    /// Prompt and response tokens.
    pub tokens: u64,
    /// Seconds that it took, beside whatever ran at the same time.
    pub seconds: f64,
    /// Requests to search services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
    /// Dollars that those cost, where settings price them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usd: Option<f64>,
    /// Why it could not be rolled out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

impl Item {
    /// A rollout with its verdict.
    pub(crate) fn rolled(key: &Key, task: &Task, trajectory: &Trajectory, verdict: Accuracy, seconds: f64, spent: Spent) -> Self {
        Self {
            answer: trajectory.summary.answer.clone(),
            verdict,
            rounds: trajectory.summary.round_count(),
            searches: trajectory.summary.searches(),
            tokens: trajectory.tokens() as u64,
            ..Self::begun(key, task, seconds, spent)
        }
    }

    /// One that never was.
    pub(crate) fn failed(key: &Key, task: &Task, error: &GenerateError, seconds: f64, spent: Spent) -> Self {
        let failure = Some(error.message.clone());
        Self { verdict: Accuracy::Invalid(error.failure), failure, ..Self::begun(key, task, seconds, spent) }
    }

    fn begun(key: &Key, task: &Task, seconds: f64, spent: Spent) -> Self {
        Self {
            task: key.task.clone(),
            sample: key.sample,
            closed_book: key.closed_book,
            kind: task.kind.clone(),
            question: task.question.clone(),
            answers: task.answers.clone(),
            answer: None,
            verdict: Accuracy::Invalid(Failure::Infrastructure),
            metric: None,
            rounds: 0,
            searches: 0,
            tokens: 0,
            // Milliseconds are what a clock of many rollouts at once can tell.
            seconds: (seconds * 1000.0).round() / 1000.0,
            requests: spent.requests,
            usd: spent.usd,
            failure: None,
        }
    }

    /// Which it is.
    pub fn key(&self) -> Key {
        Key { task: self.task.clone(), sample: self.sample, closed_book: self.closed_book }
    }

    /// Whether it says something of the policy. What failed for another reason is asked again.
    pub fn is_finished(&self) -> bool {
        !matches!(self.verdict, Accuracy::Invalid(_))
    }

    /// Whether nothing but the verdict is missing: it is judged again, and not rolled out.
    pub fn waits_for_verdict(&self) -> bool {
        self.verdict == Accuracy::Invalid(Failure::Judge) && self.answer.is_some()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A rollout of a task of this kind.
    pub(crate) fn item(task: &str, sample: u32, kind: &str, verdict: Accuracy, rounds: u32, tokens: u64) -> Item {
        Item {
            task: task.into(),
            sample,
            closed_book: false,
            kind: TaskKind::new(kind),
            question: "Which?".into(),
            answers: vec!["a".into()],
            answer: Some("a".into()),
            verdict,
            metric: None,
            rounds,
            searches: 2 * rounds,
            tokens,
            seconds: 1.5,
            requests: None,
            usd: None,
            failure: None,
        }
    }

    #[test]
    fn a_line_has_what_is_known_and_nothing_else() {
        let item = item("t", 0, "news", Accuracy::Correct, 2, 300);
        let line = serde_json::to_string(&item).expect("plain data");
        assert_eq!(
            line,
            r#"{"task":"t","sample":0,"kind":"news","question":"Which?","answers":["a"],"answer":"a","verdict":"correct","rounds":2,"searches":4,"tokens":300,"seconds":1.5}"#
        );
        assert_eq!(serde_json::from_str::<Item>(&line).expect("reads back"), item);
        let failed = Item { verdict: Accuracy::Invalid(Failure::Tool), usd: Some(0.25), closed_book: true, ..item.clone() };
        let line = serde_json::to_string(&failed).expect("plain data");
        assert!(line.contains(r#""closed_book":true"#) && line.contains(r#""verdict":{"invalid":"tool"}"#), "{line}");
        assert_eq!(serde_json::from_str::<Item>(&line).expect("reads back"), failed);
        assert!(item.is_finished() && !failed.is_finished() && !failed.waits_for_verdict());
        assert!(Item { verdict: Accuracy::Invalid(Failure::Judge), ..item }.waits_for_verdict());
    }
}
