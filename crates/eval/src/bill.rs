//! What searches of a rollout cost. In: requests and dollars, told by whoever searches. Out: the sum of one rollout.
//!
//! A rollout does not know who searches for it, and a search does not know for whom. Both run in one future: what is charged while that
//! is polled is this rollout's.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

tokio::task_local! {
    /// Of the rollout that is being played.
    static BILL: Arc<Mutex<Spent>>;
}

/// What was spent; absent where nobody told.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spent {
    /// Requests to services.
    pub requests: Option<u64>,
    /// Dollars.
    pub usd: Option<f64>,
}

impl Spent {
    /// With another's on top.
    pub fn and(self, other: Self) -> Self {
        let requests = [self.requests, other.requests].into_iter().flatten();
        let usd = [self.usd, other.usd].into_iter().flatten();
        Self { requests: requests.reduce(|a, b| a + b), usd: usd.reduce(|a, b| a + b) }
    }
}

/// Charges whoever is being played; nobody where none is.
pub fn charge(spent: Spent) {
    let _ = BILL.try_with(|bill| {
        // Nothing inside panics.
        let mut bill = bill.lock().unwrap_or_else(PoisonError::into_inner);
        *bill = bill.and(spent);
    });
}

/// Plays something, and tells what it was charged on top of `nothing`: zeros where what is spent is known, even if nothing is.
pub(crate) async fn billed<F: Future>(nothing: Spent, play: F) -> (F::Output, Spent) {
    let bill = Arc::new(Mutex::new(nothing));
    let played = BILL.scope(bill.clone(), play).await;
    let spent = *bill.lock().unwrap_or_else(PoisonError::into_inner);
    (played, spent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everybody_pays_for_himself() {
        let one = |requests: u64, usd: Option<f64>| async move {
            for _ in 0..requests {
                tokio::task::yield_now().await;
                charge(Spent { requests: Some(1), usd });
            }
            requests
        };
        let (first, second) = tokio::join!(billed(Spent::default(), one(3, Some(0.5))), billed(Spent::default(), one(2, None)));
        assert_eq!(first, (3, Spent { requests: Some(3), usd: Some(1.5) }));
        assert_eq!(second, (2, Spent { requests: Some(2), usd: None }));
        assert_eq!(billed(Spent::default(), async {}).await.1, Spent::default());
        let free = Spent { requests: Some(0), usd: None };
        assert_eq!(billed(free, async {}).await.1, free);
        charge(Spent { requests: Some(1), usd: None });
    }
}
