//! The numbers of some items: of all, of a category, of those without tools. In: items. Out: means with their 95 % intervals. What
//! nobody knows is absent.

use hypereyes_scoring::Interval;
use serde::{Deserialize, Serialize};

use crate::bootstrap::{self, DRAWS};
use crate::estimate::{self, Estimate};
use crate::item::Item;
use crate::sums::{Sums, by_task, sum};

/// Means over rollouts with a verdict. Field order is the order of the JSON keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Rollouts with a verdict.
    pub rollouts: usize,
    /// Share of right answers, 0..=1.
    pub accuracy: f64,
    /// Its interval.
    pub accuracy_interval: Interval,
    /// Mean tool rounds.
    pub rounds: f64,
    /// Its interval.
    pub rounds_interval: Interval,
    /// Mean searches.
    pub searches: f64,
    /// Its interval.
    pub searches_interval: Interval,
    /// Mean thousands of tokens.
    pub kilotokens: f64,
    /// Its interval.
    pub kilotokens_interval: Interval,
    /// Cost-aware score.
    pub cas: f64,
    /// Its interval, by the bootstrap over tasks.
    pub cas_interval: Interval,
    /// Mean seconds, beside whatever ran at the same time.
    pub seconds: f64,
    /// Its interval.
    pub seconds_interval: Interval,
    /// Mean dollars of searches, where they have a price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usd: Option<f64>,
    /// Its interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usd_interval: Option<Interval>,
    /// Mean of the benchmark's own metric, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<f64>,
    /// Its interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric_interval: Option<Interval>,
}

impl Row {
    /// Sums up items that have a verdict; `None` of none. The bootstrap draws from `seed`.
    pub fn of<'a>(items: impl IntoIterator<Item = &'a Item>, seed: u64) -> Option<Self> {
        let tasks = by_task(items.into_iter().filter(|item| item.is_finished()));
        let sums: Vec<Sums> = tasks.iter().map(|task| sum(task)).collect();
        let of = |part: fn(&Sums) -> f64| -> Vec<(f64, f64)> { sums.iter().map(|one| (part(one), one.rollouts)).collect() };
        // Of what is known of some rollouts only, over those.
        let known = |value: fn(&Item) -> Option<f64>| -> Option<Estimate> {
            let part = |task: &Vec<&Item>| {
                let values: Vec<f64> = task.iter().filter_map(|item| value(item)).collect();
                (values.iter().sum::<f64>(), values.len() as f64)
            };
            estimate::mean(&tasks.iter().map(part).collect::<Vec<_>>())
        };
        let accuracy = estimate::share(&of(|sums| sums.right))?;
        let rounds = estimate::mean(&of(|sums| sums.rounds))?;
        let searches = estimate::mean(&of(|sums| sums.searches))?;
        let kilotokens = estimate::mean(&of(|sums| sums.kilotokens))?;
        let seconds = known(|item| Some(item.seconds))?;
        let [cas_interval] = bootstrap::intervals(&sums, DRAWS, seed, |total| [total.cas()])?;
        let (usd, metric) = (known(|item| item.usd), known(|item| item.metric));
        let total = sums.iter().copied().fold(Sums::default(), |sum, one| sum + one);
        Some(Self {
            rollouts: total.rollouts as usize,
            accuracy: accuracy.value,
            accuracy_interval: accuracy.interval,
            rounds: rounds.value,
            rounds_interval: rounds.interval,
            searches: searches.value,
            searches_interval: searches.interval,
            kilotokens: kilotokens.value,
            kilotokens_interval: kilotokens.interval,
            cas: total.cas(),
            cas_interval,
            seconds: seconds.value,
            seconds_interval: seconds.interval,
            usd: usd.map(|usd| usd.value),
            usd_interval: usd.map(|usd| usd.interval),
            metric: metric.map(|metric| metric.value),
            metric_interval: metric.map(|metric| metric.interval),
        })
    }
}

#[cfg(test)]
mod tests {
    use hypereyes_domain::{Accuracy, Failure};

    use super::*;
    use crate::item::tests::item;

    #[test]
    fn means_are_over_verdicts_and_what_nobody_knows_is_absent() {
        let mut items = vec![
            item("a", 0, "x", Accuracy::Correct, 1, 400),
            item("b", 0, "x", Accuracy::Wrong, 3, 800),
            item("c", 0, "x", Accuracy::Unparsed, 2, 600),
            item("d", 0, "x", Accuracy::Invalid(Failure::Tool), 9, 9000),
        ];
        let row = Row::of(&items, 0).expect("three");
        assert_eq!((row.rollouts, row.accuracy, row.rounds, row.searches, row.seconds), (3, 1.0 / 3.0, 2.0, 4.0, 1.5));
        assert!((row.kilotokens - 0.6).abs() < 1e-12 && (row.cas - 100.0 / 9.0 / 5.6).abs() < 1e-12, "{row:?}");
        assert!(row.cas_interval.low <= row.cas && row.cas <= row.cas_interval.high && row.cas_interval.low == 0.0);
        assert_eq!((row.usd, row.metric, row.metric_interval), (None, None, None));
        assert!(!serde_json::to_string(&row).expect("numbers").contains("usd"));
        (items[0].metric, items[1].metric, items[0].usd) = (Some(0.5), Some(0.0), Some(0.01));
        let row = Row::of(&items, 0).expect("three");
        assert_eq!((row.metric, row.usd), (Some(0.25), Some(0.01)));
        assert_eq!(Row::of(&items[3..], 0), None);
    }
}
