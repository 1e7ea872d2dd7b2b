//! Asking again. In: a miss. Out: permission to ask once more, after a pause, or the miss itself where no further attempt is left. One
//! implementation for turns and for scoring. It asks nobody itself.

use std::time::Duration;

use hypereyes_chassis::backoff::{Backoff, BackoffConfig};
use tokio::time::Instant;

use super::outcome::{Miss, Outcome};

/// Longest pause that a server may ask for: it knows its queue, not our deadlines.
const MOST_PAUSE: Duration = Duration::from_secs(60);

/// The attempts of one question.
#[derive(Debug)]
pub struct Attempts {
    backoff: Backoff,
    until: Instant,
    /// Attempts that may fail.
    left: u32,
    /// Whether servers that are away or busy are asked again for as long as there is time.
    patient: bool,
    made: u32,
}

impl Attempts {
    /// So many attempts, until a moment.
    pub fn few(until: Instant, left: u32) -> Self {
        let backoff = Backoff::new(&BackoffConfig { first_ms: 200, max_ms: 4000, ..BackoffConfig::default() });
        Self { backoff, until, left, patient: false, made: 0 }
    }

    /// The same, but servers that are away or busy are asked again until that moment: only what they fail at is counted, which the
    /// question itself may be.
    pub fn patient(until: Instant, left: u32) -> Self {
        Self { patient: true, ..Self::few(until, left) }
    }

    /// Another moment until which there may be attempts.
    pub fn lasts_until(&mut self, until: Instant) {
        self.until = until;
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// The miss, with the number of attempts, when there is none.
    pub async fn again(&mut self, miss: Miss) -> Result<(), Miss> {
        self.made += 1;
        let gave_up = |miss: Miss, made: u32| Miss { reason: format!("{} ({made} attempts)", miss.reason), ..miss };
        if !miss.again {
            return Err(miss);
        }
        let is_away = matches!(miss.outcome, Outcome::Connect | Outcome::Busy | Outcome::StaleVersion);
        if !(self.patient && is_away) {
            self.left = self.left.saturating_sub(1);
        }
        let pause = self.backoff.next_delay().max(miss.after.unwrap_or_default().min(MOST_PAUSE));
        if self.left == 0 || Instant::now() + pause >= self.until {
            return Err(gave_up(miss, self.made));
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn failures_are_counted_and_absence_is_waited_out() {
        let until = Instant::now() + Duration::from_secs(30);
        let mut attempts = Attempts::few(until, 3);
        let failed = || Miss::again(Outcome::Server, "500");
        for _ in 0..2 {
            attempts.again(failed()).await.expect("there are more");
        }
        assert_eq!(attempts.again(failed()).await.expect_err("the third").reason, "500 (3 attempts)");
        let mut attempts = Attempts::patient(until, 1);
        let mut away = 0;
        while attempts.again(Miss::again(Outcome::Connect, "nobody")).await.is_ok() {
            away += 1;
        }
        // Timers are of whole milliseconds: the last pause may end one late.
        assert!(away > 5 && Instant::now() <= until + Duration::from_millis(1), "{away}");
        assert_eq!(Attempts::few(until, 9).again(Miss::last(Outcome::Refused, "no")).await.expect_err("final").reason, "no");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_names_a_pause_gets_it_within_the_deadline() {
        let start = Instant::now();
        let mut attempts = Attempts::patient(start + Duration::from_secs(30), 3);
        let busy = |seconds| Miss { after: Some(Duration::from_secs(seconds)), ..Miss::again(Outcome::Busy, "429") };
        attempts.again(busy(7)).await.expect("in time");
        assert!(Instant::now() - start >= Duration::from_secs(7));
        assert!(attempts.again(busy(3600)).await.is_err());
        assert!(Instant::now() - start < Duration::from_secs(8), "nobody sleeps past a deadline to fail then");
    }
}
