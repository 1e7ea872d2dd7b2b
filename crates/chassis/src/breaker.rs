//! Not calling a peer that does not answer. In: how calls ended. Out: whether the next one is worth making, and whether a failed one
//! may be repeated.
//!
//! After some failures in a row the breaker opens: for a while nobody calls. Then one call tries; its end decides. Repeats come
//! out of a budget that calls fill, so that a peer in trouble gets a tenth more calls and not three times as many.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::Findings;

/// Settings of a breaker.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct BreakerConfig {
    /// Failures in a row that open it. Default 3.
    pub failures: u32,
    /// Milliseconds that it stays open. Default 5000: a process that restarts is back by then.
    pub pause_ms: u64,
    /// Repeats per call in the long run. Default 0.1.
    pub repeats: f64,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self { failures: 3, pause_ms: 5000, repeats: 0.1 }
    }
}

impl BreakerConfig {
    /// What is wrong with the settings.
    pub fn findings(&self) -> Findings {
        let mut found = Findings::default();
        found.at_least_one("failures", self.failures);
        found.span("pause_ms", self.pause_ms, 0, 1000);
        found.within("repeats", self.repeats, 0.0..=SAVED);
        found
    }
}

/// Most repeats that can be saved up.
const SAVED: f64 = 10.0;

/// A breaker.
#[derive(Debug)]
pub struct Breaker {
    config: BreakerConfig,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// In a row.
    failures: u32,
    /// Nobody calls before this moment.
    open_until: Option<Instant>,
    /// Repeats that may be made.
    saved: f64,
}

/// What the end of a call changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// The breaker has opened.
    Opened,
    /// The peer is back.
    Closed,
}

impl Breaker {
    /// A closed one.
    pub fn new(config: BreakerConfig) -> Self {
        Self { config, state: Mutex::new(State { failures: 0, open_until: None, saved: 1.0 }) }
    }

    /// Whether to call now. Whoever is told so must say how it ended.
    pub fn admits(&self) -> bool {
        let mut state = self.state();
        if let Some(until) = state.open_until {
            if Instant::now() < until {
                return false;
            }
            // This call tries. Others wait another while, and so does everybody if it vanishes without a word.
            state.open_until = Some(self.pause());
        }
        state.saved = (state.saved + self.config.repeats.max(0.0)).min(SAVED);
        true
    }

    /// Whether nobody is to call yet. It changes nothing: whoever calls asks [`Breaker::admits`].
    pub fn is_open(&self) -> bool {
        self.state().open_until.is_some_and(|until| Instant::now() < until)
    }

    /// Whether a failed call may be repeated now.
    pub fn may_repeat(&self) -> bool {
        let mut state = self.state();
        // One call tries; it is not repeated.
        let may = state.open_until.is_none() && state.saved >= 1.0;
        if may {
            state.saved -= 1.0;
        }
        may
    }

    /// The peer answered, whatever it said.
    pub fn answered(&self) -> Change {
        let mut state = self.state();
        state.failures = 0;
        if state.open_until.take().is_some() { Change::Closed } else { Change::None }
    }

    /// The peer gave no answer.
    pub fn failed(&self) -> Change {
        let mut state = self.state();
        state.failures = state.failures.saturating_add(1);
        let was_open = state.open_until.is_some();
        if was_open || state.failures >= self.config.failures.max(1) {
            state.open_until = Some(self.pause());
            return if was_open { Change::None } else { Change::Opened };
        }
        Change::None
    }

    fn pause(&self) -> Instant {
        Instant::now() + Duration::from_millis(self.config.pause_ms)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_opens_after_failures_in_a_row_and_one_call_tries() {
        let breaker = Breaker::new(BreakerConfig { failures: 2, pause_ms: 500, repeats: 0.5 });
        assert!(breaker.admits());
        assert_eq!((breaker.failed(), breaker.answered()), (Change::None, Change::None));
        assert_eq!((breaker.failed(), breaker.failed()), (Change::None, Change::Opened));
        assert!(breaker.is_open() && !breaker.admits() && !breaker.may_repeat());
        tokio::time::advance(Duration::from_millis(520)).await;
        assert!(!breaker.is_open() && breaker.admits() && breaker.is_open() && !breaker.admits(), "one tries");
        assert_eq!(breaker.failed(), Change::None, "it stays open");
        assert!(!breaker.admits());
        tokio::time::advance(Duration::from_millis(520)).await;
        assert!(breaker.admits());
        assert_eq!(breaker.answered(), Change::Closed);
        assert!(breaker.admits() && breaker.admits());
    }

    #[test]
    fn repeats_come_out_of_a_budget() {
        let breaker = Breaker::new(BreakerConfig { repeats: 0.25, ..BreakerConfig::default() });
        assert!(breaker.may_repeat() && !breaker.may_repeat(), "one is there from the beginning");
        for _ in 0..4 {
            assert!(breaker.admits());
        }
        assert!(breaker.may_repeat() && !breaker.may_repeat());
    }
}
