//! Intervals of anything that can be computed from sums over tasks: the tasks are drawn again, with replacement, many times.
//!
//! In: what each task adds to the sums, a seed. Out: the 95 % percentile interval. The same seed gives the same interval.

use std::ops::Add;

use hypereyes_scoring::Interval;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Draws: enough that the ends of an interval do not move by more than a few hundredths of its width from seed to seed.
pub const DRAWS: usize = 10_000;

/// Intervals of several statistics of the same draws. Without tasks there is none.
pub fn intervals<T, const N: usize>(tasks: &[T], draws: usize, seed: u64, statistics: impl Fn(T) -> [f64; N]) -> Option<[Interval; N]>
where
    T: Copy + Default + Add<Output = T>,
{
    if tasks.is_empty() || draws == 0 {
        return None;
    }
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut drawn: [Vec<f64>; N] = std::array::from_fn(|_| Vec::with_capacity(draws));
    for _ in 0..draws {
        let total = (0..tasks.len()).fold(T::default(), |sum, _| sum + tasks[random.random_range(0..tasks.len())]);
        for (values, value) in drawn.iter_mut().zip(statistics(total)) {
            values.push(value);
        }
    }
    Some(drawn.map(|mut values| {
        values.sort_by(f64::total_cmp);
        Interval { low: quantile(&values, 0.025), high: quantile(&values, 0.975) }
    }))
}

/// A quantile of sorted values, between neighbours in proportion.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = share * (sorted.len() - 1) as f64;
    let (below, part) = (at.floor() as usize, at.fract());
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (sorted[above] - sorted[below]) * part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_neighbours() {
        let values = [0.0, 1.0, 2.0, 3.0, 10.0];
        assert_eq!((quantile(&values, 0.5), quantile(&values, 0.0), quantile(&values, 1.0)), (2.0, 0.0, 10.0));
        assert_eq!((quantile(&values, 0.875), quantile(&[4.0], 0.975)), (6.5, 4.0));
    }

    #[test]
    fn the_interval_of_a_mean_is_that_of_its_deviation() {
        // 400 tasks, half of them right: the deviation of the mean is 0.025.
        let tasks: Vec<f64> = (0..400).map(|at| f64::from(at % 2 == 0)).collect();
        let [interval] = intervals(&tasks, DRAWS, 1, |sum| [sum / 400.0]).expect("tasks");
        assert!((interval.low - 0.451).abs() < 0.005 && (interval.high - 0.549).abs() < 0.005, "{interval:?}");
        assert_eq!(intervals(&tasks, DRAWS, 1, |sum| [sum / 400.0]), Some([interval]), "the same seed, the same interval");
        assert_eq!(intervals(&[1.0; 3], 100, 1, |sum| [sum]), Some([Interval { low: 3.0, high: 3.0 }]));
        assert_eq!(intervals::<f64, 1>(&[], 100, 1, |sum| [sum]), None);
    }
}
