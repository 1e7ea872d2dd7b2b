//! Means with their intervals. In: one outcome per rollout. Out: a report. Pure: it knows no rollout.

use std::collections::HashSet;

use hypereyes_domain::{Accuracy, Failure, TaskKind};
use hypereyes_scoring::{Interval, cas, mean_interval, wilson};
use serde::{Deserialize, Serialize};

/// What counts of one rollout.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The kind of its task.
    pub kind: TaskKind,
    /// The verdict.
    pub accuracy: Accuracy,
    /// Tool rounds.
    pub rounds: u32,
    /// Searches over all rounds.
    pub searches: u32,
    /// Prompt and response tokens.
    pub tokens: usize,
}

/// The numbers of an evaluation. Field order is the order of the JSON keys, which scripts rely on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Tasks in the set.
    pub tasks: usize,
    /// Share of right answers among rollouts with a verdict, 0..=1.
    pub accuracy: f64,
    /// Mean tool rounds.
    pub rounds: f64,
    /// Mean searches.
    pub searches: f64,
    /// Mean thousands of tokens, prompt and response.
    pub kilotokens: f64,
    /// Cost-aware score.
    pub cas: f64,
    /// 95 % interval of the accuracy.
    pub accuracy_interval: Interval,
    /// 95 % interval of the mean rounds.
    pub rounds_interval: Interval,
    /// Rollouts with a verdict.
    pub rollouts: usize,
    /// Rollouts without an answer; they count as not right.
    pub unparsed: usize,
    /// Rollouts and tasks left out: they failed for a reason outside the policy.
    pub invalid: usize,
    /// Those of them that answered and got no verdict: the judge failed. None in reports of before they were counted.
    #[serde(default)]
    pub unjudged: usize,
    /// The same by kind of task: those that are synthesised here first, then the others by name; kinds without a rollout are absent.
    pub by_kind: Vec<KindReport>,
}

/// The numbers of one kind of task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KindReport {
    /// Which kind.
    pub kind: TaskKind,
    /// Rollouts with a verdict.
    pub rollouts: usize,
    /// Share of right answers.
    pub accuracy: f64,
    /// Mean tool rounds.
    pub rounds: f64,
    /// Mean searches.
    pub searches: f64,
    /// Mean thousands of tokens.
    pub kilotokens: f64,
    /// Cost-aware score.
    pub cas: f64,
    /// 95 % interval of the accuracy.
    pub accuracy_interval: Interval,
    /// 95 % interval of the mean rounds.
    pub rounds_interval: Interval,
}

impl Report {
    /// Sums up `outcomes` of `tasks` tasks, of which `left_out` could not be rolled out at all.
    pub fn new(tasks: usize, outcomes: &[Outcome], left_out: usize) -> Self {
        let judged: Vec<&Outcome> = outcomes.iter().filter(|one| !matches!(one.accuracy, Accuracy::Invalid(_))).collect();
        let all = Sums::new(&judged);
        let mut kinds: Vec<&TaskKind> = judged.iter().map(|one| &one.kind).collect::<HashSet<_>>().into_iter().collect();
        kinds.sort_by_key(|kind| kind.rank());
        let of_kind = |kind: &TaskKind| {
            let some: Vec<&Outcome> = judged.iter().filter(|one| one.kind == *kind).copied().collect();
            Sums::new(&some).kind(kind.clone())
        };
        Self {
            tasks,
            accuracy: all.accuracy,
            rounds: all.rounds,
            searches: all.searches,
            kilotokens: all.kilotokens,
            cas: all.cas,
            accuracy_interval: all.accuracy_interval,
            rounds_interval: all.rounds_interval,
            rollouts: judged.len(),
            unparsed: judged.iter().filter(|one| one.accuracy == Accuracy::Unparsed).count(),
            invalid: outcomes.len() - judged.len() + left_out,
            unjudged: outcomes.iter().filter(|one| one.accuracy == Accuracy::Invalid(Failure::Judge)).count(),
            by_kind: kinds.into_iter().map(of_kind).collect(),
        }
    }
}

struct Sums {
    rollouts: usize,
    accuracy: f64,
    rounds: f64,
    searches: f64,
    kilotokens: f64,
    cas: f64,
    accuracy_interval: Interval,
    rounds_interval: Interval,
}

impl Sums {
    fn new(judged: &[&Outcome]) -> Self {
        let count = judged.len().max(1) as f64;
        let mean = |value: &dyn Fn(&Outcome) -> f64| judged.iter().map(|one| value(one)).sum::<f64>() / count;
        let right = judged.iter().filter(|one| one.accuracy == Accuracy::Correct).count();
        let rounds: Vec<f64> = judged.iter().map(|one| f64::from(one.rounds)).collect();
        let (accuracy, mean_rounds) = (right as f64 / count, mean(&|one| f64::from(one.rounds)));
        let kilotokens = mean(&|one| one.tokens as f64) / 1000.0;
        Self {
            rollouts: judged.len(),
            accuracy,
            rounds: mean_rounds,
            searches: mean(&|one| f64::from(one.searches)),
            kilotokens,
            cas: cas(accuracy, kilotokens, mean_rounds),
            accuracy_interval: wilson(right as u64, judged.len() as u64),
            rounds_interval: mean_interval(&rounds).unwrap_or(Interval { low: 0.0, high: 0.0 }),
        }
    }

    fn kind(self, kind: TaskKind) -> KindReport {
        KindReport {
            kind,
            rollouts: self.rollouts,
            accuracy: self.accuracy,
            rounds: self.rounds,
            searches: self.searches,
            kilotokens: self.kilotokens,
            cas: self.cas,
            accuracy_interval: self.accuracy_interval,
            rounds_interval: self.rounds_interval,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn outcomes() -> Vec<Outcome> {
        let one = |kind, accuracy, rounds, searches, tokens| Outcome { kind, accuracy, rounds, searches, tokens };
        vec![
            one(TaskKind::VISUAL_SELECT, Accuracy::Correct, 2, 6, 300),
            one(TaskKind::VISUAL_SELECT, Accuracy::Wrong, 6, 6, 700),
            one(TaskKind::TEXTUAL_CONSTRAINTS, Accuracy::Correct, 1, 1, 100),
            one(TaskKind::TEXTUAL_CONSTRAINTS, Accuracy::Unparsed, 3, 3, 100),
            one(TaskKind::VISUAL_HOP, Accuracy::Invalid(Failure::Tool), 9, 9, 9000),
        ]
    }

    #[test]
    fn failures_outside_the_policy_are_in_no_mean() {
        let report = Report::new(6, &outcomes(), 1);
        assert_eq!((report.tasks, report.rollouts, report.unparsed, report.invalid), (6, 4, 1, 2));
        assert_eq!((report.accuracy, report.rounds, report.searches, report.kilotokens), (0.5, 3.0, 4.0, 0.3));
        assert!((report.cas - 0.25 * 100.0 / (0.3 + 6.0 + 1.0)).abs() < 1e-12);
        assert!(report.accuracy_interval.low < 0.5 && report.accuracy_interval.high > 0.5);
        let kinds: Vec<TaskKind> = report.by_kind.iter().map(|kind| kind.kind.clone()).collect();
        assert_eq!(kinds, [TaskKind::VISUAL_SELECT, TaskKind::TEXTUAL_CONSTRAINTS]);
        assert_eq!((report.by_kind[1].accuracy, report.by_kind[1].rounds), (0.5, 2.0));
    }

    #[test]
    fn kinds_of_any_name_are_split_by_name() {
        let of = |kind: TaskKind| Outcome { kind, accuracy: Accuracy::Correct, rounds: 1, searches: 1, tokens: 10 };
        let outcomes = ["news", TaskKind::VISUAL_HOP.as_str(), "art"].map(|kind| of(TaskKind::new(kind)));
        let report = Report::new(3, &outcomes, 0);
        let kinds: Vec<&str> = report.by_kind.iter().map(|kind| kind.kind.as_str()).collect();
        assert_eq!(kinds, ["visual_hop", "art", "news"]);
    }

    #[test]
    fn json_opens_with_the_six_keys_in_order() {
        let text = serde_json::to_string(&Report::new(5, &outcomes(), 0)).expect("numbers");
        let mut from = 0;
        for key in ["{\"tasks\":", ",\"accuracy\":", ",\"rounds\":", ",\"searches\":", ",\"kilotokens\":", ",\"cas\":"] {
            let at = text[from..].find(key).expect(key);
            assert!(at < 40, "{key} is not next in {text}");
            from += at + key.len();
        }
        let read: Report = serde_json::from_str(&text).expect("reads back");
        assert_eq!((read.tasks, read.accuracy, read.by_kind.len()), (5, 0.5, 2));
    }

    #[test]
    fn a_judge_that_failed_is_counted_and_nothing_else_of_it() {
        let mut all = outcomes();
        let before = Report::new(5, &all, 0);
        all.push(Outcome { accuracy: Accuracy::Invalid(Failure::Judge), ..all[0].clone() });
        let report = Report::new(6, &all, 0);
        assert_eq!((before.unjudged, report.unjudged, report.invalid), (0, 1, 2));
        assert_eq!((report.rollouts, report.accuracy, report.rounds), (before.rollouts, before.accuracy, before.rounds));
    }

    #[test]
    fn nothing_evaluated_is_no_number_out_of_nowhere() {
        let report = Report::new(0, &[], 0);
        assert_eq!((report.accuracy, report.rounds, report.cas), (0.0, 0.0, 0.0));
        assert_eq!(report.accuracy_interval, Interval { low: 0.0, high: 1.0 });
    }
}
