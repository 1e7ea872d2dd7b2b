//! How sure a mean over seeds is. In: a value per seed, and what the tasks of each seed leave open of it. Out: the mean with its 95 %
//! interval, and how many seeds would decide what these do not. Pure.
//!
//! Every seed has tasks of its own, so the spread of values over seeds holds that of tasks, too: the interval is Student's, over seeds. A
//! few seeds may agree by chance, and it is therefore never narrower than what their tasks alone leave open.

use hypereyes_scoring::Interval;

/// Two-sided 95 % quantile of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;
/// More seeds than this are not counted out.
pub const MOST_SEEDS: usize = 100;
/// Two-sided 95 % quantiles of Student's t for 1, 2, .. degrees of freedom (NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2).
const T: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093,
    2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];

/// Two-sided 95 % quantile of Student's t; infinite without a degree of freedom.
pub fn t95(freedom: usize) -> f64 {
    match freedom {
        0 => f64::INFINITY,
        few if few <= T.len() => T[few - 1],
        // The first terms of its expansion about the normal quantile: right to three decimals from here on.
        many => {
            let n = many as f64;
            Z + (Z.powi(3) + Z) / (4.0 * n) + (5.0 * Z.powi(5) + 16.0 * Z.powi(3) + 3.0 * Z) / (96.0 * n * n)
        }
    }
}

/// Values over seeds.
#[derive(Clone, Debug, PartialEq)]
pub struct Spread {
    /// How many.
    pub seeds: usize,
    /// Their mean.
    pub mean: f64,
    /// Standard deviation between seeds; 0 of one.
    between: f64,
    /// Mean over seeds of the variance that a seed's tasks leave.
    tasks: f64,
}

impl Spread {
    /// Of one value and the variance that its tasks leave, per seed. `None` of none, or where one is not finite.
    pub fn of(values: &[(f64, f64)]) -> Option<Self> {
        let n = values.len() as f64;
        if values.is_empty() || values.iter().any(|(value, variance)| !value.is_finite() || !variance.is_finite()) {
            return None;
        }
        let mean = values.iter().map(|(value, _)| value).sum::<f64>() / n;
        let squares: f64 = values.iter().map(|(value, _)| (value - mean).powi(2)).sum();
        let between = if values.len() < 2 { 0.0 } else { (squares / (n - 1.0)).sqrt() };
        let tasks = values.iter().map(|(_, variance)| variance).sum::<f64>() / n;
        Some(Self { seeds: values.len(), mean, between, tasks })
    }

    /// Half the width of the interval, had there been so many seeds that spread like these.
    fn half(&self, seeds: usize) -> f64 {
        let n = seeds as f64;
        // One seed has no spread; what its tasks leave open is all that is known.
        let student = if self.seeds < 2 { 0.0 } else { t95(seeds - 1) * self.between / n.sqrt() };
        student.max(Z * (self.tasks / n).sqrt())
    }

    /// The interval.
    pub fn interval(&self) -> Interval {
        let half = self.half(self.seeds);
        Interval { low: self.mean - half, high: self.mean + half }
    }

    /// The fewest seeds in all with which an interval about this mean would leave `bound` out; `None` where that takes more than
    /// [`MOST_SEEDS`].
    pub fn seeds_to_decide(&self, bound: f64) -> Option<usize> {
        let distance = (self.mean - bound).abs();
        (self.seeds.max(2)..=MOST_SEEDS).find(|seeds| self.half(*seeds) < distance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        assert_eq!([t95(1), t95(4), t95(30)], [12.706, 2.776, 2.042]);
        for (freedom, want) in [(31, 2.0395), (40, 2.0211), (60, 2.0003), (120, 1.9799)] {
            assert!((t95(freedom) - want).abs() < 1e-3, "{freedom}: {}", t95(freedom));
        }
        assert!(t95(0).is_infinite() && t95(1_000_000) - Z < 1e-4);
    }

    #[test]
    fn an_interval_is_students_over_seeds() {
        // Of 1, 2, 3: the deviation is 1, and t for two degrees of freedom 4.303.
        let spread = Spread::of(&[(1.0, 0.0), (2.0, 0.0), (3.0, 0.0)]).expect("three");
        let half = 4.303 / 3f64.sqrt();
        assert_eq!(spread.mean, 2.0);
        assert!((spread.interval().low - (2.0 - half)).abs() < 1e-12 && (spread.interval().high - (2.0 + half)).abs() < 1e-12);
    }

    #[test]
    fn seeds_that_agree_leave_what_their_tasks_leave() {
        let spread = Spread::of(&[(2.0, 0.09), (2.0, 0.09), (2.0, 0.09)]).expect("three");
        let half = Z * (0.09_f64 / 3.0).sqrt();
        assert!((spread.interval().high - 2.0 - half).abs() < 1e-12);
        let alone = Spread::of(&[(2.0, 0.25)]).expect("one");
        assert!((alone.interval().high - 2.0 - Z * 0.5).abs() < 1e-12);
        assert_eq!((Spread::of(&[]), Spread::of(&[(f64::NAN, 0.0)])), (None, None));
    }

    #[test]
    fn more_seeds_decide_what_few_leave_open() {
        let spread = Spread::of(&[(0.6, 0.0), (0.8, 0.0), (1.0, 0.0)]).expect("three");
        // A deviation of 0.2 and a distance of 0.2: t / sqrt(n) must be below 1, which 7 seeds have (2.447 / 2.646) and 6 have not.
        assert_eq!(spread.seeds_to_decide(1.0), Some(7));
        assert_eq!(spread.seeds_to_decide(0.8), None);
        assert_eq!(spread.seeds_to_decide(9.0), Some(3), "decided as it is");
    }
}
