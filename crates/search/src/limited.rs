//! The bounds around everything that is searched: at most so many searches at once, each within a deadline, all counted. Knows no back end.

use std::sync::Arc;
use std::time::Duration;

use hypereyes_environment::{Outcome, Query, Search, SearchFuture};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::SearchConfig;
use crate::asked::{AskFuture, Asked, late};
use crate::metrics::{SEARCH_FAILURES, SEARCH_SECONDS, SEARCHES};
use crate::steps::Steps;

/// How long a back end may take to notice that nobody waits any more.
const SLACK: Duration = Duration::from_millis(500);

/// What is asked for queries of one kind.
pub(crate) trait Answers: Send + Sync {
    /// As [`crate::asked::BackEnd::ask`], for queries of any kind.
    fn ask<'a>(&'a self, asked: Asked<'a>) -> AskFuture<'a>;
}

/// A search within bounds.
pub(crate) struct Limited<A> {
    inner: A,
    permits: Arc<Semaphore>,
    concurrency: u32,
    deadline: Duration,
}

impl<A: Answers> Limited<A> {
    /// Bounds `inner` as settings that were checked say.
    pub(crate) fn new(inner: A, config: &SearchConfig) -> Self {
        let concurrency = config.concurrency.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        let permits = Arc::new(Semaphore::new(concurrency));
        Self { inner, permits, concurrency: concurrency as u32, deadline: Duration::from_secs_f64(config.deadline_s) }
    }

    /// Searches, and writes down in `steps` what is done for it.
    pub(crate) async fn noted(&self, layer: u64, queries: &[Query], steps: &Steps) -> Vec<Outcome> {
        // Almost always there is one kind: a call of a tool is one.
        let kinds = queries.chunk_by(|one, next| one.tool() == next.tool());
        futures::future::join_all(kinds.map(|kind| self.within(layer, kind, steps))).await.concat()
    }

    /// Queries of one kind.
    async fn within(&self, layer: u64, queries: &[Query], steps: &Steps) -> Vec<Outcome> {
        let (start, tool) = (Instant::now(), queries[0].tool());
        let until = start + self.deadline;
        metrics::counter!(SEARCHES, "tool" => tool).increment(queries.len() as u64);
        let places = u32::try_from(queries.len()).unwrap_or(u32::MAX).min(self.concurrency);
        let permitted = async {
            let _permits = timeout_at(until, self.permits.acquire_many(places)).await.ok()?.ok()?;
            Some(self.inner.ask(Asked { layer, queries, until, steps }).await)
        };
        let outcomes = timeout_at(until + SLACK, permitted).await.ok().flatten().unwrap_or_else(|| late(queries));
        metrics::histogram!(SEARCH_SECONDS, "tool" => tool).record(start.elapsed().as_secs_f64());
        for error in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
            metrics::counter!(SEARCH_FAILURES, "tool" => tool, "reason" => error.fault.label()).increment(1);
            tracing::warn!(%error, "search failed");
        }
        outcomes
    }
}

impl<A: Answers> Search for Limited<A> {
    fn search<'a>(&'a self, layer: u64, queries: &'a [Query]) -> SearchFuture<'a> {
        Box::pin(async move { self.noted(layer, queries, &Steps::default()).await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypereyes_domain::Failure;
    use hypereyes_environment::Fault;
    use hypereyes_pictures::RgbImage;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Sleeps for as many milliseconds as the query says and notes how many sleep at once; pictures break it.
    #[derive(Default)]
    struct Slow {
        now: AtomicUsize,
        most: Arc<AtomicUsize>,
    }

    impl Answers for Slow {
        fn ask<'a>(&'a self, asked: Asked<'a>) -> AskFuture<'a> {
            let one = async |query: &Query| {
                let Query::Text(text) = query else { return Err(query.failed(Fault::Unavailable, "broken")) };
                self.most.fetch_max(self.now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(text.parse().expect("a number"))).await;
                self.now.fetch_sub(1, Ordering::SeqCst);
                Ok(Vec::new())
            };
            Box::pin(futures::future::join_all(asked.queries.iter().map(one)))
        }
    }

    fn limited(deadline_s: f64) -> (Limited<Slow>, Arc<AtomicUsize>) {
        let slow = Slow::default();
        let most = slow.most.clone();
        (Limited::new(slow, &SearchConfig { concurrency: 3, deadline_s, ..SearchConfig::default() }), most)
    }

    #[tokio::test]
    async fn no_more_than_allowed_run_at_once() {
        let (search, most) = limited(10.0);
        let (one, two) = ([Query::Text("5".into())], [Query::Text("5".into()), Query::Text("6".into())]);
        let lists = (0..10).map(|at| if at % 2 == 0 { &one[..] } else { &two[..] });
        let all = futures::future::join_all(lists.map(|list| search.search(0, list))).await;
        assert!(all.iter().flatten().all(Result::is_ok));
        assert_eq!((all.concat().len(), most.load(Ordering::SeqCst)), (15, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_search_is_a_timeout_and_a_broken_one_is_not() {
        let (search, _) = limited(0.02);
        let queries = [Query::Text("60000".into()), Query::Picture(Arc::new(RgbImage::new(1, 1))), Query::Text("1".into())];
        let outcomes = search.search(0, &queries).await;
        let faults: Vec<_> = outcomes.iter().map(|outcome| outcome.as_ref().err().map(|error| error.fault)).collect();
        assert_eq!(faults, [Some(Fault::Timeout), Some(Fault::Unavailable), None]);
        assert_eq!(outcomes[0].as_ref().expect_err("late").failure(), Failure::Timeout);
    }
}
