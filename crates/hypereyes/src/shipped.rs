//! The models that are compiled in: the cold-start policy and its teacher.
//!
//! In: a folder. Out: a Hugging Face model folder in it, every file checked against the digest taken when it was compiled
//! in. A build without models works; what is missing is said when it is asked for.

use std::path::Path;

use anyhow::{Context, Result, bail};
use hypereyes_chassis::{BadInput, atomic};

/// Most bytes of both models together.
pub const MAX_BYTES: usize = 24 << 20;

/// One file of a model.
struct File {
    name: &'static str,
    /// BLAKE3, hex.
    digest: &'static str,
    bytes: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/shipped_files.rs"));

/// A model that is compiled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shipped {
    /// What reinforcement learning starts from.
    Policy,
    /// What gives log-probs for failed rollouts.
    Teacher,
}

impl Shipped {
    /// Its name in messages and its folder under `assets/`.
    pub fn label(self) -> &'static str {
        match self {
            Shipped::Policy => "policy",
            Shipped::Teacher => "teacher",
        }
    }

    fn files(self) -> &'static [File] {
        match self {
            Shipped::Policy => POLICY,
            Shipped::Teacher => TEACHER,
        }
    }

    /// Whether this build has it.
    pub fn is_there(self) -> bool {
        !self.files().is_empty()
    }

    /// Its size in bytes.
    pub fn size(self) -> usize {
        self.files().iter().map(|file| file.bytes.len()).sum()
    }

    /// Refuses, as bad input, when this build does not have it.
    pub fn check(self) -> Result<()> {
        if !self.is_there() {
            let label = self.label();
            let message =
                format!("no {label} is shipped in this build: run `hypereyes sft` first and name its folder with --set {label}=FOLDER");
            return Err(BadInput::new(message).into());
        }
        Ok(())
    }

    /// Writes it into `folder`, which is made if needed. Files that are there and right stay untouched.
    pub fn unpack(self, folder: &Path) -> Result<()> {
        self.check()?;
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        for file in self.files() {
            let path = folder.join(file.name);
            if is_right(&path, file.digest) {
                continue;
            }
            atomic::write(&path, file.bytes).with_context(|| format!("cannot write {}", path.display()))?;
            if !is_right(&path, file.digest) {
                bail!("{} does not read back as it was written; is the disk full or failing?", path.display());
            }
        }
        Ok(())
    }
}

fn is_right(path: &Path, digest: &str) -> bool {
    std::fs::read(path).is_ok_and(|bytes| blake3::hash(&bytes).to_hex().as_str() == digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_with_what_to_do() {
        for model in [Shipped::Policy, Shipped::Teacher] {
            let Err(error) = model.check() else { continue };
            assert!(error.to_string().contains("hypereyes sft"), "{error}");
            assert!(error.is::<BadInput>());
        }
    }

    #[test]
    fn unpacked_models_are_whole_and_damage_is_repaired() {
        for model in [Shipped::Policy, Shipped::Teacher].into_iter().filter(|model| model.is_there()) {
            let folder = tempfile::tempdir().expect("a temporary folder");
            model.unpack(folder.path()).expect("unpacks");
            let weights = folder.path().join("model.safetensors");
            let before = std::fs::read(&weights).expect("a model has weights");
            std::fs::write(&weights, b"damaged").expect("overwritten");
            model.unpack(folder.path()).expect("unpacks again");
            assert_eq!(std::fs::read(&weights).expect("there"), before);
        }
    }

    #[test]
    fn both_models_together_fit_their_allowance() {
        assert!(Shipped::Policy.size() + Shipped::Teacher.size() <= MAX_BYTES);
    }
}
