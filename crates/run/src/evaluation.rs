//! The folder of one evaluation: where everything lies, and who holds it.
//!
//! In: a path. Out: paths, a lock, and whether an evaluation may begin or go on there. What its lines mean is known to who writes them.
//!
//! | file | what |
//! |---|---|
//! | `settings.json` | everything that a rollout depends on, written first |
//! | `items.jsonl` | a line per rollout that came to an end, on disk before the next is counted |
//! | `rollouts.jsonl` | [`Played`](crate::Played), the same rollouts token by token |
//! | `report.json`, `report.md`, `report.csv` | what it came to, written last |

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use hypereyes_chassis::BadInput;

/// The folder of an evaluation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvaluationFolder {
    root: PathBuf,
}

/// The right to write into a folder, until it is dropped.
#[derive(Debug)]
pub struct HeldEvaluation {
    _lock: File,
}

impl EvaluationFolder {
    /// The folder at `root`, which need not exist.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What its rollouts depend on.
    pub fn settings(&self) -> PathBuf {
        self.root.join("settings.json")
    }

    /// A line per rollout that came to an end.
    pub fn items(&self) -> PathBuf {
        self.root.join("items.jsonl")
    }

    /// Rollouts, token by token.
    pub fn rollouts(&self) -> PathBuf {
        self.root.join("rollouts.jsonl")
    }

    /// The report: `json`, `md` or `csv`.
    pub fn report(&self, ending: &str) -> PathBuf {
        self.root.join("report").with_extension(ending)
    }

    /// Makes the folder and takes the right to write into it.
    ///
    /// # Errors
    /// [`BadInput`] when it cannot be made, holds something else, or another process writes there.
    pub fn hold(&self) -> Result<HeldEvaluation> {
        let root = self.root.display();
        fs::create_dir_all(&self.root).map_err(|error| BadInput::new(format!("cannot make {root}: {error}; choose another --out")))?;
        let is_own = |name: &std::ffi::OsStr| name == "lock" || name.to_string_lossy().starts_with('.');
        let mut others = fs::read_dir(&self.root).with_context(|| format!("cannot read {root}"))?.filter_map(Result::ok);
        if !self.settings().exists() && others.any(|entry| !is_own(&entry.file_name())) {
            return Err(BadInput::new(format!("{root} is not empty and holds no evaluation: choose another --out")).into());
        }
        let path = self.root.join("lock");
        let lock = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        match lock.try_lock() {
            Ok(()) => Ok(HeldEvaluation { _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                Err(BadInput::new(format!("another `hypereyes eval` is writing into {root}: wait for it, or choose another --out")).into())
            }
            Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_evaluations_cannot_write_into_one_folder_nor_into_what_is_none() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let folder = EvaluationFolder::new(parent.path().join("a/b"));
        let held = folder.hold().expect("made");
        let error = folder.hold().expect_err("taken");
        assert!(error.is::<BadInput>() && error.to_string().contains("another `hypereyes eval`"), "{error}");
        drop(held);
        drop(folder.hold().expect("free again"));
        fs::write(folder.items(), "").expect("written");
        assert!(folder.hold().expect_err("no settings").to_string().contains("holds no evaluation"));
        fs::write(folder.settings(), "{}").expect("written");
        folder.hold().expect("an evaluation");
        let file = EvaluationFolder::new(folder.items().join("c"));
        assert!(file.hold().expect_err("a file is in the way").is::<BadInput>());
        assert_eq!(folder.report("md"), folder.root().join("report.md"));
    }
}
