//! Encoded pictures by name, within a number of bytes, for whoever reads them once and later. In: pictures that were decoded and
//! found sound, each with who sent it. Out: their bytes and sizes. Those that somebody needs ([`Shelf::pin`]) stay whatever comes;
//! of the others the sender with the most makes room, the least recently used first: a flood drives out its own.
//! Knows no disk and no network.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use hypereyes_domain::PictureId;
use parking_lot::Mutex;

use crate::decode::Picture;
use crate::metrics::{EVICTIONS, PINNED_BYTES, REFUSED, STORED_BYTES};

/// Why a picture was not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShelfError {
    /// It alone is larger than all there is.
    #[error("a picture of {bytes} bytes does not fit into a store of {capacity}; raise the store's capacity")]
    Capacity {
        /// What it would take.
        bytes: usize,
        /// What may be held.
        capacity: usize,
    },
    /// Pictures that are needed fill it; later there is room again.
    #[error(
        "pictures of groups that wait to be trained take {pinned} of {capacity} bytes, so that {bytes} more have no room; try again later"
    )]
    Full {
        /// What it would take.
        bytes: usize,
        /// What pinned pictures take.
        pinned: usize,
        /// What may be held.
        capacity: usize,
    },
}

/// A picture as it is kept. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// As encoded by whoever made it.
    pub bytes: Bytes,
    /// Width and height in pixels, as decoded.
    pub size: (u32, u32),
}

/// Pictures by name, within a number of bytes.
pub struct Shelf {
    capacity: usize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    entries: HashMap<PictureId, Entry>,
    /// Those that nobody needs, by who sent them.
    loose: BTreeMap<Arc<str>, Loose>,
    clock: u64,
    bytes: usize,
    pinned: usize,
    evicted: u64,
}

/// What one sender has that nobody needs (yet).
#[derive(Default)]
struct Loose {
    bytes: usize,
    /// Time of last use to name; the first is the next to go.
    by_use: BTreeMap<u64, PictureId>,
}

struct Entry {
    kept: Kept,
    owner: Arc<str>,
    used: u64,
    pins: usize,
}

impl Shelf {
    /// An empty one for `capacity` encoded bytes.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, inner: Mutex::new(Inner::default()) }
    }

    /// Keeps a picture that `owner` sent; true where it is new. Its name is that of its bytes, as [`Picture::from_bytes`] computed it.
    ///
    /// # Errors
    /// [`ShelfError`]; then nothing was driven out.
    pub fn put(&self, owner: &str, picture: &Picture) -> Result<bool, ShelfError> {
        let cost = picture.bytes.len();
        let refused = |error: ShelfError| {
            metrics::counter!(REFUSED, "reason" => "capacity").increment(1);
            Err(error)
        };
        if cost > self.capacity {
            return refused(ShelfError::Capacity { bytes: cost, capacity: self.capacity });
        }
        let mut inner = self.inner.lock();
        if inner.touch(&picture.id).is_some() {
            return Ok(false);
        }
        if inner.pinned + cost > self.capacity {
            return refused(ShelfError::Full { bytes: cost, pinned: inner.pinned, capacity: self.capacity });
        }
        let evicted = inner.make_room(self.capacity - cost);
        metrics::counter!(EVICTIONS).increment(evicted);
        // A copy: what a message's bytes are cut from would stay in memory with them.
        let kept = Kept { bytes: Bytes::copy_from_slice(&picture.bytes), size: picture.image.dimensions() };
        inner.add(picture.id.clone(), kept, owner.into());
        inner.measure();
        Ok(true)
    }

    /// The picture, marked as just used.
    pub fn get(&self, id: &PictureId) -> Option<Kept> {
        self.inner.lock().touch(id)
    }

    /// Those of `ids` that are not here, each once, in order.
    pub fn missing(&self, ids: &[PictureId]) -> Vec<PictureId> {
        self.inner.lock().missing(ids)
    }

    /// Keeps these until they are given back as often ([`Pins`] does so when it is dropped).
    ///
    /// # Errors
    /// Those that are not here; then none was pinned.
    pub fn pin(self: &Arc<Self>, ids: &[PictureId]) -> Result<Pins, Vec<PictureId>> {
        let mut inner = self.inner.lock();
        let missing = inner.missing(ids);
        if !missing.is_empty() {
            return Err(missing);
        }
        ids.iter().for_each(|id| inner.pin(id));
        inner.measure();
        Ok(Pins { shelf: self.clone(), ids: ids.to_vec() })
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.inner.lock().bytes
    }

    /// Bytes of those that are needed.
    pub fn pinned(&self) -> usize {
        self.inner.lock().pinned
    }

    /// Bytes that may be held.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Pictures driven out so far.
    pub fn evicted(&self) -> u64 {
        self.inner.lock().evicted
    }
}

/// Pictures that somebody needs; dropping it gives them back.
pub struct Pins {
    shelf: Arc<Shelf>,
    ids: Vec<PictureId>,
}

impl Drop for Pins {
    fn drop(&mut self) {
        let mut inner = self.shelf.inner.lock();
        self.ids.iter().for_each(|id| inner.unpin(id));
        inner.measure();
    }
}

impl Inner {
    fn missing(&self, ids: &[PictureId]) -> Vec<PictureId> {
        let mut missing: Vec<PictureId> = Vec::new();
        for id in ids {
            if !self.entries.contains_key(id) && !missing.contains(id) {
                missing.push(id.clone());
            }
        }
        missing
    }

    fn touch(&mut self, id: &PictureId) -> Option<Kept> {
        let entry = self.entries.get_mut(id)?;
        self.clock += 1;
        if entry.pins == 0
            && let Some(loose) = self.loose.get_mut(&entry.owner)
            && let Some(name) = loose.by_use.remove(&entry.used)
        {
            loose.by_use.insert(self.clock, name);
        }
        entry.used = self.clock;
        Some(entry.kept.clone())
    }

    fn add(&mut self, id: PictureId, kept: Kept, owner: Arc<str>) {
        self.clock += 1;
        self.bytes += kept.bytes.len();
        let loose = self.loose.entry(owner.clone()).or_default();
        loose.bytes += kept.bytes.len();
        loose.by_use.insert(self.clock, id.clone());
        self.entries.insert(id, Entry { kept, owner, used: self.clock, pins: 0 });
    }

    fn make_room(&mut self, most: usize) -> u64 {
        let mut evicted = 0;
        while self.bytes > most {
            let richest = self.loose.iter_mut().max_by_key(|(_, loose)| loose.bytes);
            let Some((_, id)) = richest.and_then(|(_, loose)| loose.by_use.pop_first()) else { break };
            if let Some(entry) = self.entries.remove(&id) {
                self.bytes -= entry.kept.bytes.len();
                self.loosen(&entry.owner, entry.kept.bytes.len());
                evicted += 1;
            }
        }
        self.evicted += evicted;
        evicted
    }

    /// Takes bytes off a sender's account.
    fn loosen(&mut self, owner: &Arc<str>, bytes: usize) {
        if let Some(loose) = self.loose.get_mut(owner) {
            loose.bytes -= bytes;
            if loose.by_use.is_empty() {
                self.loose.remove(owner);
            }
        }
    }

    fn pin(&mut self, id: &PictureId) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        entry.pins += 1;
        if entry.pins == 1 {
            let (owner, used, bytes) = (entry.owner.clone(), entry.used, entry.kept.bytes.len());
            self.pinned += bytes;
            if let Some(loose) = self.loose.get_mut(&owner) {
                loose.by_use.remove(&used);
            }
            self.loosen(&owner, bytes);
        }
    }

    fn unpin(&mut self, id: &PictureId) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        entry.pins = entry.pins.saturating_sub(1);
        if entry.pins == 0 {
            let bytes = entry.kept.bytes.len();
            self.pinned -= bytes;
            let loose = self.loose.entry(entry.owner.clone()).or_default();
            loose.bytes += bytes;
            loose.by_use.insert(entry.used, id.clone());
        }
    }

    fn measure(&self) {
        metrics::gauge!(STORED_BYTES).set(self.bytes as f64);
        metrics::gauge!(PINNED_BYTES).set(self.pinned as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{Rgb, RgbImage};

    fn picture(shade: u8) -> Picture {
        Picture::from_image(RgbImage::from_pixel(20, 20, Rgb([shade; 3]))).expect("encodes")
    }

    /// All of the same size, as flat colours are.
    fn shelf(pictures: usize) -> (Arc<Shelf>, Vec<Picture>) {
        let all: Vec<Picture> = (1..=9).map(picture).collect();
        let one = all.iter().map(|picture| picture.bytes.len()).max().expect("nine");
        (Arc::new(Shelf::new(one * pictures)), all)
    }

    #[test]
    fn what_is_needed_stays_and_the_others_make_room() {
        let (shelf, all) = shelf(3);
        for picture in &all[..2] {
            assert_eq!(shelf.put("a", picture), Ok(true));
        }
        assert_eq!(shelf.put("b", &all[0]), Ok(false), "it is known");
        let pins = shelf.pin(&[all[0].id.clone()]).unwrap_or_else(|_| panic!("is here"));
        let again = shelf.pin(&[all[0].id.clone()]).unwrap_or_else(|_| panic!("as often as one likes"));
        for picture in &all[2..] {
            assert_eq!(shelf.put("a", picture), Ok(true));
        }
        let kept = shelf.get(&all[0].id).expect("it is needed");
        assert_eq!((kept.bytes, kept.size), (all[0].bytes.clone(), (20, 20)));
        assert!(shelf.get(&all[1].id).is_none() && shelf.evicted() > 0 && shelf.bytes() <= shelf.capacity());
        drop(pins);
        assert!(shelf.pinned() > 0, "one still needs it");
        drop(again);
        assert_eq!(shelf.pinned(), 0);
        for picture in &all[1..4] {
            let _ = shelf.put("a", picture);
        }
        assert!(shelf.get(&all[0].id).is_none(), "nobody needs it any more");
    }

    #[test]
    fn where_all_is_needed_more_is_refused_and_nothing_goes() {
        let (shelf, all) = shelf(2);
        let ids: Vec<PictureId> = all[..2].iter().map(|picture| picture.id.clone()).collect();
        assert!(all[..2].iter().all(|picture| shelf.put("a", picture) == Ok(true)));
        let pins = shelf.pin(&ids).unwrap_or_else(|_| panic!("both are here"));
        assert!(matches!(shelf.put("a", &all[2]), Err(ShelfError::Full { .. })));
        assert!(shelf.missing(&ids).is_empty());
        drop(pins);
        assert_eq!(shelf.put("a", &all[2]), Ok(true));
        assert_eq!(shelf.pin(&ids).err().map(|missing| missing.len()), Some(1), "all or none");
        assert_eq!(shelf.pinned(), 0);
        assert!(matches!(Shelf::new(10).put("a", &all[0]), Err(ShelfError::Capacity { capacity: 10, .. })));
    }

    #[test]
    fn a_flood_drives_out_its_own() {
        let (shelf, all) = shelf(4);
        assert_eq!(shelf.put("quiet", &all[0]), Ok(true));
        for picture in &all[1..] {
            assert_eq!(shelf.put("loud", picture), Ok(true));
        }
        assert!(shelf.get(&all[0].id).is_some(), "the oldest of all, but of somebody else");
    }
}
