//! Pictures as one model reads them, kept so that siblings and later groups share them. In: decoded pictures. Out: patches
//! behind one `Arc` per picture, which is what lets a pass encode each picture once. Bounded; the least recently used make room. Whoever has a
//! vision tower has one: engine, learner, teacher. Knows neither tower nor store.

use std::sync::Arc;

use hypereyes_domain::PictureId;
use image::RgbImage;
use lru::LruCache;
use metrics::counter;
use parking_lot::Mutex;

use crate::metrics::{PATCHES, PATCHES_DROPPED};
use crate::{Patches, Processor};

/// Patches by picture, within a number of bytes.
#[derive(Debug)]
pub struct PatchCache {
    processor: Processor,
    capacity: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Bounded by bytes, not by number.
    held: LruCache<PictureId, Arc<Patches>>,
    bytes: usize,
}

impl PatchCache {
    /// An empty cache for `capacity` bytes. A picture that alone is larger is made, used and not kept.
    pub fn new(processor: Processor, capacity: usize) -> Self {
        Self { processor, capacity, inner: Mutex::new(Inner { held: LruCache::unbounded(), bytes: 0 }) }
    }

    /// How pictures are cut.
    pub fn processor(&self) -> &Processor {
        &self.processor
    }

    /// The patches, if they are here.
    pub fn get(&self, id: &PictureId) -> Option<Arc<Patches>> {
        let found = self.inner.lock().held.get(id).cloned();
        counter!(PATCHES, "outcome" => "hit").increment(u64::from(found.is_some()));
        found
    }

    /// Whether they are here; nobody has used them yet.
    pub fn holds(&self, id: &PictureId) -> bool {
        self.inner.lock().held.contains(id)
    }

    /// The patches of a picture; `find` is asked for its pixels only if they are not here.
    ///
    /// # Errors
    /// That of `find`.
    pub fn of<E>(&self, id: &PictureId, find: impl FnOnce() -> Result<Arc<RgbImage>, E>) -> Result<Arc<Patches>, E> {
        match self.get(id) {
            Some(patches) => Ok(patches),
            None => Ok(self.make(id, &*find()?)),
        }
    }

    /// Cuts a picture, which takes milliseconds. When another caller was faster, both get the same `Arc`.
    pub fn make(&self, id: &PictureId, image: &RgbImage) -> Arc<Patches> {
        // Outside the lock: nobody waits for another's picture.
        let made = self.processor.patches(image);
        counter!(PATCHES, "outcome" => "made").increment(1);
        self.put(id, made)
    }

    /// Keeps patches that were cut elsewhere.
    pub fn put(&self, id: &PictureId, made: Patches) -> Arc<Patches> {
        let made = Arc::new(made);
        let cost = cost(&made);
        let mut inner = self.inner.lock();
        if let Some(known) = inner.held.get(id) {
            return known.clone();
        }
        if cost <= self.capacity {
            while inner.bytes + cost > self.capacity {
                let Some((_, gone)) = inner.held.pop_lru() else { break };
                inner.bytes -= self::cost(&gone);
                counter!(PATCHES_DROPPED).increment(1);
            }
            inner.bytes += cost;
            inner.held.put(id.clone(), made.clone());
        }
        made
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.inner.lock().bytes
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
        assert_eq!(cache.bytes(), 2 * one);
        let small = PatchCache::new(Processor::default(), one - 1);
        small.make(&ids[0], &image);
        assert!(small.get(&ids[0]).is_none());
    }

    #[test]
    fn pixels_are_asked_for_once_and_their_absence_is_the_callers_error() {
        let cache = PatchCache::new(Processor::default(), 1 << 20);
        let id = PictureId::from("a");
        assert_eq!(cache.of(&id, || Err("gone")), Err("gone"));
        let first = cache.of(&id, || Ok::<_, &str>(Arc::new(RgbImage::new(64, 64)))).expect("found");
        assert!(Arc::ptr_eq(&first, &cache.of(&id, || Err("asked again")).expect("held")));
    }
}
