//! How often a service is asked. In: requests a second that it allows, and that it was too often. Out: when to ask. A bucket of one second
//! is full at the start; whoever waits is served in turn.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

/// The rate of one service.
pub struct Rate {
    limiter: Option<DefaultDirectRateLimiter>,
    /// Nobody asks before this moment.
    still_until: Mutex<Option<Instant>>,
}

impl Rate {
    /// Allows so many requests a second, evenly; 0 is no limit. Fractions are allowed: 0.5 is one in two seconds.
    pub fn new(per_second: f64) -> Self {
        let period = (per_second > 0.0).then(|| Duration::from_secs_f64(1.0 / per_second));
        // One at a time, evenly: a burst would go beyond what is allowed within a second.
        let quota = period.and_then(Quota::with_period).map(|quota| quota.allow_burst(NonZeroU32::MIN));
        Self { limiter: quota.map(RateLimiter::direct), still_until: Mutex::new(None) }
    }

    /// Returns when the service may be asked.
    pub async fn until_free(&self) {
        loop {
            if let Some(limiter) = &self.limiter {
                limiter.until_ready().await;
            }
            let until = *self.still_until.lock();
            match until.filter(|until| Instant::now() < *until) {
                Some(until) => sleep_until(until).await,
                None => return,
            }
        }
    }

    /// Nobody asks before a moment: the service has said so.
    pub fn stand_still(&self, until: Instant) {
        let mut still = self.still_until.lock();
        *still = Some(still.map_or(until, |before| before.max(until)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_limit_holds_and_is_used() {
        let (rate, began) = (Rate::new(200.0), std::time::Instant::now());
        futures::future::join_all((0..41).map(|_| rate.until_free())).await;
        let took = began.elapsed().as_secs_f64();
        assert!((0.2..1.0).contains(&took), "41 at 200 a second take 0.2 s, not {took}");
        let (free, began) = (Rate::new(0.0), std::time::Instant::now());
        futures::future::join_all((0..1000).map(|_| free.until_free())).await;
        assert!(began.elapsed() < Duration::from_millis(100));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_asks_while_a_service_wants_to_be_left_alone() {
        let (rate, began) = (Rate::new(0.0), Instant::now());
        rate.stand_still(began + Duration::from_secs(5));
        rate.stand_still(began + Duration::from_secs(2));
        rate.until_free().await;
        assert_eq!(began.elapsed(), Duration::from_secs(5));
    }
}
