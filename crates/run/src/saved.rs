//! What the learner says of the policy that it saved last: of which step it is, and the digest of its tensors.
//!
//! In: the learner's folder. Out: `policy.json` beside `policy/`, written once the folder is in place. Without it, a folder left
//! by an earlier checkpoint could be taken for the trained policy.

use std::path::Path;

use hypereyes_outside::atomic;
use serde::{Deserialize, Serialize};

use crate::folder::LearnerFolder;

/// Largest such file that is read.
const MAX_BYTES: u64 = 64 << 10;

/// What is said of a saved policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPolicy {
    /// Optimiser steps done.
    pub step: u64,
    /// Digest of all tensors.
    pub digest: String,
}

impl SavedPolicy {
    /// Writes it into the learner's folder.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self, out: &Path) -> std::io::Result<()> {
        atomic::write(&LearnerFolder::new(out).saved(), &serde_json::to_vec_pretty(self).expect("plain values"))
    }

    /// Reads it from the learner's folder; `None` when there is none that could be read.
    pub fn read(out: &Path) -> Option<Self> {
        let bytes = hypereyes_outside::files::read(&LearnerFolder::new(out).saved(), MAX_BYTES).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Whether the policy in the learner's folder, whose tensors have the digest `found`, is what was saved.
    ///
    /// # Errors
    /// What it is instead.
    pub fn check(&self, out: &Path, found: &str) -> Result<(), String> {
        if found == self.digest {
            return Ok(());
        }
        let short = |digest: &str| digest[..digest.floor_char_boundary(16)].to_owned();
        Err(format!(
            "{} holds other tensors ({}) than the learner saved after step {} ({})",
            LearnerFolder::new(out).policy().display(),
            short(found),
            self.step,
            short(&self.digest)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_another_step_is_not_what_was_saved() {
        let out = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(SavedPolicy::read(out.path()), None);
        let saved = SavedPolicy { step: 3, digest: "0123456789abcdef0123".into() };
        saved.write(out.path()).expect("written");
        assert_eq!(SavedPolicy::read(out.path()), Some(saved.clone()));
        saved.check(out.path(), &saved.digest).expect("the same");
        assert!(saved.check(out.path(), "fedcba9876543210").expect_err("another").contains("other tensors"));
    }
}
