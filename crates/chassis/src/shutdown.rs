//! Orderly ends.
//!
//! In: signals of the process, or a call. Out: one [`Shutdown`] that everything long-lived waits on, and [`drain`], which
//! gives tasks time to finish but not for ever.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::metrics::counter;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::metrics::DRAIN_CUT;

/// Exit code after a second signal, which shells give a process that SIGINT killed.
const INTERRUPTED: i32 = 130;

/// Whether it is time to stop. Clones are one and the same.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    token: CancellationToken,
    signalled: Arc<AtomicBool>,
}

impl Shutdown {
    /// One that only [`trigger`](Self::trigger) ends.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that SIGINT and SIGTERM end as well. A second signal ends the process at once, for users who will not wait.
    /// Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the signal handlers cannot be installed.
    pub fn on_signal() -> io::Result<Self> {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let shutdown = Self::new();
        let (token, signalled) = (shutdown.token.clone(), shutdown.signalled.clone());
        tokio::spawn(async move {
            for first in [true, false] {
                let name = tokio::select! {
                    _ = interrupt.recv() => "SIGINT",
                    _ = terminate.recv() => "SIGTERM",
                };
                if first {
                    tracing::info!(signal = name, "stopping; a second signal stops at once");
                    signalled.store(true, Ordering::Release);
                    token.cancel();
                } else {
                    tracing::warn!(signal = name, "stopping at once");
                    std::process::exit(INTERRUPTED);
                }
            }
        });
        Ok(shutdown)
    }

    /// Time to stop.
    pub fn trigger(&self) {
        self.token.cancel();
    }

    /// Whether it is time to stop.
    pub fn is_triggered(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Whether it was a signal that said so: somebody who may start the process again, as an orchestrator that needs the machine.
    pub fn is_signalled(&self) -> bool {
        self.signalled.load(Ordering::Acquire)
    }

    /// Waits until it is time to stop.
    pub async fn cancelled(&self) {
        self.token.cancelled().await;
    }

    /// One that ends with this one, and can be ended without it.
    pub fn child(&self) -> Self {
        Self { token: self.token.child_token(), signalled: self.signalled.clone() }
    }

    /// The result of `work`, or `None` if it was time to stop before; `work` is dropped then.
    pub async fn race<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.token.run_until_cancelled(work).await
    }

    /// The token, for libraries that want one.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }
}

/// Closes `tracker` and waits for its tasks, at most `grace`. Returns how many tasks were still running then; they are
/// counted, not aborted: the caller ends the runtime.
pub async fn drain(tracker: &TaskTracker, grace: Duration) -> usize {
    tracker.close();
    if tokio::time::timeout(grace, tracker.wait()).await.is_ok() {
        return 0;
    }
    let left = tracker.len();
    if left > 0 {
        tracing::warn!(left, ?grace, "tasks did not finish within their grace");
        counter!(DRAIN_CUT, "what" => "task").increment(left as u64);
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_child_ends_with_its_parent_but_not_the_other_way_round() {
        let parent = Shutdown::new();
        let (first, second) = (parent.child(), parent.child());
        first.trigger();
        assert!(!parent.is_triggered() && !second.is_triggered());
        parent.clone().trigger();
        second.cancelled().await;
        assert!(parent.is_triggered());
    }

    #[tokio::test(start_paused = true)]
    async fn work_loses_the_race_against_an_end() {
        let shutdown = Shutdown::new();
        assert_eq!(shutdown.race(async { 7 }).await, Some(7));
        let trigger = shutdown.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            trigger.trigger();
        });
        assert_eq!(shutdown.race(std::future::pending::<()>()).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn draining_waits_for_tasks_but_not_for_ever() {
        let tracker = TaskTracker::new();
        tracker.spawn(tokio::time::sleep(Duration::from_secs(1)));
        assert_eq!(drain(&tracker, Duration::from_secs(5)).await, 0);
        let tracker = TaskTracker::new();
        tracker.spawn(std::future::pending::<()>());
        assert_eq!(drain(&tracker, Duration::from_secs(5)).await, 1);
    }

    #[tokio::test]
    async fn a_signal_ends_it() {
        let shutdown = Shutdown::on_signal().expect("handlers can be installed");
        let pid = std::process::id().to_string();
        let killed = tokio::process::Command::new("kill").args(["-TERM", &pid]).status().await.expect("kill is installed");
        assert!(killed.success());
        tokio::time::timeout(Duration::from_secs(10), shutdown.cancelled()).await.expect("the signal arrives");
    }
}
