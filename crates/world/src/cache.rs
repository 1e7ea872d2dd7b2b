//! A bounded cache whose values are made once, however many ask at the same moment. Knows nothing of its values.

use std::hash::Hash;
use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock};

use lru::LruCache;
use parking_lot::Mutex;

use crate::metrics::EVICTIONS;

/// Values by key, which is a seed unless it is said otherwise; the least recently used make room.
pub struct Cache<V, K: Hash + Eq = u64> {
    /// The `what` label of the eviction counter.
    what: &'static str,
    slots: Mutex<LruCache<K, Slot<V>>>,
}

/// A value that the first who needs it makes.
type Slot<V> = Arc<OnceLock<V>>;

impl<V: Clone, K: Hash + Eq> Cache<V, K> {
    /// An empty cache for `capacity` values, at least one; `what` labels its evictions.
    pub fn new(capacity: usize, what: &'static str) -> Self {
        Self { what, slots: Mutex::new(LruCache::new(NonZeroUsize::new(capacity).unwrap_or(NonZeroUsize::MIN))) }
    }

    /// The value if it has been made; never makes or waits.
    pub fn ready(&self, key: &K) -> Option<V> {
        self.slots.lock().peek(key)?.get().cloned()
    }

    /// The value; made by one caller outside the lock, awaited by the others that want the same one.
    pub fn get(&self, key: K, make: impl FnOnce() -> V) -> V {
        let slot = self.slot(key);
        slot.get_or_init(make).clone()
    }

    fn slot(&self, key: K) -> Slot<V> {
        let mut slots = self.slots.lock();
        if let Some(known) = slots.get(&key) {
            return known.clone();
        }
        let slot = Slot::default();
        if slots.push(key, slot.clone()).is_some() {
            metrics::counter!(EVICTIONS, "what" => self.what).increment(1);
        }
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn a_value_is_made_once_while_it_is_kept() {
        let cache = Cache::new(2, "layer");
        let made = AtomicUsize::new(0);
        let get = |seed| cache.get(seed, || made.fetch_add(1, Ordering::Relaxed));
        std::thread::scope(|scope| (0..8).for_each(|_| drop(scope.spawn(|| get(1)))));
        assert_eq!(made.load(Ordering::Relaxed), 1);
        let _ = (get(2), get(1), get(3));
        assert!(cache.ready(&1).is_some() && cache.ready(&2).is_none());
        assert_eq!(made.load(Ordering::Relaxed), 3);
    }
}
