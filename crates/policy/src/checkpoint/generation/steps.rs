//! What it takes to put a generation in place, one change of the disk after the other.
//!
//! In: a list of steps. Out: the changes, and what was written, or the first that failed. Whoever dies between two steps, or within
//! one, leaves what a reader takes for the generation before or for the new one, never for half of either.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::super::save::{Laid, write_file};
use crate::Error;

/// One change of the disk.
pub(super) enum Step<'a> {
    /// Makes a folder.
    Folder(PathBuf),
    /// Writes a file of weights.
    Weights(PathBuf, Laid<'a>),
    /// Gives the file of another generation a second name; where a file system has none, it is written.
    Same(PathBuf, PathBuf, Laid<'a>),
    /// Writes another file.
    Bytes(PathBuf, Cow<'a, [u8]>),
    /// Puts the names of a folder on disk.
    Sync(PathBuf),
    /// Gives a file or folder another name, in place of what has it.
    Rename(PathBuf, PathBuf),
    /// Makes a link to a path beside it.
    Link(PathBuf, PathBuf),
}

/// Bytes of weights, by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bytes {
    /// Those that changed.
    pub(super) written: u64,
    /// Those that have a second name now.
    pub(super) linked: u64,
    /// Those that could have had, on another file system.
    pub(super) copied: u64,
}

impl Step<'_> {
    /// Bytes that it will write.
    pub(super) fn needs(&self) -> u64 {
        match self {
            Self::Weights(_, tensors) => bytes_of(tensors),
            Self::Bytes(_, bytes) => bytes.len() as u64,
            _ => 0,
        }
    }

    /// Makes the change; a file is on disk afterwards, its name when its folder is.
    ///
    /// # Errors
    /// [`Error`] that names the path.
    pub(super) fn take(&self, count: &mut Bytes) -> Result<(), Error> {
        match self {
            Self::Folder(path) => fs::create_dir_all(path).map_err(|error| Error::io(path, error)),
            Self::Weights(path, tensors) => {
                count.written += bytes_of(tensors);
                weights(path, tensors)
            }
            Self::Same(of, path, tensors) => match fs::hard_link(of, path) {
                Ok(()) => {
                    count.linked += bytes_of(tensors);
                    Ok(())
                }
                Err(error) => {
                    tracing::debug!(path = %path.display(), %error, "cannot be a second name; it is written");
                    count.copied += bytes_of(tensors);
                    weights(path, tensors)
                }
            },
            Self::Bytes(path, bytes) => {
                let written = File::create(path).and_then(|mut file| io::Write::write_all(&mut file, bytes).and_then(|()| file.sync_all()));
                written.map_err(|error| Error::io(path, error))
            }
            Self::Sync(path) => sync(path),
            Self::Rename(from, to) => fs::rename(from, to).map_err(|error| Error::io(to, error)),
            Self::Link(path, to) => {
                // What was cut off after this step last time.
                let _ = fs::remove_file(path);
                symlink(to, path).map_err(|error| Error::io(path, error))
            }
        }
    }
}

fn weights(path: &Path, tensors: &Laid<'_>) -> Result<(), Error> {
    write_file(path, tensors)?;
    sync(path)
}

/// Puts a file, or a folder's names, on disk.
pub(super) fn sync(path: &Path) -> Result<(), Error> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|error| Error::io(path, error))
}

fn bytes_of(tensors: &Laid<'_>) -> u64 {
    tensors.values().map(|tensor| safetensors::View::data_len(tensor) as u64).sum()
}
