//! Means over rollouts that come in tasks, with their 95 % intervals. In: per task a sum and a count. Out: estimates. Pure.
//!
//! With one rollout per task the interval of a mean is the usual normal one, and that of a share Wilson's. With several, rollouts of one
//! task are no news of each other: the deviation is that of tasks (linearised ratio, as surveys have it for clusters), and a share is
//! Wilson's of as many rollouts as would be worth the same if they were independent.

use hypereyes_scoring::{Interval, wilson_share};
use serde::{Deserialize, Serialize};

/// Two-sided 95 % quantile of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// Variance between tasks that is none, as a part of that of independent rollouts: it is what rounding leaves.
const NONE: f64 = 1e-12;

/// A mean and its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The mean.
    pub value: f64,
    /// Its interval.
    pub interval: Interval,
}

/// Mean over all rollouts of `clusters`, each with the sum of its values and their number. `None` of none.
pub fn mean(clusters: &[(f64, f64)]) -> Option<Estimate> {
    let (value, variance) = ratio(clusters)?;
    let half = Z * variance.sqrt();
    Some(Estimate { value, interval: Interval { low: value - half, high: value + half } })
}

/// Share of ones among all rollouts of `clusters`, each with the number of its ones and of its rollouts. `None` of none.
pub fn share(clusters: &[(f64, f64)]) -> Option<Estimate> {
    let (value, variance) = ratio(clusters)?;
    let rollouts: f64 = clusters.iter().map(|(_, count)| count).sum();
    let tasks = clusters.iter().filter(|(_, count)| *count > 0.0).count() as f64;
    let independent = value * (1.0 - value) / rollouts;
    // With one rollout per task they are independent. Where nothing differs it cannot be told how alike rollouts of a task are, and the
    // worst is assumed.
    let worth = if rollouts <= tasks {
        rollouts
    } else if variance <= NONE * independent {
        tasks
    } else {
        (rollouts * independent / variance).clamp(1.0, rollouts)
    };
    Some(Estimate { value, interval: wilson_share(value, worth) })
}

/// A ratio of sums and the variance of it over clusters.
fn ratio(clusters: &[(f64, f64)]) -> Option<(f64, f64)> {
    let used: Vec<(f64, f64)> = clusters.iter().copied().filter(|(_, count)| *count > 0.0).collect();
    let (sum, count) = used.iter().fold((0.0, 0.0), |(sum, count), one| (sum + one.0, count + one.1));
    if count <= 0.0 {
        return None;
    }
    let (value, tasks) = (sum / count, used.len() as f64);
    let spread: f64 = used.iter().map(|(sum, count)| (sum - count * value).powi(2)).sum();
    let variance = if used.len() < 2 { 0.0 } else { spread * tasks / (tasks - 1.0) / (count * count) };
    Some((value, variance))
}

#[cfg(test)]
mod tests {
    use hypereyes_scoring::{mean_interval, wilson};

    use super::*;

    #[test]
    fn with_one_rollout_each_they_are_the_usual_ones() {
        let values = [1.0, 2.0, 3.0, 7.0, 7.0];
        let estimate = mean(&values.map(|value| (value, 1.0))).expect("some");
        let usual = mean_interval(&values).expect("some");
        assert_eq!(estimate.value, 4.0);
        assert!((estimate.interval.low - usual.low).abs() < 1e-12 && (estimate.interval.high - usual.high).abs() < 1e-12);
        let right = share(&[(1.0, 1.0), (0.0, 1.0), (1.0, 1.0), (1.0, 1.0)]).expect("some");
        assert_eq!((right.value, right.interval), (0.75, wilson(3, 4)));
        assert_eq!((mean(&[]), share(&[(0.0, 0.0)])), (None, None));
        assert_eq!(mean(&[(5.0, 2.0)]).expect("one").interval, Interval { low: 2.5, high: 2.5 });
    }

    #[test]
    fn rollouts_that_say_the_same_are_worth_one() {
        // Four rollouts each, all alike: as much is known as from one each.
        let alike = share(&[(4.0, 4.0), (0.0, 4.0), (4.0, 4.0), (0.0, 4.0), (4.0, 4.0), (0.0, 4.0)]).expect("some");
        // The variance of the six means over that of 24 independent ones is 4 * 6/5.
        let expected = wilson_share(0.5, 5.0);
        assert!((alike.interval.low - expected.low).abs() < 1e-12, "{alike:?} {expected:?}");
        // Rollouts that differ within a task as much as between tasks are worth as many as there are.
        let mixed = share(&[(2.0, 4.0); 6]).expect("some");
        assert_eq!(mixed.interval, wilson_share(0.5, 6.0), "no spread at all: the worst is assumed");
        let spread = share(&[(3.0, 4.0), (1.0, 4.0), (2.0, 4.0), (2.0, 4.0), (3.0, 4.0), (1.0, 4.0)]).expect("some");
        assert!(spread.interval.low > alike.interval.low && spread.interval.high < alike.interval.high);
        // All right: the interval is that of six tasks, not of 24 rollouts.
        assert_eq!(share(&[(4.0, 4.0); 6]).expect("some").interval, wilson(6, 6));
        // 49 times 1/49 is not 1 in these numbers: what rounding leaves is no spread either.
        let rounded = share(&[(1.0, 49.0); 6]).expect("some");
        assert_eq!(rounded.interval, wilson_share(rounded.value, 6.0));
    }

    #[test]
    fn a_clustered_mean_by_hand() {
        // Tasks with sums 2 of 2, 0 of 1, 1 of 1: mean 3/4; residuals 0.5, -0.75, 0.25; their squares sum to 0.875.
        let estimate = mean(&[(2.0, 2.0), (0.0, 1.0), (1.0, 1.0)]).expect("some");
        let half = Z * (0.875_f64 * 3.0 / 2.0 / 16.0).sqrt();
        assert!((estimate.value - 0.75).abs() < 1e-15 && (estimate.interval.high - 0.75 - half).abs() < 1e-12);
    }
}
