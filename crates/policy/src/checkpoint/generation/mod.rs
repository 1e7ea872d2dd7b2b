//! Policy versions as folders that an inference server loads.
//!
//! In: snapshots, and the folder that training started from. Out: for each a [`Generation`], an ordinary model folder in Hugging Face
//! layout that is there whole or not at all, and of which somebody who died at any moment leaves exactly one in force. It knows no
//! server and no network.

mod folder;
mod manifest;
pub(super) mod metrics;
mod steps;

#[cfg(test)]
mod cuts;

use std::path::{Path, PathBuf};

use hypereyes_domain::PolicyVersion;

pub use self::folder::PolicyFolder;
use self::manifest::Manifest;
use super::{Snapshot, StoredDtype};
use crate::Error;
use crate::config::ModelConfig;

/// Hex digits of a digest that are part of names.
const SHORT: usize = 16;

/// A policy version that is there whole, in a folder of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Its folder, an absolute path.
    pub path: PathBuf,
    /// Which version it is.
    pub version: PolicyVersion,
    /// BLAKE3 of the payload that it was made of, as the learner published it.
    pub digest: blake3::Hash,
    /// Bytes of weights that were written for it; 0 where it was found on disk.
    pub bytes_written: u64,
    /// Bytes of weights that it shares with the generation before.
    pub bytes_linked: u64,
}

impl Generation {
    /// Opens a generation and reads all of it: every file beside the weights, every tensor and the payload must have the digest that
    /// they were written with.
    ///
    /// # Errors
    /// [`Error`] that names the file.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Ok(verified(path)?.0)
    }

    /// Reads a generation back: its model, and the snapshot that it was made of, by its digest bit for bit. Files beside the weights are
    /// not compared.
    ///
    /// # Errors
    /// [`Error`] that names the file, or says that what was read is not what was written.
    pub fn read(path: &Path) -> Result<(ModelConfig, Snapshot), Error> {
        let manifest = Manifest::read(path)?;
        let (model, weights) = super::read(path)?;
        let dtype = [StoredDtype::F32, StoredDtype::Bf16].into_iter().find(|dtype| dtype.label() == manifest.dtype);
        let named = |why: &str| Error::Input(format!("{}: {why}", path.display()));
        let dtype = dtype.ok_or_else(|| named("its weights are of a type that is not known"))?;
        let snapshot = Snapshot::exact(weights, PolicyVersion(manifest.version)).written_as(dtype)?;
        if snapshot.digest.to_hex().as_str() != manifest.digest {
            return Err(named("its weights are not those that were published"));
        }
        Ok((model, snapshot))
    }

    /// What a server is told that it serves: `v<version>-<16 digits of the digest>`.
    pub fn label(&self) -> String {
        format!("v{}", name(self.version, &self.digest))
    }
}

/// A generation with what is written down of it, read and compared.
fn verified(path: &Path) -> Result<(Generation, Manifest), Error> {
    let manifest = Manifest::read(path)?;
    let digest = manifest.verify(path)?;
    let version = PolicyVersion(manifest.version);
    Ok((Generation { path: path.to_owned(), version, digest, bytes_written: 0, bytes_linked: 0 }, manifest))
}

/// The name of a generation's folder.
fn name(version: PolicyVersion, digest: &blake3::Hash) -> String {
    format!("{}-{}", version.0, &digest.to_hex()[..SHORT])
}
