//! A bounded, content-addressed store of pictures, shared between threads. In: encoded bytes; out: decoded pictures by
//! name. The least recently used make room. Knows no disk and no network.

use std::sync::Arc;

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
}

impl Store {
    /// An empty store for `capacity` bytes, encoded and decoded together.
    pub fn new(capacity: usize, limits: Limits) -> Self {
        Self { capacity, limits, inner: Mutex::new(Inner { pictures: LruCache::unbounded(), bytes: 0, evicted: 0 }) }
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

    /// The picture, marked as just used.
    pub fn get(&self, id: &PictureId) -> Option<Arc<Picture>> {
        self.inner.lock().pictures.get(id).cloned()
    }

    /// Those of `ids` that are not here, each once, in order.
    pub fn missing(&self, ids: &[PictureId]) -> Vec<PictureId> {
        let inner = self.inner.lock();
        let mut missing: Vec<PictureId> = Vec::new();
        for id in ids {
            if !inner.pictures.contains(id) && !missing.contains(id) {
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

impl Inner {
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
