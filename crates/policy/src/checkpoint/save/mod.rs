//! Saving model folders: the one way in which any part of this system writes one.
//!
//! In: a target, the folder that training started from, weights. Out: a complete folder in the target's place, read back before
//! it is moved there: the trained tensors under their published names, the start's `config.json` with what a save changes, and
//! everything small that lay beside the start's weights. Nothing of what was in the target before is left beside it.

mod extras;
mod paths;
mod place;
mod tensors;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use self::paths::keep_apart;
pub use self::place::Place;
pub(crate) use self::place::interrupted;
pub use self::tensors::{digest, digest_of, serialise};

pub(super) use self::extras::{Extras, MAX_BYTES};
pub(super) use self::paths::{check_free, remove};
use self::tensors::SHARD_BYTES;
pub(super) use self::tensors::{Laid, Written, header, index, write_file};
use super::{HostWeights, StoredDtype};
use crate::Error;
use crate::config::ModelConfig;

/// A model folder that is there whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// One name for all tensors: see [`digest`].
    pub digest: String,
    /// Where things of the old folder are now that belong to no model.
    pub aside: Option<PathBuf>,
}

/// Saves a model into one folder, once or at every checkpoint. It holds what goes along from the start in memory, so that
/// nothing is read there again.
#[derive(Clone, Debug)]
pub struct Saver {
    place: Place,
    start: Option<PathBuf>,
    extras: Arc<Extras>,
    shard_bytes: u64,
}

impl Saver {
    /// Looks at both folders and tries to write: what is wrong with them is said before hours of training, and nothing is made.
    /// `start` may lack weights and config, as one that holds a tokenizer only.
    ///
    /// # Errors
    /// [`Error`] in one line: the target cannot be written, or replacing it would destroy the start.
    pub fn new(target: &Path, start: Option<&Path>) -> Result<Self, Error> {
        let place = Self::place(target, start)?;
        let extras = start.map(|start| Extras::of(start, place.target())).transpose()?.unwrap_or_default();
        Ok(Self { place, start: start.map(Path::to_owned), extras: Arc::new(extras), shard_bytes: SHARD_BYTES })
    }

    fn place(target: &Path, start: Option<&Path>) -> Result<Place, Error> {
        if let Some(start) = start {
            keep_apart(target, "the start", start)?;
        }
        Place::new(target)
    }

    /// The same, into another folder.
    ///
    /// # Errors
    /// As [`Saver::new`].
    pub fn into_another(&self, target: &Path) -> Result<Self, Error> {
        Ok(Self { place: Self::place(target, self.start.as_deref())?, ..self.clone() })
    }

    /// Cuts weights into files of about so many bytes; without it they are so large that hardly any model has several.
    pub fn in_shards_of(mut self, bytes: u64) -> Self {
        self.shard_bytes = bytes;
        self
    }

    /// What lies beside the start's weights and does not go along, with the reason; for people.
    pub fn left_out(&self) -> &[String] {
        &self.extras.left_out
    }

    /// Refuses when there is no room for the model, and for `besides` bytes more.
    ///
    /// # Errors
    /// [`Error`] that says how much is needed.
    pub fn check_free(&self, config: &ModelConfig, dtype: StoredDtype, besides: u128) -> Result<(), Error> {
        self.place.check_free(config.parameters() * dtype.bytes() as u128 + u128::from(self.extras.bytes()) + besides)
    }

    /// Writes the folder in a fresh place, reads it back and moves it in.
    ///
    /// # Errors
    /// [`Error`] in one line; what was there before is as it was.
    pub fn save(&self, config: &ModelConfig, weights: &HostWeights, dtype: StoredDtype) -> Result<Saved, Error> {
        let named =
            |why: String| Error::Input(format!("{} was not saved, what was there is as it was: {why}", self.place.shown().display()));
        let written = Written::new(config, weights, dtype, self.shard_bytes).map_err(|error| named(error.to_string()))?;
        let json = self.extras.config_of(config, dtype).map_err(named)?;
        let files = || {
            let beside = self.extras.files.iter().map(|(path, bytes)| (path.as_path(), bytes.as_slice()));
            beside.chain([(Path::new("config.json"), json.as_bytes())])
        };
        let wanted = written.digest();
        let write = |fresh: &Path| {
            for (path, bytes) in files() {
                let path = fresh.join(path);
                let made = path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(&path, bytes));
                made.map_err(|error| Error::io(&path, error))?;
            }
            written.write(fresh)
        };
        let check = |fresh: &Path| {
            let other =
                |what: &dyn std::fmt::Display| Error::Input(format!("{what} does not read back as it was written; is the disk failing?"));
            for (path, bytes) in files() {
                let read = std::fs::read(fresh.join(path)).map_err(|error| Error::io(path, error))?;
                if read != bytes {
                    return Err(other(&path.display()));
                }
            }
            if ModelConfig::load(fresh)? != *config {
                return Err(other(&"config.json"));
            }
            if digest(fresh)? == wanted { Ok(()) } else { Err(other(&"a tensor")) }
        };
        let aside = self.place.fill(write, check)?;
        Ok(Saved { digest: wanted, aside })
    }
}

/// Saves a model once; see [`Saver`].
///
/// # Errors
/// As [`Saver::new`] and [`Saver::save`].
pub fn save(target: &Path, start: Option<&Path>, config: &ModelConfig, weights: &HostWeights, dtype: StoredDtype) -> Result<Saved, Error> {
    Saver::new(target, start)?.save(config, weights, dtype)
}
