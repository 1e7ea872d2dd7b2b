//! Who is asked when somebody fails. In: back ends in order. Out: what the first gives that can. It is never silent: each time is counted
//! and said, since another service answers other things.

use hypereyes_environment::{Fault, Outcome, Query};
use tokio::time::Instant;

use crate::asked::{AskFuture, Asked, BackEnd};
use crate::limited::Answers;
use crate::metrics::FELL_BACK;

/// One side of searching: back ends, the first of which is asked first.
pub(crate) struct InOrder(pub(crate) Vec<Box<dyn BackEnd>>);

/// Whether another service may give what this one does not. What is refused is wrong with the query or the key, and a miss is of a replay.
fn goes_on(outcome: &Outcome) -> bool {
    let passes = |fault| matches!(fault, Fault::RateLimited | Fault::Quota | Fault::Unavailable | Fault::Timeout);
    outcome.as_ref().is_err_and(|error| passes(error.fault))
}

impl Answers for InOrder {
    fn ask<'a>(&'a self, asked: Asked<'a>) -> AskFuture<'a> {
        Box::pin(async move {
            let Asked { queries, until, .. } = asked;
            let able: Vec<&dyn BackEnd> = self.0.iter().map(|back_end| &**back_end).filter(|one| one.can(&queries[0])).collect();
            let nobody = |query: &Query| {
                Err(query.failed(Fault::Refused, "no back end of search.text reads pages, and search.page names none (docs/search.md)"))
            };
            let mut outcomes: Vec<Outcome> = queries.iter().map(nobody).collect();
            for (place, back_end) in able.iter().enumerate() {
                let open: Vec<usize> = (0..queries.len()).filter(|at| place == 0 || goes_on(&outcomes[*at])).collect();
                let now = Instant::now();
                if open.is_empty() || (place > 0 && now >= until) {
                    break;
                }
                if place > 0 {
                    let (from, to) = (able[place - 1].name(), back_end.name());
                    metrics::counter!(FELL_BACK, "from" => from, "to" => to).increment(open.len() as u64);
                    tracing::warn!(from, to, queries = open.len(), "searches fall back to another service");
                }
                let these: Vec<Query> = open.iter().map(|at| queries[*at].clone()).collect();
                // Whoever comes after has a share of the time.
                let share = until.saturating_duration_since(now) / (able.len() - place) as u32;
                let found = back_end.ask(Asked { queries: &these, until: now + share, ..asked }).await;
                for (at, outcome) in open.into_iter().zip(found) {
                    // Of several failures the first one's reason is the one to mend.
                    if place == 0 || outcome.is_ok() {
                        outcomes[at] = outcome;
                    }
                }
            }
            outcomes
        })
    }
}
