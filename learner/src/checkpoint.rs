//! Checkpoints: everything a run needs to go on, behind one manifest.
//!
//! In: weights, optimiser, cursor, references. Out: a [`sealed`] folder of them, and the same back.

use std::collections::BTreeMap;
use std::path::Path;

use hypereyes_domain::{PolicyVersion, Reference, TaskId};
use hypereyes_policy::checkpoint::HostWeights;
pub use hypereyes_trainer::sealed::CheckpointError;
use hypereyes_trainer::{Moments, sealed};
use serde::{Deserialize, Serialize};

use crate::intake::Cursor;
use crate::metrics::IMPOSSIBLE_REFERENCES;

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

impl sealed::Manifest for Manifest {
    fn folder(&self) -> &str {
        &self.folder
    }

    fn digests(&self) -> &BTreeMap<String, String> {
        &self.digests
    }
}

/// Writes a checkpoint under `dir`, then removes all but the newest `keep` (at least one).
pub fn save(dir: &Path, state: &State, keep: usize) -> Result<(), CheckpointError> {
    let manifest = |folder, digests| Manifest {
        folder,
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
    sealed::save(dir, state.step, [&state.weights, &state.moments.first, &state.moments.second], manifest, keep)
}

/// Reads the newest checkpoint under `dir`; `None` when there is none.
pub fn load(dir: &Path) -> Result<Option<State>, CheckpointError> {
    let Some((manifest, [weights, first, second])) = sealed::load::<Manifest>(dir)? else { return Ok(None) };
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
    use std::path::PathBuf;

    use hypereyes_policy::checkpoint::HostTensor;

    use super::*;
    use hypereyes_trainer::sealed::{FILES, MANIFEST, folders};

    fn state(step: u64) -> State {
        let weights: HostWeights = [("w".to_owned(), HostTensor { shape: vec![2], values: vec![0.1, step as f32] })].into();
        State {
            step,
            version: PolicyVersion(step),
            moments: Moments { steps: step, first: weights.clone(), second: weights.clone() },
            weights,
            cursor: Cursor { epoch: 1, remaining: vec!["t".into()], leases: 9, trained: 4, dropped: 1, skipped: 0 },
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
    fn what_was_written_before_formats_were_counted_is_read_and_what_is_of_later_is_refused_in_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(MANIFEST);
        save(dir.path(), &state(3), 1).unwrap();
        let mut manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(manifest["format"], 2);
        manifest["format"] = 9.into();
        manifest["more"] = "x".into();
        std::fs::write(&path, manifest.to_string()).unwrap();
        let error = load(dir.path()).unwrap_err().to_string();
        assert!(error.contains("format 9") && error.contains("up to 2") && !error.contains('\n'), "{error}");
        let object = manifest.as_object_mut().unwrap();
        object.remove("format");
        object.remove("more");
        std::fs::write(&path, manifest.to_string()).unwrap();
        assert_eq!(load(dir.path()).unwrap().unwrap(), state(3));
        // One that was written then: its tensors are not kept, so that they are what is missed, and not the manifest.
        let mut old = vec![];
        let packed: &[u8] = include_bytes!("../../tests/data/format-1/manifest.json.gz");
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(packed), &mut old).unwrap();
        std::fs::write(&path, old).unwrap();
        let error = load(dir.path()).unwrap_err().to_string();
        assert!(error.contains("step-000008") && error.contains("safetensors"), "{error}");
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
