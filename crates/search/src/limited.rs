//! A bound around any [`Search`]: at most so many at once, each within a deadline, all counted. Knows no backend.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hypereyes_environment::{Search, SearchError, SearchFuture};
use hypereyes_pictures::RgbImage;
use tokio::sync::Semaphore;

use crate::SearchConfig;
use crate::metrics::{SEARCH_FAILURES, SEARCH_SECONDS, SEARCHES};

/// A search within bounds.
pub struct Limited<S> {
    inner: S,
    permits: Arc<Semaphore>,
    deadline: Duration,
}

impl<S: Search> Limited<S> {
    /// Bounds `inner`. A concurrency of 0 counts as 1; a deadline that is no positive number counts as an hour.
    pub fn new(inner: S, config: &SearchConfig) -> Self {
        let concurrency = config.concurrency.clamp(1, Semaphore::MAX_PERMITS);
        let hour = Duration::from_secs(3600);
        let deadline = if config.deadline_s > 0.0 { Duration::try_from_secs_f64(config.deadline_s).unwrap_or(hour) } else { hour };
        Self { inner, permits: Arc::new(Semaphore::new(concurrency)), deadline: deadline.min(hour) }
    }

    /// What is bounded.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    fn bound<'a>(&'a self, tool: &'static str, search: SearchFuture<'a>) -> SearchFuture<'a> {
        Box::pin(async move {
            let start = Instant::now();
            metrics::counter!(SEARCHES, "tool" => tool).increment(1);
            let permitted = async {
                let _permit = self.permits.acquire().await.map_err(|error| SearchError::Tool { tool, reason: error.to_string() })?;
                search.await
            };
            let result =
                tokio::time::timeout(self.deadline, permitted).await.unwrap_or(Err(SearchError::Timeout { tool, after: self.deadline }));
            metrics::histogram!(SEARCH_SECONDS, "tool" => tool).record(start.elapsed().as_secs_f64());
            if let Err(error) = &result {
                metrics::counter!(SEARCH_FAILURES, "tool" => tool, "reason" => error.failure().label()).increment(1);
                tracing::warn!(%error, "search failed");
            }
            result
        })
    }
}

impl<S: Search> Search for Limited<S> {
    fn text<'a>(&'a self, layer: u64, query: &'a str) -> SearchFuture<'a> {
        self.bound("text", self.inner.text(layer, query))
    }

    fn image(&self, layer: u64, picture: Arc<RgbImage>) -> SearchFuture<'_> {
        self.bound("image", self.inner.image(layer, picture))
    }

    fn page<'a>(&'a self, layer: u64, address: &'a str) -> SearchFuture<'a> {
        self.bound("page", self.inner.page(layer, address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Sleeps for as many milliseconds as the query says and notes how many sleep at once.
    #[derive(Default)]
    struct Slow {
        now: AtomicUsize,
        most: AtomicUsize,
    }

    impl Search for Slow {
        fn text<'a>(&'a self, _: u64, query: &'a str) -> SearchFuture<'a> {
            Box::pin(async move {
                self.most.fetch_max(self.now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(query.parse().expect("a number"))).await;
                self.now.fetch_sub(1, Ordering::SeqCst);
                Ok(Vec::new())
            })
        }

        fn image(&self, _: u64, _: Arc<RgbImage>) -> SearchFuture<'_> {
            Box::pin(async { Err(SearchError::Tool { tool: "image", reason: "broken".into() }) })
        }
    }

    #[tokio::test]
    async fn no_more_than_allowed_run_at_once() {
        let search = Limited::new(Slow::default(), &SearchConfig { concurrency: 3, deadline_s: 10.0, ..SearchConfig::default() });
        let all = futures::future::join_all((0..10).map(|_| search.text(0, "5"))).await;
        assert!(all.iter().all(Result::is_ok));
        assert_eq!(search.inner().most.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn a_slow_search_is_a_timeout_and_a_broken_one_a_tool_failure() {
        let search = Limited::new(Slow::default(), &SearchConfig { concurrency: 3, deadline_s: 0.02, ..SearchConfig::default() });
        let error = search.text(0, "60000").await.expect_err("too slow");
        assert_eq!(error.failure(), hypereyes_domain::Failure::Timeout);
        let error = search.image(0, Arc::new(RgbImage::new(1, 1))).await.expect_err("broken");
        assert_eq!(error.failure(), hypereyes_domain::Failure::Tool);
    }
}
