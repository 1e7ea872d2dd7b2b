//! Trying again, later and later, at random moments, until a deadline.
//!
//! In: an operation and its error's word on whether another try can help. Out: its result, or why it was given up.
//! Delays use full jitter (uniform between 0 and a growing cap), so that many clients of one restarted server do not
//! return in step.

use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use ::metrics::counter;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};
use tonic::Code;

use crate::Findings;
use crate::metrics::{RETRIES, RETRIES_EXHAUSTED};

/// How delays grow.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct BackoffConfig {
    /// Cap of the first delay in milliseconds. Default 50: a restart of a local process is not felt.
    pub first_ms: u64,
    /// Cap of every delay in milliseconds. Default 5000: a server that is back is found within seconds.
    pub max_ms: u64,
    /// Growth of the cap from try to try, at least 1. Default 2.
    pub factor: f64,
    /// Seed of the jitter; absent means a random one, so that processes differ. Set it in tests.
    pub seed: Option<u64>,
}

impl Default for BackoffConfig {
    fn default() -> Self {
        Self { first_ms: 50, max_ms: 5000, factor: 2.0, seed: None }
    }
}

impl BackoffConfig {
    /// What is wrong with the settings.
    pub fn findings(&self) -> Findings {
        let mut found = Findings::default();
        found.span("max_ms", self.max_ms, 1, 1000);
        found.within("factor", self.factor, 1.0..=1000.0);
        found
    }
}

/// The delays between tries.
#[derive(Debug)]
pub struct Backoff {
    cap_ms: f64,
    config: BackoffConfig,
    rng: StdRng,
}

impl Backoff {
    /// Starts at the first delay.
    pub fn new(config: &BackoffConfig) -> Self {
        let seed = config.seed.unwrap_or_else(|| RandomState::new().hash_one(std::process::id()));
        Self { cap_ms: config.first_ms as f64, config: config.clone(), rng: StdRng::seed_from_u64(seed) }
    }

    /// The next delay: uniform in 0..=cap, where the cap grows from `first_ms` to `max_ms`.
    pub fn next_delay(&mut self) -> Duration {
        let cap = self.cap_ms.min(self.config.max_ms as f64);
        self.cap_ms = cap * self.config.factor.max(1.0);
        Duration::from_secs_f64(self.rng.random::<f64>() * cap / 1000.0)
    }

    /// Back to the first delay, after a success.
    pub fn reset(&mut self) {
        self.cap_ms = self.config.first_ms as f64;
    }
}

/// An error that knows whether the same call may succeed later.
pub trait Retryable {
    /// True when trying again can help.
    fn is_retryable(&self) -> bool;
}

impl Retryable for tonic::Status {
    /// True when the peer was away, busy, slow or restarted, or the connection broke; false when it understood and refused.
    fn is_retryable(&self) -> bool {
        // A status with a source was made on this side, by a broken connection; a peer's status has none.
        let broken = std::error::Error::source(self).is_some();
        broken
            || matches!(self.code(), Code::Unavailable | Code::ResourceExhausted | Code::Aborted | Code::DeadlineExceeded | Code::Unknown)
    }
}

/// Why an operation was given up.
#[derive(Debug)]
pub enum RetryError<E> {
    /// It failed in a way that trying again cannot help.
    Fatal {
        /// What was tried.
        op: &'static str,
        /// How many times.
        tries: u32,
        /// The error.
        error: E,
    },
    /// The deadline passed.
    Deadline {
        /// What was tried.
        op: &'static str,
        /// How many times.
        tries: u32,
        /// The last error; `None` when no try came to an end.
        last: Option<E>,
    },
}

impl<E> RetryError<E> {
    /// The operation's own last error.
    pub fn into_error(self) -> Option<E> {
        match self {
            Self::Fatal { error, .. } => Some(error),
            Self::Deadline { last, .. } => last,
        }
    }
}

impl<E: fmt::Display> fmt::Display for RetryError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fatal { op, tries, error } => write!(f, "{op} failed at try {tries}: {error}"),
            Self::Deadline { op, tries, last: Some(last) } => write!(f, "{op} did not succeed before its deadline ({tries} tries): {last}"),
            Self::Deadline { op, tries, last: None } => write!(f, "{op} was not answered before its deadline ({tries} tries)"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for RetryError<E> {}

/// Calls `op` until it succeeds, fails for good, or `deadline` passes; a call in flight at the deadline is dropped. `name`
/// is the metric label, so it must come from a small set. To stop early, drop the future
/// ([`Shutdown::race`](crate::Shutdown::race)).
///
/// # Errors
/// [`RetryError`].
pub async fn retry<T, E, F>(
    name: &'static str,
    deadline: Instant,
    config: &BackoffConfig,
    mut op: impl FnMut() -> F,
) -> Result<T, RetryError<E>>
where
    F: Future<Output = Result<T, E>>,
    E: Retryable,
{
    let mut backoff = Backoff::new(config);
    let mut last = None;
    let mut tries = 0;
    loop {
        tries += 1;
        match timeout_at(deadline, op()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) if !error.is_retryable() => {
                counter!(RETRIES_EXHAUSTED, "op" => name, "reason" => "fatal").increment(1);
                return Err(RetryError::Fatal { op: name, tries, error });
            }
            Ok(Err(error)) => last = Some(error),
            Err(_) => break,
        }
        let pause = backoff.next_delay();
        // Sleeping past the deadline only to fail then would be of no use to the caller.
        if Instant::now() + pause >= deadline {
            break;
        }
        tokio::time::sleep(pause).await;
        counter!(RETRIES, "op" => name, "reason" => "error").increment(1);
    }
    counter!(RETRIES_EXHAUSTED, "op" => name, "reason" => "deadline").increment(1);
    Err(RetryError::Deadline { op: name, tries, last })
}

#[cfg(test)]
mod tests {
    use tonic::Status;

    use super::*;

    fn seeded(seed: u64) -> BackoffConfig {
        BackoffConfig { first_ms: 100, max_ms: 1000, factor: 2.0, seed: Some(seed) }
    }

    #[test]
    fn delays_are_seeded_jittered_and_capped() {
        let delays = |seed: u64| {
            let mut backoff = Backoff::new(&seeded(seed));
            (0..12).map(|_| backoff.next_delay()).collect::<Vec<_>>()
        };
        assert_eq!(delays(1), delays(1));
        assert_ne!(delays(1), delays(2));
        for seed in 0..200 {
            let caps = [100, 200, 400, 800, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000];
            for (delay, cap) in delays(seed).into_iter().zip(caps) {
                assert!(delay <= Duration::from_millis(cap));
            }
        }
        let mean: f64 = (0..2000).map(|seed| delays(seed)[0].as_secs_f64()).sum::<f64>() / 2000.0;
        assert!((0.045..0.055).contains(&mean), "full jitter has mean cap/2, got {mean}");
        let mut backoff = Backoff::new(&seeded(3));
        for _ in 0..10 {
            backoff.next_delay();
        }
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_millis(100));
    }

    #[tokio::test(start_paused = true)]
    async fn passing_errors_are_tried_again() {
        let mut calls = 0;
        let deadline = Instant::now() + Duration::from_secs(60);
        let result = retry("test", deadline, &seeded(1), || {
            calls += 1;
            let answer = if calls < 4 { Err(Status::unavailable("restarting")) } else { Ok(calls) };
            async move { answer }
        })
        .await;
        assert_eq!(result.expect("the fourth try succeeds"), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_are_not_tried_again() {
        let mut calls = 0;
        let deadline = Instant::now() + Duration::from_secs(60);
        let result = retry("test", deadline, &seeded(1), || {
            calls += 1;
            async { Err::<(), _>(Status::invalid_argument("no")) }
        })
        .await;
        assert!(matches!(result, Err(RetryError::Fatal { tries: 1, .. })));
        assert_eq!(calls, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_holds_for_slow_and_for_failing_calls() {
        let start = Instant::now();
        let deadline = start + Duration::from_secs(10);
        let failing = retry("test", deadline, &seeded(1), || async { Err::<(), _>(Status::unavailable("gone")) }).await;
        let Err(RetryError::Deadline { tries, last: Some(last), .. }) = failing else { panic!("{failing:?}") };
        assert!(tries > 5 && last.message() == "gone" && Instant::now() <= deadline);
        let hanging = retry("test", deadline, &seeded(1), std::future::pending::<Result<(), Status>>).await;
        assert!(matches!(hanging, Err(RetryError::Deadline { tries: 1, last: None, .. })));
        assert_eq!(Instant::now() - start, Duration::from_secs(10));
    }

    #[test]
    fn only_errors_that_may_pass_are_retryable() {
        for code in [Code::Unavailable, Code::ResourceExhausted, Code::Aborted, Code::DeadlineExceeded, Code::Unknown] {
            assert!(Status::new(code, "").is_retryable(), "{code:?}");
        }
        for code in [Code::InvalidArgument, Code::NotFound, Code::FailedPrecondition, Code::Unimplemented, Code::Cancelled, Code::Internal]
        {
            assert!(!Status::new(code, "").is_retryable(), "{code:?}");
        }
    }
}
