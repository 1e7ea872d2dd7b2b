//! How often a service is asked. In: requests a second that it allows, and that it was too often. Out: when to ask: evenly, who comes first
//! first. Each request has a moment of its own, so that lateness of one is not the next one's.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

/// The rate of one service.
#[derive(Debug)]
pub struct Rate {
    /// Between two requests.
    period: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The first moment that nobody has.
    free: Instant,
    /// Nobody asks before this one.
    still_until: Instant,
}

impl Rate {
    /// Allows so many requests a second; 0 is no limit. Fractions are allowed: 0.5 is one in two seconds.
    pub fn new(per_second: f64) -> Self {
        let period = if per_second > 0.0 { Duration::from_secs_f64(1.0 / per_second) } else { Duration::ZERO };
        let now = Instant::now();
        Self { period, state: Mutex::new(State { free: now, still_until: now }) }
    }

    /// Returns when the service may be asked; false, and at once, where that is not before `until`.
    pub async fn until_free(&self, until: Instant) -> bool {
        loop {
            let moment = {
                let mut state = self.state.lock();
                let moment = state.free.max(state.still_until).max(Instant::now());
                if moment >= until {
                    return false;
                }
                state.free = moment + self.period;
                moment
            };
            sleep_until(moment).await;
            // The service may have been too busy meanwhile.
            if self.state.lock().still_until <= Instant::now() {
                return true;
            }
        }
    }

    /// Nobody asks before a moment: the service has said so.
    pub fn stand_still(&self, until: Instant) {
        let mut state = self.state.lock();
        state.still_until = state.still_until.max(until);
    }
}

/// The rate of a service, for somebody who waits until a moment.
#[derive(Clone, Copy, Debug)]
pub struct Turn<'a> {
    /// The rate.
    pub rate: &'a Rate,
    /// When nobody waits any more.
    pub until: Instant,
}

impl Turn<'_> {
    /// Returns when the service may be asked, as [`Rate::until_free`].
    pub async fn comes(&self) -> bool {
        self.rate.until_free(self.until).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn moments_are_even_in_turn_and_none_is_beyond_what_somebody_waits_for() {
        let (rate, began) = (Rate::new(10.0), Instant::now());
        let took = futures::future::join_all((0..25).map(async |_| {
            let in_time = rate.until_free(began + Duration::from_secs(2)).await;
            (in_time, began.elapsed().as_millis())
        }));
        let took = took.await;
        let asked: Vec<u128> = took.iter().filter(|(in_time, _)| *in_time).map(|(_, at)| *at).collect();
        assert_eq!(asked, (0..20).map(|number| number * 100).collect::<Vec<_>>());
        assert!(took[20..].iter().all(|(in_time, at)| !in_time && *at == 0), "who has no moment is told at once");
        let free = Rate::new(0.0);
        let all = futures::future::join_all((0..1000).map(|_| free.until_free(Instant::now() + Duration::from_secs(1)))).await;
        assert!(all.into_iter().all(|in_time| in_time));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_asks_while_a_service_wants_to_be_left_alone() {
        let (rate, began) = (Rate::new(0.0), Instant::now());
        let later = began + Duration::from_secs(60);
        rate.stand_still(began + Duration::from_secs(5));
        rate.stand_still(began + Duration::from_secs(2));
        assert!(!rate.until_free(began + Duration::from_secs(4)).await);
        assert!(rate.until_free(later).await);
        assert_eq!(began.elapsed(), Duration::from_secs(5));
        // Who has a moment already waits, too.
        let slow = Rate::new(1.0);
        assert!(slow.until_free(later).await);
        let waits = slow.until_free(later);
        tokio::pin!(waits);
        assert!(futures::poll!(&mut waits).is_pending());
        slow.stand_still(began + Duration::from_secs(20));
        assert!(waits.await);
        assert_eq!(began.elapsed(), Duration::from_secs(20));
    }
}
