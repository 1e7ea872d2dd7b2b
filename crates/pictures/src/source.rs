//! Pictures by name, as a model of this process reads them. In: names. Out: patches, or which pictures nobody has: a store that
//! many share says what a name stands for, a cache of the model's own what it is cut into. Knows no model.

use std::sync::Arc;

use hypereyes_domain::PictureId;

use crate::metrics::MISSING;
use crate::{PatchCache, Patches, Store};

/// Pictures that were named and are not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} of the pictures named are not here, such as {}: they were never put, or others drove them out", .0.len(), .0.first().map_or("", PictureId::as_str))]
pub struct MissingPictures(pub Vec<PictureId>);

/// Where a model finds the pictures that are named to it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PatchSource {
    store: Arc<Store>,
    cache: Arc<PatchCache>,
}

impl PatchSource {
    /// Pictures of `store`, cut as `cache` says.
    pub fn new(store: Arc<Store>, cache: Arc<PatchCache>) -> Self {
        Self { store, cache }
    }

    /// The patches of all, in order, where every one of them has been cut already.
    pub fn held(&self, ids: &[PictureId]) -> Option<Vec<Arc<Patches>>> {
        // Looked at first: what is only found with others missing is not used yet, and not counted.
        if !ids.iter().all(|id| self.cache.holds(id)) {
            return None;
        }
        ids.iter().map(|id| self.cache.get(id)).collect()
    }

    /// The patches of all, in order. Cutting takes milliseconds a picture: not for a thread that others wait for.
    ///
    /// # Errors
    /// [`MissingPictures`], counted.
    pub fn patches(&self, ids: &[PictureId]) -> Result<Vec<Arc<Patches>>, MissingPictures> {
        let find = |id: &PictureId| self.cache.of(id, || self.store.get(id).map(|picture| picture.image.clone()).ok_or(()));
        let (mut found, mut missing) = (Vec::with_capacity(ids.len()), vec![]);
        for id in ids {
            match find(id) {
                Ok(patches) => found.push(patches),
                Err(()) => missing.push(id.clone()),
            }
        }
        if missing.is_empty() {
            return Ok(found);
        }
        metrics::counter!(MISSING).increment(missing.len() as u64);
        Err(MissingPictures(missing))
    }
}

#[cfg(test)]
mod tests {
    use image::RgbImage;

    use super::*;
    use crate::{Limits, Picture, Processor};

    #[test]
    fn what_is_named_is_cut_once_and_what_is_not_there_is_named_back() {
        let store = Arc::new(Store::new(1 << 20, Limits::default()));
        let source = PatchSource::new(store.clone(), Arc::new(PatchCache::new(Processor::default(), 1 << 20)));
        let picture = Picture::from_image(RgbImage::new(64, 64)).expect("encodes");
        let ids = [picture.id.clone(), picture.id.clone()];
        assert_eq!(source.patches(&[ids[0].clone(), "gone".into()]), Err(MissingPictures(vec![ids[0].clone(), "gone".into()])));
        store.insert(picture).expect("fits");
        assert!(source.held(&ids).is_none(), "nobody has cut it");
        let cut = source.patches(&ids).expect("it is here");
        assert!(Arc::ptr_eq(&cut[0], &cut[1]) && Arc::ptr_eq(&cut[0], &source.held(&ids).expect("cut")[1]));
        assert_eq!(cut[0].grid, Processor::default().grid((64, 64)));
        let error = source.patches(&["gone".into()]).expect_err("missing").to_string();
        assert!(error.contains("1 of the pictures named are not here, such as gone"), "{error}");
    }
}
