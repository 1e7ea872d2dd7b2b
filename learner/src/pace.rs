//! How the learner spends its time: training, or waiting for groups. In: what it has just done. Out: the metrics that actors are
//! scaled by. Short waits count as much as long ones.

use std::time::Instant;

use metrics::{counter, gauge};

use crate::metrics::{STARVED, STARVED_RATIO};

/// Seconds after which the past counts for a third: long against a step, short against the start of an actor.
const MEMORY_S: f64 = 30.0;

/// The learner's time.
#[derive(Debug)]
pub struct Pace {
    since: Instant,
    waited: f64,
    ratio: f64,
}

impl Pace {
    /// Begins now, neither starved nor busy.
    pub fn new() -> Self {
        Self { since: Instant::now(), waited: 0.0, ratio: 0.0 }
    }

    /// The time since the last word was spent waiting; `hungry` where more actors would have helped. At the end of an epoch,
    /// when every task is handed out, they would not.
    pub fn waited(&mut self, hungry: bool) {
        let seconds = self.spend(f64::from(u8::from(hungry)));
        self.waited += seconds;
        counter!(STARVED).absolute(self.waited as u64);
    }

    /// The time since the last word was spent at work.
    pub fn worked(&mut self) {
        self.spend(0.0);
    }

    fn spend(&mut self, starved: f64) -> f64 {
        let seconds = self.since.elapsed().as_secs_f64();
        self.since = Instant::now();
        self.ratio = faded(self.ratio, starved, seconds);
        gauge!(STARVED_RATIO).set(self.ratio);
        seconds
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self::new()
    }
}

/// A mean in which the past fades.
fn faded(mean: f64, value: f64, seconds: f64) -> f64 {
    let kept = (-seconds / MEMORY_S).exp();
    mean * kept + value * (1.0 - kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_follows_and_many_short_spells_are_one_long_one() {
        let once = faded(0.2, 1.0, 10.0);
        let often = (0..100).fold(0.2, |mean, _| faded(mean, 1.0, 0.1));
        assert!((once - often).abs() < 1e-9 && once > 0.2);
        assert!(faded(1.0, 0.0, 300.0) < 1e-4);
        let half = (0..1000).fold(0.0, |mean, _| faded(faded(mean, 1.0, 0.5), 0.0, 0.5));
        assert!((half - 0.5).abs() < 0.01, "{half}");
    }
}
