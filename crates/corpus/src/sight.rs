//! How pictures are seen: a policy's vision tower, and its settings of cutting pictures into patches. In: a model folder. Out: vectors of
//! pictures. Knows no index.

use std::path::Path;

use hypereyes_pictures::{Patches, Processor, RgbImage};
use hypereyes_policy::checkpoint;
use hypereyes_policy::device::Device;
use hypereyes_policy::embed::{self, Embed};
use parking_lot::Mutex;

use crate::Error;

/// Values of patches that are made before the tower looks at them: 256 MB, or one picture.
const MOST_VALUES: usize = 64 << 20;

/// A tower that is asked by whoever searches or builds.
pub struct Sight {
    /// Locked for one pass: a tower takes all the threads that there are.
    tower: Mutex<Box<dyn Embed>>,
    processor: Processor,
    width: usize,
    digest: String,
}

impl Sight {
    /// The tower of a model folder, on a device; nothing else of the model is kept in memory.
    ///
    /// # Errors
    /// [`Error::Input`] where there is no such model or device.
    pub fn load(folder: &Path, device: Device) -> Result<Self, Error> {
        let processor = Processor::load(folder).map_err(|error| Error::Input(error.to_string()))?;
        let (config, weights) = checkpoint::read_tower(folder)?;
        let settings = serde_json::to_string(&processor).expect("plain values");
        let digest = blake3::hash(format!("{}\n{settings}", embed::digest(&config, &weights)).as_bytes()).to_hex().to_string();
        let tower = embed::embedder(&config, &weights, device)?;
        Ok(Self { width: tower.width(), tower: Mutex::new(tower), processor, digest })
    }

    /// What vectors follow from, in one name: BLAKE3 of the tower and of the settings.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Numbers in a vector.
    pub fn width(&self) -> usize {
        self.width
    }

    /// How many pictures may be patches at the same time, whatever their sizes; at least one.
    pub(crate) fn at_once(&self) -> usize {
        let Processor { min_pixels, max_pixels, temporal, .. } = self.processor;
        (MOST_VALUES / max_pixels.max(min_pixels).saturating_mul(3 * temporal).max(1)).max(1)
    }

    /// The patches of a picture.
    pub fn patches(&self, picture: &RgbImage) -> Patches {
        self.processor.patches(picture)
    }

    /// The vector of each picture, of length 1.
    ///
    /// # Errors
    /// [`Error`] of the tower.
    pub fn vectors(&self, pictures: &[Patches]) -> Result<Vec<Vec<f32>>, Error> {
        Ok(self.tower.lock().embed(pictures)?)
    }
}
