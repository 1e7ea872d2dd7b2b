//! What a whole evaluation came to. In: its items, with and without tools. Out: today's report, whose keys stay, and what stands behind
//! it: every mean with its interval, by category, by number of samples, and what it cost.

use std::collections::BTreeMap;

use hypereyes_domain::{Accuracy, TaskKind};
use hypereyes_scoring::Interval;
use serde::{Deserialize, Serialize};

use crate::bill::Spent;
use crate::estimate::Estimate;
use crate::item::Item;
use crate::pass_at_k;
use crate::report::{Outcome, Report};
use crate::rows::Row;
use crate::sums::by_task;

/// How intervals are made, with one rollout per task.
pub const METHOD: &str = "95 %: Wilson for accuracy, normal for means, percentile bootstrap over tasks for CAS";
/// The same with several.
pub const CLUSTERED: &str = "95 %, clustered by task: Wilson at the effective number of rollouts for accuracy, normal with the deviation \
                             of tasks for means, percentile bootstrap over tasks for CAS";

/// What an evaluation came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// With tools, under the keys that scripts rely on.
    pub report: Report,
    /// With tools, every mean with its interval; none without a rollout that has a verdict.
    pub all: Option<Row>,
    /// Without tools.
    pub closed_book: Option<Row>,
    /// With tools, by the kind of task, in the order of [`TaskKind::rank`].
    pub per_category: Vec<(TaskKind, Row)>,
    /// Answers that decline to answer, where the judge tells those apart; they are not right.
    pub not_attempted: Option<usize>,
    /// Rollouts per task.
    pub samples: usize,
    /// Mean over tasks of their share of right rollouts; with several rollouts per task only.
    pub avg_at_k: Option<Estimate>,
    /// Chance that one of k rollouts is right, by k; likewise.
    pub pass_at_k: BTreeMap<u64, Estimate>,
}

/// What is beside [`Report`] in the JSON. Field order is the order of the keys.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct More {
    /// With tools: the intervals and means that a report has not.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub all: Option<MoreOfRow>,
    /// The benchmark's own metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<MetricReport>,
    /// Answers that decline to answer; absent where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_attempted: Option<usize>,
    /// Rollouts per task.
    pub samples: usize,
    /// Mean over tasks of their share of right rollouts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avg_at_k: Option<Estimate>,
    /// Chance that one of k rollouts is right.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pass_at_k: BTreeMap<u64, Estimate>,
    /// By the kind of task.
    pub per_category: BTreeMap<String, Row>,
    /// Without tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_book: Option<Row>,
    /// How intervals are made.
    pub intervals: String,
    /// What everything together cost, rollouts that failed included.
    pub cost: Cost,
}

/// What of a [`Row`] is not in a [`Report`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MoreOfRow {
    /// 95 % interval of the mean searches.
    pub searches_interval: Interval,
    /// Of the mean thousands of tokens.
    pub kilotokens_interval: Interval,
    /// Of the cost-aware score.
    pub cas_interval: Interval,
    /// Mean seconds of a rollout.
    pub seconds: f64,
    /// Their interval.
    pub seconds_interval: Interval,
    /// Mean dollars of a rollout's searches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usd: Option<f64>,
    /// Their interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usd_interval: Option<Interval>,
}

/// The benchmark's own metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricReport {
    /// Its name.
    pub name: String,
    /// Its mean, 0..=1.
    pub value: f64,
    /// The interval of that.
    pub interval: Interval,
}

/// What everything together cost; absent where nobody knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Requests to search services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
    /// Dollars of those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usd: Option<f64>,
    /// Prompt and response tokens.
    pub tokens: u64,
    /// Seconds of all rollouts, one after another.
    pub seconds: f64,
    /// Rollouts that failed for a reason outside the policy and were asked again.
    pub asked_again: u64,
}

impl Cost {
    /// With another rollout.
    pub fn and(self, item: &Item) -> Self {
        let spent = Spent { requests: self.requests, usd: self.usd }.and(Spent { requests: item.requests, usd: item.usd });
        Self {
            requests: spent.requests,
            usd: spent.usd,
            tokens: self.tokens + item.tokens,
            seconds: self.seconds + item.seconds,
            asked_again: self.asked_again,
        }
    }
}

impl Summary {
    /// Sums up the items of `tasks` tasks with `samples` rollouts each. Bootstraps draw from `seed`.
    pub fn new(tasks: usize, samples: usize, with_tools: &[Item], without: &[Item], seed: u64) -> Self {
        let mut report = report(tasks, with_tools);
        let all = Row::of(with_tools, seed);
        let kinds: Vec<TaskKind> = report.by_kind.iter().map(|one| one.kind.clone()).collect();
        let of_kind = |kind: TaskKind| {
            let row = Row::of(with_tools.iter().filter(|item| item.kind == kind), seed)?;
            Some((kind, row))
        };
        let per_category: Vec<(TaskKind, Row)> = kinds.into_iter().filter_map(of_kind).collect();
        if let Some(all) = all.as_ref().filter(|_| samples > 1) {
            // Rollouts of one task are not independent: theirs would be too narrow.
            (report.accuracy_interval, report.rounds_interval) = (all.accuracy_interval, all.rounds_interval);
            for (kind, (_, row)) in report.by_kind.iter_mut().zip(&per_category) {
                (kind.accuracy_interval, kind.rounds_interval) = (row.accuracy_interval, row.rounds_interval);
            }
        }
        let counts: Vec<(u64, u64)> = by_task(with_tools.iter().filter(|item| item.is_finished()))
            .iter()
            .map(|task| (task.len() as u64, task.iter().filter(|item| item.verdict == Accuracy::Correct).count() as u64))
            .collect();
        let several = samples > 1;
        let declined = with_tools.iter().filter(|item| item.verdict == Accuracy::NotAttempted).count();
        Self {
            report,
            all,
            closed_book: Row::of(without, seed),
            per_category,
            not_attempted: (declined > 0).then_some(declined),
            samples,
            avg_at_k: several.then(|| pass_at_k::average(&counts)).flatten(),
            pass_at_k: if several { pass_at_k::passes(&counts, samples as u64) } else { BTreeMap::new() },
        }
    }

    /// How intervals are made.
    pub fn method(&self) -> &'static str {
        if self.samples > 1 { CLUSTERED } else { METHOD }
    }

    /// What is beside the report in the JSON. `metric` is the name of the benchmark's own.
    pub fn more(&self, metric: Option<&str>, cost: Cost) -> More {
        let of_row = |row: &Row| MoreOfRow {
            searches_interval: row.searches_interval,
            kilotokens_interval: row.kilotokens_interval,
            cas_interval: row.cas_interval,
            seconds: row.seconds,
            seconds_interval: row.seconds_interval,
            usd: row.usd,
            usd_interval: row.usd_interval,
        };
        let of_metric = |name: &str| {
            let row = self.all.as_ref()?;
            Some(MetricReport { name: name.to_owned(), value: row.metric?, interval: row.metric_interval? })
        };
        More {
            all: self.all.as_ref().map(of_row),
            metric: metric.and_then(of_metric),
            not_attempted: self.not_attempted,
            samples: self.samples,
            avg_at_k: self.avg_at_k,
            pass_at_k: self.pass_at_k.clone(),
            per_category: self.per_category.iter().map(|(kind, row)| (kind.to_string(), row.clone())).collect(),
            closed_book: self.closed_book.clone(),
            intervals: self.method().to_owned(),
            cost,
        }
    }
}

/// The report of items.
fn report(tasks: usize, items: &[Item]) -> Report {
    let outcome = |item: &Item| Outcome {
        kind: item.kind.clone(),
        accuracy: item.verdict,
        rounds: item.rounds,
        searches: item.searches,
        tokens: usize::try_from(item.tokens).unwrap_or(usize::MAX),
    };
    let outcomes: Vec<Outcome> = items.iter().map(outcome).collect();
    Report::new(tasks, &outcomes, 0)
}

#[cfg(test)]
mod tests {
    use hypereyes_domain::Failure;
    use hypereyes_scoring::wilson;

    use super::*;
    use crate::item::tests::item;

    fn items() -> Vec<Item> {
        vec![
            item("a", 0, "x", Accuracy::Correct, 1, 100),
            item("a", 1, "x", Accuracy::Wrong, 3, 300),
            item("b", 0, "y", Accuracy::Correct, 2, 200),
            item("b", 1, "y", Accuracy::Correct, 2, 200),
            item("c", 0, "y", Accuracy::Wrong, 2, 200),
            item("c", 1, "y", Accuracy::Invalid(Failure::Judge), 2, 200),
        ]
    }

    #[test]
    fn several_samples_have_intervals_by_task_and_one_has_those_of_before() {
        let single: Vec<Item> = items().into_iter().filter(|item| item.sample == 0).collect();
        let summary = Summary::new(3, 1, &single, &[], 7);
        assert_eq!(summary.report.accuracy_interval, wilson(2, 3));
        assert_eq!(summary.all.as_ref().expect("three").accuracy_interval, wilson(2, 3));
        assert_eq!((summary.avg_at_k, summary.pass_at_k.len(), summary.method()), (None, 0, METHOD));

        let several = Summary::new(3, 2, &items(), &[], 7);
        let report = &several.report;
        assert_eq!((report.tasks, report.rollouts, report.invalid, report.unjudged, report.accuracy), (3, 5, 1, 1, 0.6));
        assert!(report.accuracy_interval.low < wilson(3, 5).low && report.accuracy_interval.high > wilson(3, 5).high, "{report:?}");
        assert_eq!(several.avg_at_k.expect("several").value, 0.5);
        assert_eq!((several.pass_at_k[&1].value, several.pass_at_k[&2].value), (0.5, 1.0));
        assert_eq!(several.method(), CLUSTERED);
        let names: Vec<&str> = several.per_category.iter().map(|(kind, _)| kind.as_str()).collect();
        assert_eq!(names, ["x", "y"]);
        let declined = Item { verdict: Accuracy::NotAttempted, ..items()[0].clone() };
        assert_eq!((several.not_attempted, Summary::new(1, 1, &[declined], &[], 7).not_attempted), (None, Some(1)));
    }

    #[test]
    fn json_has_what_is_known() {
        let mut items = items();
        let cost = items.iter().fold(Cost::default(), |cost, item| cost.and(item));
        assert_eq!((cost.tokens, cost.seconds, cost.usd), (1200, 9.0, None));
        let text = serde_json::to_string(&Summary::new(3, 2, &items, &[], 7).more(None, cost)).expect("numbers");
        for absent in ["usd", "requests", "metric", "closed_book"] {
            assert!(!text.contains(absent), "{absent} in {text}");
        }
        items.iter_mut().for_each(|item| (item.metric, item.usd) = (Some(0.5), Some(0.25)));
        let cost = items.iter().fold(Cost::default(), |cost, item| cost.and(item));
        let more = Summary::new(3, 2, &items, &items, 7).more(Some("token_f1"), cost);
        assert_eq!(more.metric, Some(MetricReport { name: "token_f1".into(), value: 0.5, interval: Interval { low: 0.5, high: 0.5 } }));
        let value = serde_json::to_value(&more).expect("numbers");
        assert_eq!((&value["cost"]["usd"], &value["per_category"]["x"]["rollouts"]), (&1.5.into(), &2.into()));
        assert!(value["seconds_interval"].is_object() && value["closed_book"]["rollouts"] == 5, "{value}");
    }
}
