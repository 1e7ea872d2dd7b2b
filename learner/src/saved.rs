//! What the learner says of the policy that it saved last: of which step it is, and the digest of its tensors.
//!
//! In: the learner's folder. Out: `policy.json` beside `policy/`, written once the folder is in place. Without it, a folder left
//! by an earlier checkpoint could be taken for the trained policy.

use std::path::{Path, PathBuf};

use hypereyes_chassis::atomic;
use hypereyes_policy::checkpoint;
use serde::{Deserialize, Serialize};

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Optimiser steps done.
    pub step: u64,
    /// Digest of all tensors.
    pub digest: String,
}

fn path(out: &Path) -> PathBuf {
    out.join("policy.json")
}

/// The folder of the policy.
pub fn policy(out: &Path) -> PathBuf {
    out.join("policy")
}

impl Receipt {
    /// Writes it.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self, out: &Path) -> std::io::Result<()> {
        atomic::write(&path(out), &serde_json::to_vec_pretty(self).expect("plain values"))
    }

    /// Reads it; `None` when there is none that could be read.
    pub fn read(out: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path(out)).ok()?).ok()
    }

    /// Whether the policy is what was saved.
    ///
    /// # Errors
    /// [`hypereyes_policy::Error`] that says what is not.
    pub fn check(&self, out: &Path) -> Result<(), hypereyes_policy::Error> {
        let found = checkpoint::digest(&policy(out))?;
        if found == self.digest {
            return Ok(());
        }
        let (policy, found, saved) = (policy(out), &found[..16], &self.digest[..self.digest.floor_char_boundary(16)]);
        Err(hypereyes_policy::Error::Input(format!(
            "{} holds other tensors ({found}) than the learner saved after step {} ({saved})",
            policy.display(),
            self.step
        )))
    }
}

#[cfg(test)]
mod tests {
    use hypereyes_policy::checkpoint::StoredDtype;
    use hypereyes_policy::config::TinyConfig;
    use hypereyes_policy::init;

    use super::*;

    #[test]
    fn a_folder_of_another_step_is_not_what_was_saved() {
        let out = tempfile::tempdir().unwrap();
        assert_eq!(Receipt::read(out.path()), None);
        let tiny = TinyConfig { width: 16, layers: 1, heads: 2, inner: 16, vision_width: 16, vision_depth: 1 };
        let config = tiny.model(40, 36, 37, 38);
        let save = |seed| {
            let weights = init::fresh(&config, &Default::default(), seed);
            checkpoint::save(&policy(out.path()), None, &config, &weights, StoredDtype::F32).unwrap().digest
        };
        let receipt = Receipt { step: 3, digest: save(1) };
        receipt.write(out.path()).unwrap();
        assert_eq!(Receipt::read(out.path()), Some(receipt.clone()));
        receipt.check(out.path()).unwrap();
        save(2);
        assert!(receipt.check(out.path()).unwrap_err().to_string().contains("other tensors"));
    }
}
