//! The models that are compiled in: the cold-start policy and its teacher.
//!
//! In: a folder. Out: a Hugging Face model folder in it, every file checked against the digest taken when it was compiled
//! in. A build without models works; what is missing is said when it is asked for.

use std::path::Path;

use anyhow::Result;
use hypereyes_chassis::BadInput;
use hypereyes_policy::Error;
use hypereyes_policy::checkpoint;
use hypereyes_policy::checkpoint::save::Place;

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

/// What became of a folder that a model was to be unpacked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unpacked {
    /// The model is there.
    There,
    /// Another sound model was there, which somebody has put in its place: it stays as it is.
    Another,
}

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
    ///
    /// # Errors
    /// [`BadInput`].
    pub fn check(self) -> Result<()> {
        if !self.is_there() {
            let label = self.label();
            let message =
                format!("no {label} is shipped in this build: run `hypereyes sft` first and name its folder with --set {label}=FOLDER");
            return Err(BadInput::new(message).into());
        }
        Ok(())
    }

    /// Puts it into `folder`, which is made if needed. One that is there and right stays untouched, and so does another sound model
    /// in its place; whatever else is there is replaced as a whole.
    ///
    /// # Errors
    /// [`BadInput`] when this build does not have it or the folder cannot be written.
    pub fn unpack(self, folder: &Path) -> Result<Unpacked> {
        self.check()?;
        if self.files().iter().all(|file| is_right(&folder.join(file.name), file.digest)) {
            return Ok(Unpacked::There);
        }
        if checkpoint::read(folder).is_ok() {
            return Ok(Unpacked::Another);
        }
        let place = Place::new(folder).map_err(|error| BadInput::new(error.to_string()))?;
        let write = |fresh: &Path| -> Result<(), Error> {
            for file in self.files() {
                let path = fresh.join(file.name);
                std::fs::write(&path, file.bytes).map_err(|source| Error::Io { path: path.display().to_string(), source })?;
            }
            Ok(())
        };
        let check = |fresh: &Path| match self.files().iter().find(|file| !is_right(&fresh.join(file.name), file.digest)) {
            Some(file) => Err(Error::Input(format!("{} does not read back as it was written; is the disk failing?", file.name))),
            None => Ok(()),
        };
        place.fill(write, check)?;
        Ok(Unpacked::There)
    }
}

fn is_right(path: &Path, digest: &str) -> bool {
    std::fs::read(path).is_ok_and(|bytes| blake3::hash(&bytes).to_hex().as_str() == digest)
}

#[cfg(test)]
mod tests {
    use hypereyes_policy::checkpoint::StoredDtype;

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
            let scratch = tempfile::tempdir().expect("a temporary folder");
            let folder = scratch.path().join("model");
            model.unpack(&folder).expect("unpacks");
            let weights = folder.join("model.safetensors");
            let before = std::fs::read(&weights).expect("a model has weights");
            std::fs::write(&weights, b"damaged").expect("overwritten");
            // What an older model of several files has left.
            let index = folder.join("model.safetensors.index.json");
            std::fs::write(&index, "{}").expect("written");
            std::fs::write(folder.join("notes.txt"), "mine").expect("written");
            model.unpack(&folder).expect("unpacks again");
            assert_eq!(std::fs::read(&weights).expect("there"), before);
            assert!(!index.exists(), "nothing is left beside it");
            assert!(scratch.path().join("model.replaced/notes.txt").exists(), "and nothing of somebody's own is lost");
        }
    }

    #[test]
    fn another_sound_model_in_its_place_stays() {
        for model in [Shipped::Policy, Shipped::Teacher].into_iter().filter(|model| model.is_there()) {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let place = folder.path().join("trained");
            model.unpack(&place).expect("unpacks");
            let (config, mut weights) = checkpoint::read(&place).expect("sound");
            weights.values_mut().for_each(|tensor| tensor.values[0] += 1.0);
            checkpoint::save(&folder.path().join("other"), Some(&place), &config, &weights, StoredDtype::F32).expect("saved");
            let other = folder.path().join("other");
            let before = checkpoint::digest(&other).expect("read");
            assert_eq!(model.unpack(&other).expect("left alone"), Unpacked::Another);
            assert_eq!(checkpoint::digest(&other).expect("read"), before);
        }
    }

    #[test]
    fn both_models_together_fit_their_allowance() {
        assert!(Shipped::Policy.size() + Shipped::Teacher.size() <= MAX_BYTES);
    }
}
