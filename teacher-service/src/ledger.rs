//! What survives the process: which models are loaded, and every promotion. In: changes. Out: a file that holds the last
//! acknowledged state, whole, whenever the process may die. Knows no model.

use std::io;
use std::path::{Path, PathBuf};

use hypereyes_chassis::{BadInput, atomic};
use hypereyes_domain::{Promotion, TeacherId};
use serde::{Deserialize, Serialize};

/// Name of the file in its folder.
pub const FILE: &str = "registry.json";
/// Largest file that is read.
const MAX_BYTES: u64 = 16 << 20;
/// Promotions that are remembered; the oldest are forgotten.
const MAX_HISTORY: usize = 1000;
/// The format that this program writes and reads.
const FORMAT: u32 = 1;

/// A model that was loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// Its name.
    pub id: TeacherId,
    /// Where it came from.
    pub source: String,
    /// The digest that its files had; empty where they are not here.
    pub digest: String,
}

/// All that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    format: u32,
    /// In the order of loading.
    pub models: Vec<Kept>,
    /// The oldest first; the last one is in force.
    pub history: Vec<Promotion>,
}

impl Default for State {
    fn default() -> Self {
        Self { format: FORMAT, models: vec![], history: vec![] }
    }
}

/// Puts bytes on disk so that a crash at any moment leaves the old ones or the new.
pub type Write = fn(&Path, &[u8]) -> io::Result<()>;

/// The state, and the file that it is in.
#[derive(Debug)]
pub struct Ledger {
    /// None where nothing is kept.
    path: Option<PathBuf>,
    write: Write,
    state: State,
}

impl Ledger {
    /// Opens the ledger of a folder, which is made if needed; without one, nothing survives.
    ///
    /// # Errors
    /// [`BadInput`] when the folder cannot be used or its file is damaged.
    pub fn open(folder: Option<&Path>) -> Result<Self, BadInput> {
        Self::open_with(folder, atomic::write)
    }

    /// The same with another way to write, for those who try what a crash leaves.
    ///
    /// # Errors
    /// As [`Ledger::open`].
    pub fn open_with(folder: Option<&Path>, write: Write) -> Result<Self, BadInput> {
        let Some(folder) = folder else { return Ok(Self { path: None, write, state: State::default() }) };
        let path = folder.join(FILE);
        let bad = |what: String| BadInput::new(format!("store: {}: {what}", path.display()));
        std::fs::create_dir_all(folder).map_err(|error| bad(error.to_string()))?;
        let state = match hypereyes_outside::files::read(&path, MAX_BYTES) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => State::default(),
            Err(error) => return Err(bad(error.to_string())),
            Ok(bytes) => {
                let advice = "the file is damaged or another program's; remove it, and load and promote the models again";
                let state: State = serde_json::from_slice(&bytes).map_err(|error| bad(format!("{error}; {advice}")))?;
                if state.format > FORMAT {
                    let (format, release) = (state.format, env!("CARGO_PKG_VERSION"));
                    return Err(bad(format!(
                        "it is of format {format}, and this release ({release}) reads formats up to {FORMAT}: use the release that wrote it, or \
                         remove it, and load and promote the models again"
                    )));
                }
                if state.format == 0 {
                    return Err(bad(format!("there is no format 0; {advice}")));
                }
                state
            }
        };
        Ok(Self { path: Some(path), write, state })
    }

    /// What is kept.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Keeps a model.
    ///
    /// # Errors
    /// Those of the disk; nothing has changed then.
    pub fn loaded(&mut self, kept: Kept) -> io::Result<()> {
        self.change(|state| {
            state.models.retain(|model| model.id != kept.id);
            state.models.push(kept);
        })
    }

    /// Keeps a promotion.
    ///
    /// # Errors
    /// Those of the disk; nothing has changed then.
    pub fn promoted(&mut self, id: &TeacherId, at: u64) -> io::Result<Promotion> {
        let last = self.state.history.last();
        let (revision, previous) = (last.map_or(0, |last| last.revision) + 1, last.map(|last| last.id.clone()));
        let promotion = Promotion { revision, id: id.clone(), previous, at };
        self.change(|state| {
            state.history.push(promotion.clone());
            let surplus = state.history.len().saturating_sub(MAX_HISTORY);
            state.history.drain(..surplus);
        })?;
        Ok(promotion)
    }

    /// Forgets a model.
    ///
    /// # Errors
    /// Those of the disk; nothing has changed then.
    pub fn retired(&mut self, id: &TeacherId) -> io::Result<()> {
        self.change(|state| state.models.retain(|model| model.id != *id))
    }

    fn change(&mut self, change: impl FnOnce(&mut State)) -> io::Result<()> {
        let mut next = self.state.clone();
        change(&mut next);
        if let Some(path) = &self.path {
            let bytes = serde_json::to_vec_pretty(&next).expect("plain data");
            (self.write)(path, &bytes)?;
        }
        self.state = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(id: &str) -> Kept {
        Kept { id: id.into(), source: format!("/{id}"), digest: String::new() }
    }

    #[test]
    fn what_was_acknowledged_is_there_again() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut ledger = Ledger::open(Some(folder.path())).expect("opens");
        ledger.loaded(kept("a")).expect("writes");
        ledger.loaded(kept("b")).expect("writes");
        assert_eq!(ledger.promoted(&"a".into(), 1).expect("writes").revision, 1);
        let second = ledger.promoted(&"b".into(), 2).expect("writes");
        assert_eq!((second.revision, second.previous), (2, Some("a".into())));
        ledger.retired(&"a".into()).expect("writes");
        let again = Ledger::open(Some(folder.path())).expect("opens");
        assert_eq!(again.state(), ledger.state());
        assert_eq!(again.state().models, [kept("b")]);
    }

    #[test]
    fn a_failing_disk_changes_nothing() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut ledger = Ledger::open_with(Some(folder.path()), |_, _| Err(io::Error::other("full"))).expect("opens");
        assert!(ledger.loaded(kept("a")).is_err() && ledger.promoted(&"a".into(), 1).is_err());
        assert_eq!(ledger.state(), &State::default());
    }

    #[test]
    fn what_an_earlier_release_wrote_is_read_and_what_is_of_later_is_refused_in_a_line() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join(FILE), include_str!("../../tests/data/format-1/registry.json")).expect("writes");
        let ledger = Ledger::open(Some(folder.path())).expect("an earlier release's");
        let state = ledger.state();
        assert_eq!((state.models[0].id.as_str(), state.history.len(), state.history[0].revision), ("teacher", 1, 1));
        std::fs::write(folder.path().join(FILE), r#"{"format":9,"models":[],"history":[]}"#).expect("writes");
        let error = Ledger::open(Some(folder.path())).expect_err("of later").to_string();
        assert!(error.contains("format 9") && error.contains("up to 1") && !error.contains('\n'), "{error}");
    }

    #[test]
    fn a_damaged_file_is_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for text in ["", "{", "[]", r#"{"format":9,"models":[],"history":[]}"#, r#"{"format":1,"models":[],"history":[],"more":1}"#] {
            std::fs::write(folder.path().join(FILE), text).expect("writes");
            let error = Ledger::open(Some(folder.path())).expect_err(text).to_string();
            assert!(error.contains(FILE) && error.contains("remove it"), "{error}");
        }
    }

    #[test]
    fn a_long_history_is_cut_at_its_beginning() {
        let mut ledger = Ledger::open(None).expect("opens");
        for _ in 0..MAX_HISTORY + 5 {
            ledger.promoted(&"a".into(), 0).expect("keeps");
        }
        assert_eq!((ledger.state().history.len(), ledger.state().history[0].revision), (MAX_HISTORY, 6));
    }
}
