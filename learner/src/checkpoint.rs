//! Checkpoints: everything a run needs to go on, behind one manifest.
//!
//! In: weights, optimiser, cursor, references. Out: a folder `step-N` with three tensor files, and `manifest.json` that
//! names it with every file's digest and is sealed with its own. The manifest is replaced last and whole, so a crash leaves
//! the previous one in force; a file that does not match its digest is refused by name. Each folder has a copy of its
//! manifest: putting an older one in the place of the newest goes back to it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hypereyes_chassis::atomic;
use hypereyes_domain::{PolicyVersion, Reference, TaskId};
use hypereyes_policy::checkpoint::{self, HostWeights, StoredDtype};
use serde::{Deserialize, Serialize};

use crate::intake::Cursor;
use crate::metrics::IMPOSSIBLE_REFERENCES;
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

/// What to do about a damaged checkpoint under `dir`.
fn remedy(dir: &Path, damaged: Option<&str>) -> String {
    let older = folders(dir).into_iter().rev().find(|name| Some(name.as_str()) != damaged && dir.join(name).join(MANIFEST).exists());
    match older {
        Some(name) => format!("go back with: cp {} {}", dir.join(name).join(MANIFEST).display(), dir.join(MANIFEST).display()),
        None => format!("remove {} to start anew", dir.display()),
    }
}

/// Names of the checkpoints' folders, oldest first.
fn folders(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).filter(|name| is_ours(name)).collect();
    names.sort();
    names
}

fn is_ours(name: &str) -> bool {
    name.strip_prefix("step-").is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
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

/// A manifest and the BLAKE3, hex, of its compact JSON. Numbers are whole, so that what is read is written the same again.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    manifest: Manifest,
    seal: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    folder: String,
    step: u64,
    version: PolicyVersion,
    optimiser_steps: u64,
    milliseconds: u64,
    cursor: Cursor,
    references: BTreeMap<TaskId, Reference>,
    #[serde(default)]
    snapshot: Option<u64>,
    #[serde(default)]
    candidates: BTreeMap<TaskId, Reference>,
    /// BLAKE3 of each file, hex.
    digests: BTreeMap<String, String>,
}

impl Manifest {
    fn seal(&self) -> String {
        blake3::hash(&serde_json::to_vec(self).expect("a manifest is plain values")).to_hex().to_string()
    }
}

/// Writes a checkpoint under `dir`, then removes all but the newest `keep` (at least one).
pub fn save(dir: &Path, state: &State, keep: usize) -> Result<(), CheckpointError> {
    let name = format!("step-{:06}", state.step);
    let folder = dir.join(&name);
    let io = |path: &Path| {
        let path = path.display().to_string();
        move |source| CheckpointError::Io { path, source }
    };
    std::fs::create_dir_all(&folder).map_err(io(&folder))?;
    let mut digests = BTreeMap::new();
    for (file, tensors) in FILES.into_iter().zip([&state.weights, &state.moments.first, &state.moments.second]) {
        let bytes = checkpoint::serialise(tensors, StoredDtype::F32).map_err(|error| CheckpointError::Io {
            path: folder.display().to_string(),
            source: std::io::Error::other(error.to_string()),
        })?;
        digests.insert(file.to_owned(), blake3::hash(&bytes).to_hex().to_string());
        atomic::write(&folder.join(file), &bytes).map_err(io(&folder.join(file)))?;
    }
    let manifest = Manifest {
        folder: name.clone(),
        step: state.step,
        version: state.version,
        optimiser_steps: state.moments.steps,
        milliseconds: (state.seconds * 1000.0) as u64,
        cursor: state.cursor.clone(),
        references: state.references.clone(),
        snapshot: state.snapshot,
        candidates: state.candidates.clone(),
        digests,
    };
    let seal = manifest.seal();
    let text = serde_json::to_vec_pretty(&Sealed { manifest, seal }).expect("a manifest is plain values");
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
pub fn load(dir: &Path) -> Result<Option<State>, CheckpointError> {
    let path = dir.join(MANIFEST);
    let damaged = |path: &Path, folder: Option<&str>, reason: String| CheckpointError::Damaged {
        path: path.display().to_string(),
        reason,
        remedy: remedy(dir, folder),
    };
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(CheckpointError::Io { path: path.display().to_string(), source }),
    };
    let Sealed { manifest, seal } = serde_json::from_slice(&text).map_err(|error| damaged(&path, None, error.to_string()))?;
    if seal != manifest.seal() {
        return Err(damaged(&path, None, "its content does not match its seal".into()));
    }
    if !is_ours(&manifest.folder) {
        return Err(damaged(&path, None, format!("folder {:?} is not one of ours", manifest.folder)));
    }
    let folder: PathBuf = dir.join(&manifest.folder);
    let tensors = |file: &str| -> Result<HostWeights, CheckpointError> {
        let path = folder.join(file);
        let bytes = std::fs::read(&path).map_err(|source| CheckpointError::Io { path: path.display().to_string(), source })?;
        if manifest.digests.get(file).map(String::as_str) != Some(blake3::hash(&bytes).to_hex().as_str()) {
            return Err(damaged(&path, Some(&manifest.folder), "its bytes do not match the manifest's digest".into()));
        }
        checkpoint::parse(&bytes).map_err(|error| damaged(&path, Some(&manifest.folder), error.to_string()))
    };
    let [weights, first, second] = [tensors(FILES[0])?, tensors(FILES[1])?, tensors(FILES[2])?];
    Ok(Some(State {
        step: manifest.step,
        version: manifest.version,
        weights,
        moments: Moments { steps: manifest.optimiser_steps, first, second },
        cursor: manifest.cursor,
        references: possible(manifest.references),
        snapshot: manifest.snapshot,
        candidates: possible(manifest.candidates),
        seconds: manifest.milliseconds as f64 / 1000.0,
    }))
}

/// References without those that nobody can have reached, which earlier versions kept of successes without a search: the reward
/// service would refuse them all together.
fn possible(mut references: BTreeMap<TaskId, Reference>) -> BTreeMap<TaskId, Reference> {
    let before = references.len();
    references.retain(|_, reference| reference.is_possible());
    let dropped = before - references.len();
    if dropped > 0 {
        metrics::counter!(IMPOSSIBLE_REFERENCES).increment(dropped as u64);
        tracing::warn!(dropped, "references of the checkpoint that nobody can have reached are left out");
    }
    references
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
        save(dir.path(), &state(3), 1).unwrap();
        save(dir.path(), &state(4), 1).unwrap();
        assert_eq!(load(dir.path()).unwrap().unwrap(), state(4));
        assert!(!dir.path().join("step-000003").exists());
    }

    #[test]
    fn references_that_nobody_can_have_reached_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let nothing = Reference { rounds: 1, searches: 0 };
        let mut old = state(1);
        old.references.insert("idle".into(), nothing);
        old.candidates.insert("idle".into(), nothing);
        save(dir.path(), &old, 1).unwrap();
        assert_eq!(load(dir.path()).unwrap().unwrap(), state(1));
    }

    /// The three files and the manifest that are in force.
    fn in_force(dir: &Path) -> Vec<PathBuf> {
        let folder = dir.join(folders(dir).pop().unwrap());
        FILES.iter().map(|file| folder.join(file)).chain([dir.join(MANIFEST)]).collect()
    }

    #[test]
    fn a_thousand_cuts_and_a_thousand_flipped_bits_are_refused_or_harmless() {
        let dir = tempfile::tempdir().unwrap();
        save(dir.path(), &state(1), 2).unwrap();
        save(dir.path(), &state(2), 2).unwrap();
        let (mut refused, mut tried) = (0, 0);
        for path in in_force(dir.path()) {
            let sound = std::fs::read(&path).unwrap();
            for number in 0..500usize {
                let mut broken = sound.clone();
                if number % 2 == 0 {
                    broken.truncate(number * sound.len() / 500);
                } else {
                    let bit = number.wrapping_mul(7919) % (sound.len() * 8);
                    broken[bit / 8] ^= 1 << (bit % 8);
                }
                std::fs::write(&path, broken).unwrap();
                tried += 1;
                match load(dir.path()) {
                    Err(error) => {
                        // A broken manifest has a sound copy; broken tensors have a predecessor.
                        let way_back = if path == dir.path().join(MANIFEST) { "step-000002" } else { "step-000001" };
                        assert!(error.to_string().contains(&format!("{way_back}/manifest.json")), "the way back is named: {error}");
                        refused += 1;
                    }
                    // A flipped bit in the white space of the manifest.
                    Ok(loaded) => assert_eq!(loaded.unwrap(), state(2), "{}, change {number}", path.display()),
                }
            }
            std::fs::write(&path, sound).unwrap();
        }
        assert_eq!(tried, 2000);
        assert!(refused > 1950, "{refused} of {tried}");
        // The way back works.
        std::fs::write(&in_force(dir.path())[0], b"gone").unwrap();
        std::fs::copy(dir.path().join("step-000001").join(MANIFEST), dir.path().join(MANIFEST)).unwrap();
        assert_eq!(load(dir.path()).unwrap().unwrap(), state(1));
    }

    #[test]
    fn a_write_that_is_cut_off_anywhere_leaves_the_checkpoint_before() {
        let dir = tempfile::tempdir().unwrap();
        save(dir.path(), &state(1), 1).unwrap();
        let before = std::fs::read(dir.path().join(MANIFEST)).unwrap();
        save(dir.path(), &state(2), 2).unwrap();
        // As after a kill between any two writes: some of the new folder's files, and the old manifest.
        let mut files = in_force(dir.path());
        files.pop();
        std::fs::write(dir.path().join(MANIFEST), &before).unwrap();
        for file in files.into_iter().rev() {
            assert_eq!(load(dir.path()).unwrap().unwrap(), state(1));
            std::fs::write(&file, b"half a file").unwrap();
            assert_eq!(load(dir.path()).unwrap().unwrap(), state(1));
            std::fs::remove_file(&file).unwrap();
        }
        assert_eq!(load(dir.path()).unwrap().unwrap(), state(1));
        save(dir.path(), &state(2), 1).unwrap();
        assert_eq!(load(dir.path()).unwrap().unwrap(), state(2));
        assert_eq!(folders(dir.path()), ["step-000002"]);
    }
}
