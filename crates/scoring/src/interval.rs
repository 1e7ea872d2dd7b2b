//! How sure an evaluation can be of its means: 95 % intervals. In: counts or values. Out: low and high bounds.

use serde::{Deserialize, Serialize};

/// Two-sided 95 % quantile of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// A 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower bound.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
}

/// Wilson's interval for a proportion; unlike the normal one it stays inside 0..=1 and has a width at 0 and at 1.
/// Nothing is known from no trials: 0..=1. More successes than trials count as all.
pub fn wilson(successes: u64, trials: u64) -> Interval {
    if trials == 0 {
        return Interval { low: 0.0, high: 1.0 };
    }
    let n = trials as f64;
    wilson_share(successes.min(trials) as f64 / n, n)
}

/// The same of a share `p` (0..=1) that as much is known of as from `n` trials, which may be a fraction; `n` is above 0.
pub fn wilson_share(p: f64, n: f64) -> Interval {
    let scale = 1.0 + Z * Z / n;
    let centre = (p + Z * Z / (2.0 * n)) / scale;
    let half = Z / scale * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    Interval { low: (centre - half).max(0.0), high: (centre + half).min(1.0) }
}

/// Normal interval for the mean of `values`, with the sample deviation (n - 1). One value gives an interval without
/// width; no value gives `None`.
pub fn mean_interval(values: &[f64]) -> Option<Interval> {
    if values.is_empty() {
        return None;
    }
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let spread = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
    let half = if values.len() < 2 { 0.0 } else { Z * (spread / (n - 1.0) / n).sqrt() };
    Some(Interval { low: mean - half, high: mean + half })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_agrees_with_a_textbook_value() {
        let interval = wilson(8, 10);
        assert!((interval.low - 0.4902).abs() < 1e-4 && (interval.high - 0.9433).abs() < 1e-4, "{interval:?}");
        assert_eq!(wilson(0, 0), Interval { low: 0.0, high: 1.0 });
        assert_eq!(wilson(0, 20).low, 0.0);
        assert!(wilson(20, 20).low < 0.85);
    }

    #[test]
    fn mean_intervals_hold_the_mean() {
        let interval = mean_interval(&[1.0, 2.0, 3.0]).expect("there are values");
        assert!((interval.low + interval.high - 4.0).abs() < 1e-12);
        assert!((interval.high - 2.0 - 1.131_585_8).abs() < 1e-6, "{interval:?}");
        assert_eq!(mean_interval(&[]), None);
        assert_eq!(mean_interval(&[2.5]), Some(Interval { low: 2.5, high: 2.5 }));
    }
}
