//! Pictures as one model reads them, kept so that siblings and later groups share them. In: decoded pictures. Out: patches
//! behind one `Arc` per picture, which is what lets a pass encode each picture once. Bounded; the oldest make room.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use hypereyes_domain::{Patches, PictureId};
use hypereyes_pictures::{Processor, RgbImage};
use metrics::counter;

use crate::metrics::{PATCHES, PATCHES_DROPPED};

/// Patches by picture, within a number of bytes.
#[derive(Debug)]
pub struct PatchCache {
    processor: Processor,
    capacity: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    held: HashMap<PictureId, Arc<Patches>>,
    /// Oldest first.
    order: VecDeque<PictureId>,
    bytes: usize,
}

impl PatchCache {
    /// An empty cache for `capacity` bytes. A picture that alone is larger is made, used and not kept.
    pub fn new(processor: Processor, capacity: usize) -> Self {
        Self { processor, capacity, inner: Mutex::default() }
    }

    /// The patches, if they are here.
    pub fn get(&self, id: &PictureId) -> Option<Arc<Patches>> {
        let found = self.lock().held.get(id).cloned();
        counter!(PATCHES, "outcome" => "hit").increment(u64::from(found.is_some()));
        found
    }

    /// Cuts a picture. When another caller was faster, both get the same `Arc`.
    pub fn make(&self, id: &PictureId, image: &RgbImage) -> Arc<Patches> {
        // Outside the lock: cutting takes milliseconds.
        let made = Arc::new(self.processor.patches(image));
        counter!(PATCHES, "outcome" => "made").increment(1);
        let cost = cost(&made);
        let mut inner = self.lock();
        if let Some(known) = inner.held.get(id) {
            return known.clone();
        }
        if cost <= self.capacity {
            while inner.bytes + cost > self.capacity {
                let Some(oldest) = inner.order.pop_front() else { break };
                if let Some(gone) = inner.held.remove(&oldest) {
                    inner.bytes -= self::cost(&gone);
                    counter!(PATCHES_DROPPED).increment(1);
                }
            }
            inner.bytes += cost;
            inner.order.push_back(id.clone());
            inner.held.insert(id.clone(), made.clone());
        }
        made
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cost(patches: &Patches) -> usize {
    patches.values.len() * size_of::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn siblings_share_and_the_oldest_make_room() {
        let processor = Processor::default();
        let image = RgbImage::new(64, 64);
        let one = cost(&processor.patches(&image));
        let cache = PatchCache::new(processor, 2 * one);
        let ids = ["a", "b", "c"].map(PictureId::from);
        let first = cache.make(&ids[0], &image);
        assert!(Arc::ptr_eq(&first, &cache.make(&ids[0], &image)));
        cache.make(&ids[1], &image);
        cache.make(&ids[2], &image);
        assert!(cache.get(&ids[0]).is_none() && cache.get(&ids[1]).is_some() && cache.get(&ids[2]).is_some());
        let small = PatchCache::new(Processor::default(), one - 1);
        small.make(&ids[0], &image);
        assert!(small.get(&ids[0]).is_none());
    }
}
