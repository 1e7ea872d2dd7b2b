//! Log lines that strangers can cause as often as they like, and that must not fill the log.
//!
//! In: something to say. Out: whether it is time to.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Pause between log lines.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Remembers when something was last said. A plain mutex: it is held for a comparison.
#[derive(Debug, Default)]
pub(crate) struct Seldom {
    said: Mutex<Option<Instant>>,
}

impl Seldom {
    /// Whether it may be said now; it then counts as said.
    pub(crate) fn now(&self) -> bool {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let may = said.is_none_or(|at| at.elapsed() >= SAY_EVERY);
        if may {
            *said = Some(Instant::now());
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_once_and_then_not_for_a_while() {
        let seldom = Seldom::default();
        assert!(seldom.now() && !seldom.now());
    }
}
