//! What a run of `up` came to. In: two evaluations and counts. Out: the JSON that scripts rely on, and `result.json`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use hypereyes_eval::{Evaluation, Report};
use hypereyes_run::audit::LedgerSummary;
use hypereyes_scoring::Interval;
use serde::{Deserialize, Serialize};

/// One policy on the held-out tasks. Field order is the order of the JSON keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Numbers {
    /// Tasks in the set.
    pub tasks: usize,
    /// Share of right answers, 0..=1.
    pub accuracy: f64,
    /// Mean tool rounds.
    pub rounds: f64,
    /// Mean searches.
    pub searches: f64,
    /// Mean thousands of tokens of an episode.
    pub kilotokens: f64,
    /// Cost-aware score.
    pub cas: f64,
}

impl From<&Report> for Numbers {
    fn from(report: &Report) -> Self {
        Self {
            tasks: report.tasks,
            accuracy: report.accuracy,
            rounds: report.rounds,
            searches: report.searches,
            kilotokens: report.kilotokens,
            cas: report.cas,
        }
    }
}

/// What `up --json` prints: exactly these keys, in this order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The policy that the run started from.
    pub before: Numbers,
    /// The policy that it made, on the same tasks with the same seeds.
    pub after: Numbers,
    /// Accuracy of the start policy without tools, 0..=1.
    pub closed_book_accuracy: f64,
    /// Optimiser steps.
    pub steps: u64,
    /// Groups that were trained on.
    pub groups_trained: u64,
    /// Groups that were dropped, for whatever reason.
    pub groups_dropped: u64,
    /// Seconds from the first preparation to the table, over all attempts.
    pub wall_seconds: f64,
    /// The run's seed.
    pub seed: u64,
    /// Why nothing was learned, in words; only there when it was so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learned_nothing: Option<String>,
    /// The best version; only there where the policy was measured while it was trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best: Option<Best>,
}

/// The version of a run that did best on held-out tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Optimiser steps that it has behind it.
    pub step: u64,
    /// Its number.
    pub version: u64,
    /// BLAKE3 of its tensors, as [`hypereyes_eval::Evaluation`] has it.
    pub digest: String,
    /// Its numbers.
    #[serde(flatten)]
    pub numbers: Numbers,
    /// 95 % interval of the accuracy. That of the best of many is better than it is.
    pub accuracy_interval: Interval,
    /// Where it is kept.
    pub policy: PathBuf,
}

impl Best {
    /// What was measured, kept in this folder.
    pub fn new(evaluation: &Evaluation, policy: PathBuf) -> Self {
        let Evaluation { step, version, ref digest, ref report, .. } = *evaluation;
        let (digest, accuracy_interval) = (digest.clone(), report.accuracy_interval);
        Self { step, version, digest, numbers: report.into(), accuracy_interval, policy }
    }
}

/// The evaluation before a run, kept so that a resumed run need not repeat it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Before {
    /// With tools.
    pub report: Report,
    /// Accuracy without tools.
    pub closed_book_accuracy: f64,
}

/// `result.json`: the summary and what stands behind it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// What `--json` prints.
    #[serde(flatten)]
    pub summary: Summary,
    /// Everything else.
    pub details: Details,
}

/// What stands behind a summary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Details {
    /// With intervals and by kind of task.
    pub before: Report,
    /// The same of the trained policy.
    pub after: Report,
    /// Accuracy of the trained policy without tools.
    pub closed_book_after: f64,
    /// Restarts of services that died.
    pub restarts: BTreeMap<String, u32>,
    /// What became of the groups.
    pub ledger: LedgerSummary,
    /// Share of the learner's time in which it waited for groups; `None` for a run without steps.
    #[serde(default)]
    pub learner_idle_share: Option<f64>,
    /// Groups that came in and were trained, per second of training.
    #[serde(default)]
    pub groups_per_second: Option<f64>,
    /// Attempts: 1 for a run that was never interrupted.
    #[serde(alias = "sittings")]
    pub attempts: u32,
    /// The trained policy.
    pub policy: PathBuf,
    /// Processor cores of the machine.
    pub cores: usize,
    /// Settings that a resumed run was told anew, one sentence per start.
    #[serde(default)]
    pub told: Vec<String>,
}

#[cfg(test)]
pub(crate) mod tests {
    use hypereyes_domain::{Accuracy, TaskKind};
    use hypereyes_eval::report::Outcome as Rollout;

    use super::*;

    /// A report of `count` rollouts of which every second is right.
    pub(crate) fn report(count: usize, rounds: u32) -> Report {
        let one = |at: usize| Rollout {
            kind: if at.is_multiple_of(3) { TaskKind::VISUAL_HOP } else { TaskKind::VISUAL_SELECT },
            accuracy: if at.is_multiple_of(2) { Accuracy::Correct } else { Accuracy::Wrong },
            rounds,
            searches: 4,
            tokens: 300,
        };
        Report::new(count, &(0..count).map(one).collect::<Vec<_>>(), 0)
    }

    pub(crate) fn outcome() -> Outcome {
        let (before, after) = (report(10, 5), report(10, 2));
        Outcome {
            summary: Summary {
                before: (&before).into(),
                after: (&after).into(),
                closed_book_accuracy: 0.1,
                steps: 3,
                groups_trained: 24,
                groups_dropped: 1,
                wall_seconds: 12.5,
                seed: 7,
                learned_nothing: None,
                best: None,
            },
            details: Details {
                before,
                after,
                closed_book_after: 0.1,
                restarts: BTreeMap::from([("reward".into(), 1)]),
                ledger: LedgerSummary::default(),
                learner_idle_share: Some(0.25),
                groups_per_second: Some(3.5),
                attempts: 1,
                policy: "learner/policy".into(),
                cores: 2,
                told: vec![],
            },
        }
    }

    #[test]
    fn the_json_of_up_has_exactly_the_promised_keys() {
        let json = serde_json::to_value(outcome().summary).expect("plain");
        let keys = |value: &serde_json::Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
        let want = ["before", "after", "closed_book_accuracy", "steps", "groups_trained", "groups_dropped", "wall_seconds", "seed"];
        assert_eq!(keys(&json), want);
        for side in ["before", "after"] {
            assert_eq!(keys(&json[side]), ["tasks", "accuracy", "rounds", "searches", "kilotokens", "cas"]);
        }
        let nothing = Summary { learned_nothing: Some("nothing was learned".into()), ..outcome().summary };
        assert_eq!(serde_json::to_value(nothing).expect("plain")["learned_nothing"], "nothing was learned");
        let report = outcome().details.after;
        let evaluation = Evaluation { step: 20, version: 20, due: 20, digest: "ab".into(), seconds: None, time: 1, report };
        let best = Summary { best: Some(Best::new(&evaluation, "best".into())), ..outcome().summary };
        let best = serde_json::to_value(best).expect("plain")["best"].clone();
        let want =
            ["step", "version", "digest", "tasks", "accuracy", "rounds", "searches", "kilotokens", "cas", "accuracy_interval", "policy"];
        assert_eq!(keys(&best), want);
    }

    #[test]
    fn a_result_is_read_back_as_it_was_written() {
        let outcome = outcome();
        let text = serde_json::to_string(&outcome).expect("plain");
        let read = serde_json::from_str::<Outcome>(&text).expect("ours");
        assert_eq!((&read.summary, &read.details.restarts), (&outcome.summary, &outcome.details.restarts));
        assert!(text.starts_with("{\"before\":{\"tasks\":10"), "the summary's keys are at the top: {text}");
    }
}
