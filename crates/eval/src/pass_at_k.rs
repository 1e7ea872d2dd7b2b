//! What several rollouts of a task are worth. In: per task how many rollouts there are, and how many are right. Out: avg@k and pass@k
//! with their 95 % intervals over tasks.

use std::collections::BTreeMap;

use hypereyes_scoring::Interval;

use crate::estimate::{Estimate, mean};

/// The chance that at least one of `k` rollouts is right, of a task of whose `n` rollouts `right` are: the unbiased estimator
/// 1 - C(n - right, k) / C(n, k). `None` where there are fewer than `k`.
pub fn pass_at(k: u64, n: u64, right: u64) -> Option<f64> {
    if k == 0 || k > n || right > n {
        return None;
    }
    // C(n - right, k) / C(n, k), a factor per right rollout.
    let none = (n - right + 1..=n).fold(1.0, |none, at| none * (at.saturating_sub(k) as f64 / at as f64));
    Some(1.0 - none)
}

/// Mean over tasks of the share of right rollouts: avg@k, where every task has k of them.
pub fn average(tasks: &[(u64, u64)]) -> Option<Estimate> {
    let shares: Vec<(f64, f64)> = tasks.iter().filter(|(n, _)| *n > 0).map(|(n, right)| (*right as f64 / *n as f64, 1.0)).collect();
    bounded(&shares)
}

/// The mean of shares; its interval stays among them.
fn bounded(shares: &[(f64, f64)]) -> Option<Estimate> {
    let Estimate { value, interval } = mean(shares)?;
    Some(Estimate { value, interval: Interval { low: interval.low.max(0.0), high: interval.high.min(1.0) } })
}

/// pass@k for 1, 2, 4 .. and `samples`, each over the tasks that have so many rollouts. `tasks` are pairs of rollouts and right ones.
pub fn passes(tasks: &[(u64, u64)], samples: u64) -> BTreeMap<u64, Estimate> {
    let doubled = std::iter::successors(Some(1), |k| Some(k * 2)).take_while(|k| *k < samples);
    doubled
        .chain([samples])
        .filter_map(|k| {
            let values: Vec<(f64, f64)> = tasks.iter().filter_map(|(n, right)| Some((pass_at(k, *n, *right)?, 1.0))).collect();
            Some((k, bounded(&values)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimator_is_exact() {
        // 1 - C(2, k) / C(5, k): 3 right of 5.
        assert!((pass_at(1, 5, 3).expect("enough") - 0.6).abs() < 1e-15);
        assert!((pass_at(2, 5, 3).expect("enough") - 0.9).abs() < 1e-15);
        assert_eq!(pass_at(3, 5, 3), Some(1.0), "only two are wrong");
        // 1 - C(9, 4) / C(10, 4) = 1 - 126 / 210.
        assert!((pass_at(4, 10, 1).expect("enough") - 0.4).abs() < 1e-15);
        // 1 - C(190, 100) / C(200, 100), as exact fractions.
        assert!((pass_at(100, 200, 10).expect("enough") - 0.999_228_973_937_282_2).abs() < 1e-12);
        assert_eq!((pass_at(3, 3, 0), pass_at(3, 3, 3), pass_at(4, 3, 1), pass_at(0, 3, 1)), (Some(0.0), Some(1.0), None, None));
    }

    #[test]
    fn it_is_unbiased() {
        // Every way in which 4 rollouts with chance 0.3 can come out, weighted: 1 - 0.7^2.
        let mean: f64 = (0..=4_u64)
            .map(|right| {
                let ways = [1.0, 4.0, 6.0, 4.0, 1.0][right as usize];
                ways * 0.3_f64.powi(right as i32) * 0.7_f64.powi(4 - right as i32) * pass_at(2, 4, right).expect("enough")
            })
            .sum();
        assert!((mean - 0.51).abs() < 1e-12, "{mean}");
    }

    #[test]
    fn tasks_with_too_few_rollouts_are_left_out_of_what_needs_more() {
        let passes = passes(&[(4, 1), (4, 4), (2, 0)], 4);
        assert_eq!(passes.keys().copied().collect::<Vec<_>>(), [1, 2, 4]);
        assert!((passes[&1].value - (0.25 + 1.0 + 0.0) / 3.0).abs() < 1e-15);
        assert_eq!(passes[&4].value, 1.0);
        assert!(passes[&1].interval.low == 0.0 && passes[&1].interval.high == 1.0, "three tasks of any share: {passes:?}");
        assert!((average(&[(4, 1), (4, 4), (2, 0)]).expect("some").value - 1.25 / 3.0).abs() < 1e-15);
    }
}
