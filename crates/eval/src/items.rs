//! Where rollouts are kept while an evaluation is under way. In: rollouts that came to an end. Out: those of before. It knows no file:
//! who wants them durable implements [`Items`].

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use futures::future::{self, BoxFuture};
use hypereyes_domain::{Task, Trajectory};

use crate::item::{Item, Key};

/// A rollout that came to an end, on its way to where it is kept.
#[derive(Clone, Debug)]
pub struct Kept {
    /// All that counts.
    pub item: Item,
    /// The rollout itself; none where it never was, where another verdict on it is kept, and without tools.
    pub rollout: Option<(Task, Trajectory)>,
}

/// Keeps rollouts.
pub trait Items: Send + Sync {
    /// What was last kept of a rollout.
    fn known(&self, key: &Key) -> Option<Item>;

    /// Keeps one; once this is done the rollout is not asked again.
    ///
    /// # Errors
    /// Why it cannot be kept, in a sentence: the evaluation ends.
    fn keep(&self, kept: Kept) -> BoxFuture<'_, Result<(), String>>;
}

/// Keeps rollouts as long as the process lives.
#[derive(Debug, Default)]
pub struct InMemory {
    kept: Mutex<HashMap<Key, Kept>>,
    /// Whether the rollouts themselves are kept, which are large.
    with_rollouts: bool,
}

impl InMemory {
    /// Keeps the rollouts themselves, too, if somebody wants them.
    pub fn new(with_rollouts: bool) -> Self {
        Self { kept: Mutex::default(), with_rollouts }
    }

    /// Everything that was kept, in no order.
    pub fn into_kept(self) -> Vec<Kept> {
        self.kept.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect()
    }
}

impl Items for InMemory {
    fn known(&self, key: &Key) -> Option<Item> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(key).map(|kept| kept.item.clone())
    }

    fn keep(&self, mut kept: Kept) -> BoxFuture<'_, Result<(), String>> {
        if !self.with_rollouts {
            kept.rollout = None;
        }
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).insert(kept.item.key(), kept);
        Box::pin(future::ready(Ok(())))
    }
}
