//! The searches of one episode, as they were answered. In: the port of searching. Out: the same port, whose answers are kept in their
//! order; and afterwards a port that gives them again to whoever asks the same. It knows no turn and no service.
//!
//! An explorer that speaks text is shown what it finds in its own limits. What the policy is taught is shown in the policy's: the same
//! answers, asked for once and paid for once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hypereyes_environment::{Fault, Outcome, Query, Search, SearchFuture};
use parking_lot::Mutex;

/// Queries that were asked together, and what came of each.
struct Asked {
    queries: Vec<Query>,
    outcomes: Vec<Outcome>,
}

/// A port that keeps what is asked and answered.
pub struct Tape {
    search: Arc<dyn Search>,
    asked: Mutex<VecDeque<Asked>>,
}

impl Tape {
    /// Of searches that go there.
    pub fn of(search: Arc<dyn Search>) -> Self {
        Self { search, asked: Mutex::default() }
    }

    /// What was kept, to be given again once.
    pub fn replay(&self) -> Replay {
        Replay { asked: Mutex::new(std::mem::take(&mut *self.asked.lock())), strayed: AtomicBool::new(false) }
    }
}

impl Search for Tape {
    fn search<'a>(&'a self, layer: u64, queries: &'a [Query]) -> SearchFuture<'a> {
        Box::pin(async move {
            let outcomes = self.search.search(layer, queries).await;
            self.asked.lock().push_back(Asked { queries: queries.to_vec(), outcomes: outcomes.clone() });
            outcomes
        })
    }
}

/// A port that gives what a [`Tape`] kept, in its order.
pub struct Replay {
    asked: Mutex<VecDeque<Asked>>,
    strayed: AtomicBool,
}

impl Replay {
    /// Whether something else was asked than what was kept.
    pub fn strayed(&self) -> bool {
        self.strayed.load(Ordering::Acquire)
    }
}

impl Search for Replay {
    fn search<'a>(&'a self, _: u64, queries: &'a [Query]) -> SearchFuture<'a> {
        let next = self.asked.lock().pop_front();
        let outcomes = match next {
            Some(Asked { queries: kept, outcomes }) if kept == queries => outcomes,
            _ => {
                self.strayed.store(true, Ordering::Release);
                queries.iter().map(|query| Err(query.failed(Fault::Miss, "the explorer did not ask for it"))).collect()
            }
        };
        Box::pin(async move { outcomes })
    }
}

#[cfg(test)]
mod tests {
    use hypereyes_environment::Hit;

    use super::*;

    /// Finds what it is asked for, numbered.
    #[derive(Default)]
    struct Counting(Mutex<usize>);

    impl Search for Counting {
        fn search<'a>(&'a self, _: u64, queries: &'a [Query]) -> SearchFuture<'a> {
            let mut count = self.0.lock();
            let hit = |_: &Query| {
                *count += 1;
                Ok(vec![Hit { title: format!("hit {count}"), ..Hit::default() }])
            };
            let outcomes: Vec<Outcome> = queries.iter().map(hit).collect();
            Box::pin(async move { outcomes })
        }
    }

    #[tokio::test]
    async fn answers_come_again_in_their_order_and_nothing_else_does() {
        let tape = Tape::of(Arc::new(Counting::default()));
        let [one, two] = ["a", "b"].map(|text| [Query::Text(text.into())]);
        let first = [tape.search(1, &one).await, tape.search(1, &one).await, tape.search(1, &two).await];
        assert_ne!(first[0], first[1], "the same query was answered twice, in two ways");
        let replay = tape.replay();
        let again = [replay.search(1, &one).await, replay.search(1, &one).await, replay.search(1, &two).await];
        assert_eq!((first, replay.strayed()), (again, false));
        let more = replay.search(1, &one).await;
        assert!(more[0].as_ref().is_err_and(|error| error.fault == Fault::Miss) && replay.strayed());
        let tape = Tape::of(Arc::new(Counting::default()));
        tape.search(1, &one).await;
        let replay = tape.replay();
        assert!(replay.search(1, &two).await[0].is_err() && replay.strayed(), "another query than the one that was kept");
    }
}
