//! How an explorer goes about a question. In: shares and chances. Out: one explorer's habit, and the rounds that it takes.

use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::config::ExplorerConfig;
use crate::tasks::Puzzle;

/// The habit of one explorer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Habit {
    /// Boxes or queries per round, at least 1; [`Habit::ALL`] is all at once.
    pub width: usize,
    /// Asks both relations of a hop at once.
    pub wide: bool,
    /// Chance that a box is off by one grid step.
    pub jitter: f64,
    /// Looks at half of the pictures only.
    pub hasty: bool,
    /// Chance that it answers without reading on.
    pub guess: f64,
}

impl Habit {
    /// The width of a parallel explorer.
    pub const ALL: usize = usize::MAX;

    /// Draws a habit by the configured shares.
    pub fn draw(config: &ExplorerConfig, random: &mut impl Rng) -> Self {
        let at = random.random_range(0.0..config.serial + config.pairs + config.parallel);
        let width = match at {
            at if at < config.serial => 1,
            at if at < config.serial + config.pairs => 2,
            _ => Self::ALL,
        };
        let wide = width == Self::ALL && random.random_bool(config.wide);
        let hasty = random.random_bool(config.hasty);
        Self { width, wide, jitter: config.jitter, hasty, guess: config.guess }
    }

    /// How many of `shown` pictures it looks at.
    pub(crate) fn looks_at(&self, shown: usize) -> usize {
        if self.hasty { (shown / 2).max(shown.min(1)) } else { shown }
    }

    /// Widened as little as needed to be done in `max_rounds`: whoever knows the limit does not plan beyond it.
    pub(crate) fn fitted(mut self, puzzle: &Puzzle, shown: usize, max_rounds: u32) -> Self {
        while self.width < shown && self.least_rounds(puzzle, shown) > max_rounds {
            self.width += 1;
        }
        self
    }

    /// Rounds of a try in which nothing is guessed.
    pub(crate) fn least_rounds(&self, puzzle: &Puzzle, shown: usize) -> u32 {
        let rounds = |things: usize| things.div_ceil(self.width.max(1));
        let shown = self.looks_at(shown);
        let total = match puzzle {
            Puzzle::Select(_) => rounds(shown) * 2,
            Puzzle::Hop(..) if self.wide => rounds(shown) + rounds(shown * 2),
            Puzzle::Hop(..) => rounds(shown) * 2 + 1,
            Puzzle::Both(..) if self.width == Self::ALL => 1,
            Puzzle::Both(..) => rounds(2) + 1,
        };
        u32::try_from(total).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::Constraint;

    fn habit(width: usize) -> Habit {
        Habit { width, wide: false, jitter: 0.0, hasty: false, guess: 0.0 }
    }

    #[test]
    fn a_serial_explorer_widens_only_as_far_as_the_limit_asks() {
        let one = Constraint { label: "currency".into(), value: "peso".into() };
        let select = Puzzle::Select(one.clone());
        assert_eq!(habit(1).least_rounds(&select, 4), 8);
        assert_eq!(habit(1).fitted(&select, 4, 8).width, 1);
        assert_eq!(habit(1).fitted(&select, 5, 8).width, 2);
        let hop = Puzzle::Hop(one.clone(), "capital".into());
        assert_eq!(habit(1).fitted(&hop, 4, 8).width, 2);
        assert_eq!(habit(Habit::ALL).least_rounds(&hop, 6), 3);
        assert_eq!(Habit { wide: true, ..habit(Habit::ALL) }.least_rounds(&hop, 6), 2);
        let both = Puzzle::Both(one.clone(), one);
        assert_eq!([1, 2, Habit::ALL].map(|width| habit(width).least_rounds(&both, 0)), [3, 2, 1]);
    }

    #[test]
    fn who_is_hasty_looks_at_half() {
        let hasty = Habit { hasty: true, ..habit(1) };
        assert_eq!([0, 1, 2, 3, 4, 5, 6].map(|shown| hasty.looks_at(shown)), [0, 1, 1, 1, 2, 2, 3]);
        let select = Puzzle::Select(Constraint { label: "currency".into(), value: "peso".into() });
        assert_eq!((hasty.least_rounds(&select, 6), habit(1).least_rounds(&select, 6)), (6, 12));
    }
}
