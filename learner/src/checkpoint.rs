//! Checkpoints: everything a run needs to go on, behind one manifest.
//!
//! In: weights, optimiser, cursor, references. Out: a folder `step-N` with three tensor files, and `manifest.json` that
//! names it with every file's digest. The manifest is replaced last and whole, so a crash leaves the previous one in
//! force; a file that does not match its digest is refused by name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hypereyes_chassis::atomic;
use hypereyes_domain::{PolicyVersion, Reference, TaskId};
use hypereyes_policy::checkpoint::{self, HostWeights, StoredDtype};
use serde::{Deserialize, Serialize};

use crate::intake::Cursor;
use crate::trainer::Moments;

const MANIFEST: &str = "manifest.json";
const FILES: [&str; 3] = ["weights.safetensors", "adam_first.safetensors", "adam_second.safetensors"];

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
    /// What is there is not a sound checkpoint.
    #[error("checkpoint {path}: {reason}; remove the folder to start anew")]
    Damaged {
        /// Where.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

/// All of a run's state.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Optimiser steps done.
    pub step: u64,
    /// Version of the weights.
    pub version: PolicyVersion,
    /// Master weights.
    pub weights: HostWeights,
    /// The optimiser's state, of all ranks.
    pub moments: Moments,
    /// Tasks still to do, counters.
    pub cursor: Cursor,
    /// Committed TRACE references.
    pub references: BTreeMap<TaskId, Reference>,
    /// The reward service's snapshot of them, where it is known.
    pub snapshot: Option<u64>,
    /// What the pass under way has shown so far, to become references at its end.
    pub candidates: BTreeMap<TaskId, Reference>,
    /// Training seconds so far, over all starts.
    pub seconds: f64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    folder: String,
    step: u64,
    version: PolicyVersion,
    optimiser_steps: u64,
    seconds: f64,
    cursor: Cursor,
    references: BTreeMap<TaskId, Reference>,
    #[serde(default)]
    snapshot: Option<u64>,
    #[serde(default)]
    candidates: BTreeMap<TaskId, Reference>,
    /// BLAKE3 of each file, hex.
    digests: BTreeMap<String, String>,
}

/// Writes a checkpoint under `dir`, then removes older ones.
pub fn save(dir: &Path, state: &State) -> Result<(), CheckpointError> {
    let name = format!("step-{:06}", state.step);
    let folder = dir.join(&name);
    let io = |path: &Path| {
        let path = path.display().to_string();
        move |source| CheckpointError::Io { path, source }
    };
    std::fs::create_dir_all(&folder).map_err(io(&folder))?;
    let mut digests = BTreeMap::new();
    for (file, tensors) in FILES.into_iter().zip([&state.weights, &state.moments.first, &state.moments.second]) {
        let bytes = checkpoint::serialise(tensors, StoredDtype::F32)
            .map_err(|error| CheckpointError::Damaged { path: folder.display().to_string(), reason: error.to_string() })?;
        digests.insert(file.to_owned(), blake3::hash(&bytes).to_hex().to_string());
        atomic::write(&folder.join(file), &bytes).map_err(io(&folder.join(file)))?;
    }
    let manifest = Manifest {
        folder: name.clone(),
        step: state.step,
        version: state.version,
        optimiser_steps: state.moments.steps,
        seconds: state.seconds,
        cursor: state.cursor.clone(),
        references: state.references.clone(),
        snapshot: state.snapshot,
        candidates: state.candidates.clone(),
        digests,
    };
    let text = serde_json::to_vec_pretty(&manifest).expect("a manifest is plain values");
    atomic::write(&dir.join(MANIFEST), &text).map_err(io(&dir.join(MANIFEST)))?;
    for entry in std::fs::read_dir(dir).map_err(io(dir))?.flatten() {
        let old = entry.file_name().to_string_lossy().into_owned();
        if old.starts_with("step-") && old != name {
            // The new checkpoint is complete; an old one that cannot be removed only costs space.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}

/// Reads the newest checkpoint under `dir`; `None` when there is none.
pub fn load(dir: &Path) -> Result<Option<State>, CheckpointError> {
    let path = dir.join(MANIFEST);
    let damaged = |path: &Path, reason: String| CheckpointError::Damaged { path: path.display().to_string(), reason };
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(CheckpointError::Io { path: path.display().to_string(), source }),
    };
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| damaged(&path, error.to_string()))?;
    let plain = manifest.folder.strip_prefix("step-").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()));
    if !plain {
        return Err(damaged(&path, format!("folder {:?} is not one of ours", manifest.folder)));
    }
    let folder: PathBuf = dir.join(&manifest.folder);
    let tensors = |file: &str| -> Result<HostWeights, CheckpointError> {
        let path = folder.join(file);
        let bytes = std::fs::read(&path).map_err(|source| CheckpointError::Io { path: path.display().to_string(), source })?;
        if manifest.digests.get(file).map(String::as_str) != Some(blake3::hash(&bytes).to_hex().as_str()) {
            return Err(damaged(&path, "its bytes do not match the manifest's digest".into()));
        }
        checkpoint::parse(&bytes).map_err(|error| damaged(&path, error.to_string()))
    };
    let [weights, first, second] = [tensors(FILES[0])?, tensors(FILES[1])?, tensors(FILES[2])?];
    Ok(Some(State {
        step: manifest.step,
        version: manifest.version,
        weights,
        moments: Moments { steps: manifest.optimiser_steps, first, second },
        cursor: manifest.cursor,
        references: manifest.references,
        snapshot: manifest.snapshot,
        candidates: manifest.candidates,
        seconds: manifest.seconds,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypereyes_policy::checkpoint::HostTensor;

    fn state(step: u64) -> State {
        let weights: HostWeights = [("w".to_owned(), HostTensor { shape: vec![2], values: vec![0.1, step as f32] })].into();
        State {
            step,
            version: PolicyVersion(step),
            moments: Moments { steps: step, first: weights.clone(), second: weights.clone() },
            weights,
            cursor: Cursor { epoch: 1, remaining: vec!["t".into()], leases: 9, trained: 4, dropped: 1 },
            references: [("t".into(), Reference { rounds: 2, searches: 5 })].into(),
            snapshot: Some(7),
            candidates: [("u".into(), Reference { rounds: 1, searches: 3 })].into(),
            seconds: 1.5,
        }
    }

    #[test]
    fn what_is_saved_is_loaded_bit_for_bit_and_old_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        assert!(load(dir.path()).unwrap().is_none());
        save(dir.path(), &state(3)).unwrap();
        save(dir.path(), &state(4)).unwrap();
        assert_eq!(load(dir.path()).unwrap().unwrap(), state(4));
        assert!(!dir.path().join("step-000003").exists());
    }

    #[test]
    fn every_flipped_byte_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        save(dir.path(), &state(1)).unwrap();
        let path = dir.path().join("step-000001/weights.safetensors");
        let sound = std::fs::read(&path).unwrap();
        for at in 0..sound.len() {
            let mut broken = sound.clone();
            broken[at] ^= 1;
            std::fs::write(&path, broken).unwrap();
            assert!(matches!(load(dir.path()), Err(CheckpointError::Damaged { .. })), "byte {at}");
        }
    }
}
