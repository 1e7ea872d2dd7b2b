//! The newest snapshots of a learner, for many readers. In: snapshots. Out: the newest, a watch on it, those before it within
//! a bound, and the differences between them. There is always a newest: the learner starts with one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use hypereyes_domain::PolicyVersion;
use hypereyes_policy::checkpoint::{Snapshot, StoredDtype};
use metrics::{counter, gauge};
use tokio::sync::watch;

use crate::Digest;
use crate::difference::Difference;
use crate::metrics::{DROPPED, NEWEST, PUBLISHED};

/// A published version by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its number.
    pub version: PolicyVersion,
    /// BLAKE3 of its payload. With a learner that went back to a checkpoint the same number may name other weights.
    pub digest: Digest,
    /// Which incarnation of the learner published it: numbers are in order within one incarnation only.
    pub incarnation: u32,
    /// How its values are written; nothing where the learner does not say.
    pub dtype: Option<StoredDtype>,
}

impl Published {
    /// A snapshot of an incarnation.
    pub fn of(snapshot: &Snapshot, incarnation: u32) -> Self {
        Self { version: snapshot.version, digest: snapshot.digest, incarnation, dtype: Some(snapshot.dtype()) }
    }

    /// Whether whoever holds this may sample for a lease of `incarnation` that asks for `version`.
    pub fn serves(&self, version: PolicyVersion, incarnation: u32) -> bool {
        self.incarnation == incarnation && self.version >= version
    }
}

/// Holds and announces snapshots. Clones are one and the same.
#[derive(Clone, Debug)]
pub struct Publisher {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    keep: usize,
    incarnation: u32,
    held: Mutex<Held>,
    newest: watch::Sender<Published>,
}

#[derive(Debug)]
struct Held {
    /// Oldest first; never empty.
    snapshots: VecDeque<Arc<Snapshot>>,
    /// Between those, as readers have asked for them.
    differences: Vec<Arc<Difference>>,
}

impl Held {
    fn of_digest(&self, digest: Digest) -> Option<&Arc<Snapshot>> {
        self.snapshots.iter().find(|snapshot| snapshot.digest == digest)
    }

    /// Drops differences of which an end is not held any more.
    fn forget_differences(&mut self) {
        let Self { snapshots, differences } = self;
        let held = |digest: Digest| snapshots.iter().any(|snapshot| snapshot.digest == digest);
        differences.retain(|one| {
            let (base, snapshot) = one.ends();
            held(base) && held(snapshot)
        });
    }
}

impl Publisher {
    /// Announces `first` and holds the newest `keep` snapshots (at least one). Two are enough: a reader that was told of a
    /// version finds it even if the next is published meanwhile; streams under way keep what they serve.
    /// `incarnation` is another number at each start of the learner.
    pub fn new(first: Snapshot, keep: usize, incarnation: u32) -> Self {
        counter!(PUBLISHED).increment(1);
        gauge!(NEWEST).set(first.version.0 as f64);
        let newest = watch::Sender::new(Published::of(&first, incarnation));
        let held = Mutex::new(Held { snapshots: [Arc::new(first)].into(), differences: vec![] });
        Self { inner: Arc::new(Inner { keep: keep.max(1), incarnation, held, newest }) }
    }

    /// Makes `snapshot` the newest. One of the same version is replaced.
    pub fn publish(&self, snapshot: Snapshot) {
        let published = Published::of(&snapshot, self.inner.incarnation);
        {
            let mut held = self.held();
            held.snapshots.retain(|old| old.version != snapshot.version);
            held.snapshots.push_back(Arc::new(snapshot));
            while held.snapshots.len() > self.inner.keep {
                held.snapshots.pop_front();
                counter!(DROPPED).increment(1);
            }
            held.forget_differences();
            // Inside the lock, so that two publishers announce in the order in which they are held.
            self.inner.newest.send_replace(published);
        }
        counter!(PUBLISHED).increment(1);
        gauge!(NEWEST).set(published.version.0 as f64);
        tracing::debug!(version = published.version.0, digest = %published.digest, "published");
    }

    /// The newest.
    pub fn newest(&self) -> Arc<Snapshot> {
        self.held().snapshots.back().expect("it starts with one and keeps at least one").clone()
    }

    /// A version that is still held.
    pub fn get(&self, version: PolicyVersion) -> Option<Arc<Snapshot>> {
        self.held().snapshots.iter().find(|snapshot| snapshot.version == version).cloned()
    }

    /// The incarnation of its owner.
    pub fn incarnation(&self) -> u32 {
        self.inner.incarnation
    }

    /// What turns a payload that is still held into `snapshot`: one and the same for all readers.
    pub(crate) fn difference(&self, base: Digest, snapshot: &Arc<Snapshot>) -> Option<Arc<Difference>> {
        let mut held = self.held();
        if let Some(known) = held.differences.iter().find(|one| one.ends() == (base, snapshot.digest)) {
            return Some(known.clone());
        }
        let base = held.of_digest(base)?.clone();
        let made = Arc::new(Difference::between(base, snapshot.clone())?);
        held.differences.push(made.clone());
        Some(made)
    }

    /// The newest by name, now and whenever it changes; a slow reader misses versions in between, never the last.
    pub fn subscribe(&self) -> watch::Receiver<Published> {
        self.inner.newest.subscribe()
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.inner.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypereyes_policy::checkpoint::{HostTensor, HostWeights};

    fn snapshot(version: u64, value: f32) -> Snapshot {
        let tensor = HostTensor { shape: vec![1], values: vec![value] };
        Snapshot::new(&HostWeights::from([("w".to_owned(), tensor)]), PolicyVersion(version))
    }

    #[tokio::test]
    async fn readers_see_the_last_and_may_miss_what_was_between() {
        let publisher = Publisher::new(snapshot(0, 0.0), 2, 5);
        let mut reader = publisher.subscribe();
        assert_eq!(reader.borrow_and_update().version, PolicyVersion(0));
        for version in 1..=5 {
            publisher.publish(snapshot(version, version as f32));
        }
        reader.changed().await.expect("the publisher lives");
        assert_eq!(*reader.borrow_and_update(), Published::of(publisher.newest().as_ref(), 5));
        assert_eq!(publisher.newest().version, PolicyVersion(5));
        assert!(!reader.has_changed().expect("the publisher lives"));
    }

    #[test]
    fn readers_with_the_same_base_share_a_difference_for_as_long_as_both_ends_are_held() {
        let publisher = Publisher::new(snapshot(0, 0.0), 2, 5);
        let base = publisher.newest().digest;
        publisher.publish(snapshot(1, 1.0));
        let newest = publisher.newest();
        let first = publisher.difference(base, &newest).expect("both are held");
        assert!(Arc::ptr_eq(&first, &publisher.difference(base, &newest).expect("still")));
        assert!(publisher.difference(snapshot(9, 9.0).digest, &newest).is_none(), "never published");
        publisher.publish(snapshot(2, 2.0));
        assert!(publisher.difference(base, &publisher.newest()).is_none(), "the base is gone");
        assert_eq!(Arc::strong_count(&first), 1, "and with it what was kept for its readers");
    }

    #[test]
    fn only_the_newest_are_held_and_a_version_is_held_once() {
        let publisher = Publisher::new(snapshot(0, 0.0), 2, 5);
        publisher.publish(snapshot(1, 1.0));
        publisher.publish(snapshot(1, 1.5));
        assert_eq!(publisher.get(PolicyVersion(1)), Some(Arc::new(snapshot(1, 1.5))));
        publisher.publish(snapshot(2, 2.0));
        assert_eq!(publisher.get(PolicyVersion(0)), None);
        assert!(publisher.get(PolicyVersion(1)).is_some());
    }
}
