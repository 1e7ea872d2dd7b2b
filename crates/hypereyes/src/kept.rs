//! What `sft` keeps while it trains, beside the folder that it will write: `OUT.checkpoint`.
//!
//! In: the name of that folder, states. Out: the state that a cut run goes on from, refusals of what would mix two runs, and the
//! command with which it goes on.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use hypereyes_chassis::{BadInput, exit};
use hypereyes_trainer::sft::checkpoint::{self, State, Terms};

use crate::output;

/// The checkpoint of one cold start.
pub struct Kept {
    dir: PathBuf,
    /// Step of the newest checkpoint that is there.
    step: Option<usize>,
    held: Option<File>,
}

impl Kept {
    /// Looks for what a run that was cut has left beside `out`; makes nothing.
    ///
    /// # Errors
    /// [`BadInput`] when there is nothing to resume, or something that a new run would destroy.
    pub fn find(out: &Path, resume: bool) -> Result<(Self, Option<State>)> {
        let mut name = out.as_os_str().to_owned();
        name.push(".checkpoint");
        let dir = PathBuf::from(name);
        if resume && !dir.exists() {
            let message = format!("no run to {} was cut (there is no {}): leave --resume out to start one", out.display(), dir.display());
            return Err(BadInput::new(message).into());
        }
        if let Some(name) = foreign(&dir) {
            let message = format!(
                "{} holds {name:?}, which no run keeps there, and the folder goes when the run is done: move it away, or give another --out",
                dir.display()
            );
            return Err(BadInput::new(message).into());
        }
        let state = checkpoint::load(&dir).map_err(|error| BadInput::new(error.to_string()))?;
        let kept = Self { dir, step: state.as_ref().map(|state| state.cursor.step), held: None };
        match (&state, resume) {
            (Some(state), false) => {
                let (step, advice, dir) = (state.cursor.step, kept.advice(), kept.dir.display());
                bail!(BadInput::new(format!(
                    "a run to {} was cut after step {step}: {advice}; or remove {dir} to start anew",
                    out.display()
                )))
            }
            (None, true) => output::note(&format!("{} holds no checkpoint yet: the run starts from its beginning", kept.dir.display())),
            _ => {}
        }
        Ok((kept, state))
    }

    /// Refuses other terms than those that the run began with, and says which new ones take effect.
    ///
    /// # Errors
    /// [`BadInput`] that names the first key.
    pub fn check_terms(&self, state: &State, now: &Terms) -> Result<()> {
        let changes = state.terms.changes(now);
        if let Some(change) = changes.iter().find(|change| !change.free) {
            let dir = self.dir.display();
            let message =
                format!("the run in {dir} cannot go on with other settings: {change}; give the old ones, or remove {dir} to start anew");
            return Err(BadInput::new(message).into());
        }
        output::note(&format!("goes on after step {}", state.cursor.step));
        for change in changes {
            output::note(&format!("takes effect from the next step on: {change}"));
        }
        Ok(())
    }

    /// Makes the folder and takes the right to write into it.
    ///
    /// # Errors
    /// [`BadInput`] when it cannot be made or another process holds it.
    pub fn hold(&mut self) -> Result<()> {
        let dir = self.dir.display();
        fs::create_dir_all(&self.dir).map_err(|error| BadInput::new(format!("cannot make {dir}: {error}")))?;
        let lock = File::create(self.dir.join("lock")).map_err(|error| BadInput::new(format!("cannot write into {dir}: {error}")))?;
        match lock.try_lock() {
            Ok(()) => self.held = Some(lock),
            Err(TryLockError::WouldBlock) => {
                bail!(BadInput::new(format!("another `hypereyes sft` is at work in {dir}: wait for it, or give another --out")))
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(|| format!("cannot lock {dir}")),
        }
        Ok(())
    }

    /// Keeps a state in place of the one before.
    ///
    /// # Errors
    /// Those of the file system; the one before then stays in force.
    pub fn save(&mut self, state: &State) -> Result<()> {
        checkpoint::save(&self.dir, state)?;
        if self.step.is_none() {
            output::note(&format!("a checkpoint is kept in {}; if this run is cut, {}", self.dir.display(), self.advice()));
        }
        self.step = Some(state.cursor.step);
        Ok(())
    }

    /// The error with the way to go on.
    pub fn with_advice(&self, error: anyhow::Error) -> anyhow::Error {
        let text = exit::line_of(error.as_ref());
        match self.step {
            Some(step) => anyhow!("{text}; what was trained up to step {step} is kept: {}", self.advice()),
            None => {
                // Nobody could go on from here.
                let _ = fs::remove_dir_all(&self.dir);
                anyhow!("{text}; nothing was written")
            }
        }
    }

    /// The policy is written: nothing is left to go on with.
    pub fn done(self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            output::note(&format!("{} is no longer needed and cannot be removed: {error}", self.dir.display()));
        }
    }

    fn advice(&self) -> String {
        format!("go on with: {}", command(std::env::args()))
    }
}

/// Something in the folder that is none of ours, if there is any: the folder is removed as a whole.
fn foreign(dir: &Path) -> Option<String> {
    let names = fs::read_dir(dir).ok()?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    // A manifest that is being written has more to its name.
    let ours = |name: &str| name == "lock" || name.starts_with("step-") || name.contains("manifest.json");
    names.into_iter().find(|name| !ours(name))
}

/// This process's command line, to be given to a shell, with `--resume`.
fn command(arguments: impl Iterator<Item = String>) -> String {
    let plain = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c));
    let quoted = |text: String| if plain(&text) { text } else { format!("'{}'", text.replace('\'', r"'\''")) };
    let mut words: Vec<String> = arguments.map(quoted).collect();
    if !words.iter().any(|word| word == "--resume") {
        words.push("--resume".into());
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_what_a_shell_takes() {
        let words = |list: &[&str]| command(list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>().into_iter());
        assert_eq!(
            words(&["hypereyes", "sft", "--out", "my policy", "--set", "sft.lr=1e-3"]),
            "hypereyes sft --out 'my policy' --set sft.lr=1e-3 --resume"
        );
        assert_eq!(words(&["hypereyes", "sft", "--resume", "it's"]), r"hypereyes sft --resume 'it'\''s'");
    }

    #[test]
    fn there_is_something_to_resume_or_it_is_said() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let out = folder.path().join("cold");
        let Err(error) = Kept::find(&out, true) else { panic!("nothing to resume") };
        assert!(error.is::<BadInput>() && error.to_string().contains("leave --resume out"), "{error}");
        let (mut kept, state) = Kept::find(&out, false).expect("nothing in the way");
        assert!(state.is_none() && !folder.path().join("cold.checkpoint").exists());
        kept.hold().expect("free");
        let (mut second, state) = Kept::find(&out, true).expect("begun");
        assert!(state.is_none());
        assert!(second.hold().expect_err("held").to_string().contains("another `hypereyes sft`"));
        assert!(kept.with_advice(anyhow!("it broke")).to_string().contains("nothing was written"));
        // Somebody else's folder of that name is not taken: it would be removed.
        fs::create_dir(folder.path().join("cold.checkpoint")).expect("made");
        fs::write(folder.path().join("cold.checkpoint/notes.txt"), "mine").expect("written");
        let Err(error) = Kept::find(&out, false) else { panic!("it holds somebody's notes") };
        assert!(error.is::<BadInput>() && error.to_string().contains("notes.txt"), "{error}");
    }
}
