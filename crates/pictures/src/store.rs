//! A bounded, content-addressed store of pictures, shared between threads. In: encoded bytes; out: decoded pictures by
//! name. The least recently used make room. Pictures that are only [lent](Store::lend) are found for as long as somebody holds them,
//! and take no room: a running episode never loses what it is about to show. Knows no disk and no network.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use hypereyes_domain::PictureId;
use lru::LruCache;
use parking_lot::Mutex;

use crate::decode::{Limits, Picture, PictureError, picture_id};
use crate::metrics::{EVICTIONS, REFUSED, STORED_BYTES};

/// Why a picture was not stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It is no acceptable picture.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// It alone is larger than the store.
    #[error("picture of {bytes} bytes (encoded and decoded) does not fit into a store of {capacity}; raise the store's capacity")]
    Capacity {
        /// What it would take.
        bytes: usize,
        /// What the store may hold.
        capacity: usize,
    },
}

/// Pictures by name, within a number of bytes.
pub struct Store {
    capacity: usize,
    limits: Limits,
    inner: Mutex<Inner>,
}

struct Inner {
    /// Bounded by bytes, not by number.
    pictures: LruCache<PictureId, Arc<Picture>>,
    bytes: usize,
    evicted: u64,
    /// Pictures that others hold.
    lent: HashMap<PictureId, Weak<Picture>>,
    /// Names in `lent` at which those that nobody holds any more are taken out.
    sweep_at: usize,
}

/// Fewest names of lent pictures worth a sweep.
const LEAST_SWEPT: usize = 64;

impl Store {
    /// An empty store for `capacity` bytes, encoded and decoded together.
    pub fn new(capacity: usize, limits: Limits) -> Self {
        let inner = Inner { pictures: LruCache::unbounded(), bytes: 0, evicted: 0, lent: HashMap::new(), sweep_at: 0 };
        Self { capacity, limits, inner: Mutex::new(inner) }
    }

    /// Decodes, checks and keeps a picture; its name is computed here, never taken from the sender. A known one is only
    /// marked as used.
    pub fn put(&self, bytes: impl Into<Bytes>) -> Result<PictureId, StoreError> {
        let bytes = bytes.into();
        let id = picture_id(&bytes);
        if self.inner.lock().pictures.get(&id).is_none() {
            // Decoding happens outside the lock: two threads may decode the same picture, none waits for another's.
            self.insert(Picture::from_bytes(bytes, &self.limits)?)?;
        }
        Ok(id)
    }

    /// Keeps a picture that is decoded already.
    pub fn insert(&self, picture: Picture) -> Result<PictureId, StoreError> {
        let (id, cost) = (picture.id.clone(), cost(&picture));
        if cost > self.capacity {
            metrics::counter!(REFUSED, "reason" => "capacity").increment(1);
            return Err(StoreError::Capacity { bytes: cost, capacity: self.capacity });
        }
        let mut inner = self.inner.lock();
        if inner.pictures.get(&id).is_none() {
            let evicted = inner.make_room(self.capacity - cost);
            metrics::counter!(EVICTIONS).increment(evicted);
            inner.bytes += cost;
            inner.pictures.put(id.clone(), Arc::new(picture));
            metrics::gauge!(STORED_BYTES).set(inner.bytes as f64);
        }
        Ok(id)
    }

    /// Lets others find a picture while its owner holds what this returns: the same picture, or an equal one that was here before,
    /// so that all who show it share one. It takes no room and drives nothing out.
    #[must_use = "who lends a picture must hold it"]
    pub fn lend(&self, picture: impl Into<Arc<Picture>>) -> Arc<Picture> {
        let picture = picture.into();
        let mut inner = self.inner.lock();
        let known = inner.pictures.peek(&picture.id).cloned().or_else(|| inner.held(&picture.id));
        let picture = known.unwrap_or(picture);
        if inner.lent.len() >= inner.sweep_at.max(LEAST_SWEPT) {
            inner.lent.retain(|_, held| held.strong_count() > 0);
            inner.sweep_at = 2 * inner.lent.len();
        }
        inner.lent.insert(picture.id.clone(), Arc::downgrade(&picture));
        picture
    }

    /// The picture, marked as just used; one that is only lent as well.
    pub fn get(&self, id: &PictureId) -> Option<Arc<Picture>> {
        let mut inner = self.inner.lock();
        inner.pictures.get(id).cloned().or_else(|| inner.held(id))
    }

    /// Those of `ids` that are not here, each once, in order.
    pub fn missing(&self, ids: &[PictureId]) -> Vec<PictureId> {
        let inner = self.inner.lock();
        let mut missing: Vec<PictureId> = Vec::new();
        for id in ids {
            if !inner.pictures.contains(id) && inner.held(id).is_none() && !missing.contains(id) {
                missing.push(id.clone());
            }
        }
        missing
    }

    /// Bytes held, encoded and decoded.
    pub fn bytes(&self) -> usize {
        self.inner.lock().bytes
    }

    /// Pictures held.
    pub fn len(&self) -> usize {
        self.inner.lock().pictures.len()
    }

    /// True when nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Pictures dropped so far to make room.
    pub fn evicted(&self) -> u64 {
        self.inner.lock().evicted
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("capacity", &self.capacity).field("pictures", &self.len()).finish_non_exhaustive()
    }
}

impl Inner {
    /// A lent picture that somebody still holds.
    fn held(&self, id: &PictureId) -> Option<Arc<Picture>> {
        self.lent.get(id).and_then(Weak::upgrade)
    }

    fn make_room(&mut self, most: usize) -> u64 {
        let mut evicted = 0;
        while self.bytes > most {
            let Some((_, picture)) = self.pictures.pop_lru() else { break };
            self.bytes -= cost(&picture);
            evicted += 1;
        }
        self.evicted += evicted;
        evicted
    }
}

fn cost(picture: &Picture) -> usize {
    picture.bytes.len() + picture.image.as_raw().len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::encode_png;
    use image::{Rgb, RgbImage};

    fn png(shade: u8) -> Bytes {
        encode_png(&RgbImage::from_pixel(20, 20, Rgb([shade; 3]))).expect("encodes")
    }

    #[test]
    fn the_least_recently_used_goes_and_is_counted() {
        let one = png(1).len() + 1200;
        let store = Store::new(one * 2 + 20, Limits::default());
        let ids: Vec<_> = [1, 2].map(|shade| store.put(png(shade)).expect("fits")).into();
        assert!(store.get(&ids[0]).is_some());
        let third = store.put(png(3)).expect("fits");
        assert_eq!(store.missing(&[ids[0].clone(), ids[1].clone(), ids[1].clone(), third]), [ids[1].clone()]);
        assert_eq!((store.len(), store.evicted()), (2, 1));
        assert!(store.bytes() <= one * 2 + 20);
    }

    #[test]
    fn the_same_picture_is_kept_once() {
        let store = Store::new(1 << 20, Limits::default());
        let first = store.put(png(7)).expect("fits");
        let bytes = store.bytes();
        assert_eq!((store.put(png(7)).expect("fits"), store.bytes()), (first, bytes));
    }

    #[test]
    fn what_cannot_fit_or_is_no_picture_is_refused() {
        let store = Store::new(100, Limits::default());
        assert!(matches!(store.put(png(1)), Err(StoreError::Capacity { capacity: 100, .. })));
        assert!(matches!(store.put(&b"text"[..]), Err(StoreError::Picture(PictureError::Format))));
        assert!(store.is_empty());
    }

    #[test]
    fn what_is_lent_is_found_while_it_is_held_and_takes_no_room() {
        let store = Store::new(100, Limits::default());
        let picture = |shade| Picture::from_bytes(png(shade), &Limits::default()).expect("sound");
        let held = store.lend(picture(1));
        let again = store.lend(picture(1));
        assert!(Arc::ptr_eq(&held, &again), "siblings share one");
        drop(held);
        assert_eq!(store.get(&again.id).expect("one still holds it").bytes, again.bytes);
        assert!(store.is_empty() && store.bytes() == 0 && store.missing(std::slice::from_ref(&again.id)).is_empty());
        let id = again.id.clone();
        drop(again);
        assert!(store.get(&id).is_none());
        // Names of pictures that are gone do not pile up.
        for shade in 0..=255 {
            let _ = store.lend(picture(shade));
        }
        assert!(store.inner.lock().lent.len() <= LEAST_SWEPT);
    }

    #[test]
    fn threads_share_it_within_its_bound() {
        let store = Store::new(20_000, Limits::default());
        std::thread::scope(|scope| {
            for offset in 0..4_u8 {
                let store = &store;
                scope.spawn(move || {
                    for shade in 0..60_u8 {
                        let id = store.put(png(shade.wrapping_mul(offset + 1))).expect("fits");
                        let _ = store.get(&id);
                    }
                });
            }
        });
        assert!(store.bytes() <= 20_000 && store.evicted() > 0);
    }
}
