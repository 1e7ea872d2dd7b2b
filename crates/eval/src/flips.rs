//! Whether answers that flipped between two policies are more than chance. In: how many became right, how many wrong, or by how much
//! each task became better. Out: two-sided p. Pure.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Flips up to which a half to their power is a number with all its digits.
const MOST_EXACT: u64 = 1000;

/// McNemar's exact test: how likely is a division of the flipped pairs at least as uneven, if each were flipped by a fair coin? 1 where
/// nothing flipped. Pairs must be independent: one per task.
pub fn mcnemar(gained: u64, lost: u64) -> f64 {
    let (all, fewer) = (gained + lost, gained.min(lost));
    if gained == lost {
        return 1.0;
    }
    // C(all, k) / 2^all for all k up to `fewer`. A power of two is exact as far as there are numbers so small; beyond, by logarithms.
    let more = |k: u64| (all - k + 1) as f64 / k as f64;
    let tail = if all <= MOST_EXACT {
        let mut term = 0.5_f64.powi(all as i32);
        (1..=fewer).fold(term, |tail, k| {
            term *= more(k);
            tail + term
        })
    } else {
        let mut log = -(all as f64) * std::f64::consts::LN_2;
        (1..=fewer).fold(log.exp(), |tail, k| {
            log += more(k).ln();
            tail + log.exp()
        })
    };
    (2.0 * tail).min(1.0)
}

/// Where tasks have several rollouts: how likely is a sum of `differences`, one per task, at least as far from 0, if the two policies of
/// each task were swapped by a fair coin? Drawn `draws` times, from a seed; the observed sum counts as one draw, so that p is never 0.
pub fn sign_flips(differences: &[f64], draws: usize, seed: u64) -> f64 {
    let observed = differences.iter().sum::<f64>().abs();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    // Sums of the same numbers in another order differ in the last bits.
    let least = observed - 1e-9 * (1.0 + observed);
    let as_far = (0..draws).filter(|_| {
        let sum: f64 = differences.iter().map(|one| if random.random::<bool>() { *one } else { -one }).sum();
        sum.abs() >= least
    });
    (1 + as_far.count()) as f64 / (1 + draws) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `scipy.stats.binomtest(gained, gained + lost, 0.5).pvalue` of scipy 1.17.1, which agrees with sums of exact fractions.
    #[test]
    fn the_exact_test_agrees_with_another_implementation() {
        let cases = [
            (0, 0, 1.0),
            (1, 0, 1.0),
            (5, 5, 1.0),
            (3, 4, 1.0),
            // 2 / 1024.
            (0, 10, 0.001_953_125),
            // 2 * 21700 / 2^20.
            (15, 5, 0.041_389_465_332_031_25),
            (25, 10, 0.016_673_847_800_120_71),
            (30, 5, 2.236_152_067_780_494_7e-5),
            (60, 38, 0.033_360_028_896_942_01),
            (100, 1, 8.046_381_233_254_32e-29),
            (700, 500, 8.535_366_081_034_334e-9),
            (6000, 5800, 0.066_955_298_436_986_18),
        ];
        for (gained, lost, p) in cases {
            let got = mcnemar(gained, lost);
            assert!((got - p).abs() <= 1e-9 * p, "{gained} gained, {lost} lost: {got}, expected {p}");
            assert_eq!(mcnemar(lost, gained), got);
        }
    }

    #[test]
    fn signs_of_single_flips_are_the_exact_test() {
        let differences: Vec<f64> = [1.0; 15].into_iter().chain([-1.0; 5]).chain([0.0; 30]).collect();
        let p = sign_flips(&differences, 100_000, 3);
        assert!((p - mcnemar(15, 5)).abs() < 0.003, "{p}");
        assert_eq!(sign_flips(&[0.0; 4], 100, 1), 1.0);
        assert!(sign_flips(&[0.5; 40], 1000, 1) <= 1.0 / 1001.0 + 1e-12);
    }
}
