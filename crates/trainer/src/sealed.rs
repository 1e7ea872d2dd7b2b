//! Checkpoints on disk: three files of tensors behind one manifest.
//!
//! In: weights and moments, and a manifest that says what else there is. Out: a folder `step-N` with the files, and
//! `manifest.json` that names it with every file's digest and is sealed with its own. The manifest is replaced last and whole, so
//! a crash leaves the previous one in force; a file that does not match its digest is refused by name. Each folder has a copy of
//! its manifest: putting an older one in the place of the newest goes back to it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hypereyes_chassis::atomic;
use hypereyes_policy::checkpoint::{self, HostWeights, StoredDtype};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Name of the manifest.
pub const MANIFEST: &str = "manifest.json";
/// The format that is written. Readers take this one and every earlier one; 1 is what has no number.
const FORMAT: u32 = 2;
/// Names of the files of tensors: weights, first moments, second moments.
pub const FILES: [&str; 3] = ["weights.safetensors", "adam_first.safetensors", "adam_second.safetensors"];

/// A checkpoint cannot be written or used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Reading or writing failed.
    #[error("checkpoint {path}: {source}")]
    Io {
        /// Where.
        path: String,
        /// Cause.
        source: std::io::Error,
    },
    /// A later release wrote it.
    #[error("checkpoint {path} has format {format}, and this release ({release}) reads formats up to {FORMAT}: go on with the release that wrote it", release = env!("CARGO_PKG_VERSION"))]
    Later {
        /// Where.
        path: String,
        /// Its format.
        format: u32,
    },
    /// What is there is not a sound checkpoint.
    #[error("checkpoint {path}: {reason}; {remedy}")]
    Damaged {
        /// Where.
        path: String,
        /// What is wrong.
        reason: String,
        /// What to do.
        remedy: String,
    },
}

/// What a checkpoint says of itself. Numbers in it are whole, so that what is read is written the same again.
pub trait Manifest: Serialize + DeserializeOwned {
    /// The folder with the files.
    fn folder(&self) -> &str;
    /// BLAKE3 of each file, hex.
    fn digests(&self) -> &BTreeMap<String, String>;
}

/// A manifest and the BLAKE3, hex, of its compact JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed<M> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    format: Option<u32>,
    manifest: M,
    seal: String,
}

/// The format alone.
#[derive(Deserialize)]
struct Mark {
    #[serde(default = "first")]
    format: u32,
}

fn first() -> u32 {
    1
}

fn seal<M: Manifest>(manifest: &M) -> String {
    blake3::hash(&serde_json::to_vec(manifest).expect("a manifest is plain values")).to_hex().to_string()
}

/// What to do about a damaged checkpoint under `dir`.
fn remedy(dir: &Path, damaged: Option<&str>) -> String {
    let older = folders(dir).into_iter().rev().find(|name| Some(name.as_str()) != damaged && dir.join(name).join(MANIFEST).exists());
    match older {
        Some(name) => format!("go back with: cp {} {}", dir.join(name).join(MANIFEST).display(), dir.join(MANIFEST).display()),
        None => format!("remove {} to start anew", dir.display()),
    }
}

/// Names of the checkpoints' folders, oldest first.
pub fn folders(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).filter(|name| is_ours(name)).collect();
    names.sort();
    names
}

fn is_ours(name: &str) -> bool {
    name.strip_prefix("step-").is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Writes a checkpoint of a step under `dir`, then removes all but the newest `keep` (at least one). `manifest` is given the name
/// of its folder and the files' digests.
///
/// # Errors
/// [`CheckpointError`]; the one before is then still in force.
pub fn save<M: Manifest>(
    dir: &Path,
    step: u64,
    tensors: [&HostWeights; 3],
    manifest: impl FnOnce(String, BTreeMap<String, String>) -> M,
    keep: usize,
) -> Result<(), CheckpointError> {
    let name = format!("step-{step:06}");
    let folder = dir.join(&name);
    let io = |path: &Path| {
        let path = path.display().to_string();
        move |source| CheckpointError::Io { path, source }
    };
    std::fs::create_dir_all(&folder).map_err(io(&folder))?;
    let mut digests = BTreeMap::new();
    for (file, tensors) in FILES.into_iter().zip(tensors) {
        let bytes = checkpoint::serialise(tensors, StoredDtype::F32).map_err(|error| CheckpointError::Io {
            path: folder.display().to_string(),
            source: std::io::Error::other(error.to_string()),
        })?;
        digests.insert(file.to_owned(), blake3::hash(&bytes).to_hex().to_string());
        atomic::write(&folder.join(file), &bytes).map_err(io(&folder.join(file)))?;
    }
    let manifest = manifest(name.clone(), digests);
    let seal = seal(&manifest);
    let text = serde_json::to_vec_pretty(&Sealed { format: Some(FORMAT), manifest, seal }).expect("a manifest is plain values");
    for path in [folder.join(MANIFEST), dir.join(MANIFEST)] {
        atomic::write(&path, &text).map_err(io(&path))?;
    }
    let mut old: Vec<String> = folders(dir).into_iter().filter(|old| *old != name).collect();
    old.truncate((old.len() + 1).saturating_sub(keep.max(1)));
    for old in old {
        // The new checkpoint is complete; an old one that cannot be removed only costs space.
        let _ = std::fs::remove_dir_all(dir.join(old));
    }
    Ok(())
}

/// Reads the newest checkpoint under `dir`; `None` when there is none.
///
/// # Errors
/// [`CheckpointError`] that says what to do.
pub fn load<M: Manifest>(dir: &Path) -> Result<Option<(M, [HostWeights; 3])>, CheckpointError> {
    let path = dir.join(MANIFEST);
    let damaged = |path: &Path, folder: Option<&str>, reason: String| CheckpointError::Damaged {
        path: path.display().to_string(),
        reason,
        remedy: remedy(dir, folder),
    };
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => return Ok(None),
        Err(source) => return Err(CheckpointError::Io { path: path.display().to_string(), source }),
    };
    // Before the rest: what a later release wrote may hold what is not known here.
    let Mark { format } = serde_json::from_slice(&text).map_err(|error| damaged(&path, None, error.to_string()))?;
    if format > FORMAT {
        return Err(CheckpointError::Later { path: path.display().to_string(), format });
    }
    let sealed = serde_json::from_slice(&text).map_err(|error| damaged(&path, None, error.to_string()))?;
    let Sealed::<M> { format: _, manifest, seal: sealed } = sealed;
    if sealed != seal(&manifest) {
        return Err(damaged(&path, None, "its content does not match its seal".into()));
    }
    let name = manifest.folder().to_owned();
    if !is_ours(&name) {
        return Err(damaged(&path, None, format!("folder {name:?} is not one of ours")));
    }
    let folder: PathBuf = dir.join(&name);
    let tensors = |file: &str| -> Result<HostWeights, CheckpointError> {
        let path = folder.join(file);
        let bytes = std::fs::read(&path).map_err(|source| CheckpointError::Io { path: path.display().to_string(), source })?;
        if manifest.digests().get(file).map(String::as_str) != Some(blake3::hash(&bytes).to_hex().as_str()) {
            return Err(damaged(&path, Some(&name), "its bytes do not match the manifest's digest".into()));
        }
        checkpoint::parse(&bytes).map_err(|error| damaged(&path, Some(&name), error.to_string()))
    };
    let tensors = [tensors(FILES[0])?, tensors(FILES[1])?, tensors(FILES[2])?];
    Ok(Some((manifest, tensors)))
}
