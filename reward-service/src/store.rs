//! References on disk: an embedded database, one transaction for many commands, durable before anybody is told.
//!
//! In: commands. Out: outcomes, the tasks whose state changed, history. It is the one place that decides what a command does;
//! memory follows it. A crash at any moment leaves the last acknowledged state or a later one.
//!
//! Not known here: threads, scoring, the wire.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use hypereyes_domain::{Reference, TaskId};
use hypereyes_scoring::{Known, ReferenceMode, Tightened};
use redb::backends::{FileBackend, InMemoryBackend};
use redb::{Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageBackend, Table, TableDefinition, WriteTransaction};
use thiserror::Error;

use crate::backup;
use crate::change::{Cause, Change, Outcome, Print, Provenance, StoreCommand};

mod heal;

/// Task to (committed rounds, committed searches, pending rounds, pending searches); 0 rounds is none.
const KNOWN: TableDefinition<&str, (u32, u32, u32, u32)> = TableDefinition::new("known");
/// Task to who showed its pending candidate, as JSON.
const WITNESSES: TableDefinition<&str, &[u8]> = TableDefinition::new("witnesses");
/// Task to the fingerprint of its question. Stores of earlier versions have none, and get it as their tasks are scored.
const PRINTS: TableDefinition<&str, u64> = TableDefinition::new("prints");
/// Number to change, as JSON.
const CHANGES: TableDefinition<u64, &[u8]> = TableDefinition::new("changes");
/// (Task, number) of each change.
const BY_TASK: TableDefinition<(&str, u64), ()> = TableDefinition::new("changes_by_task");
/// Epoch to the number of changes when it began.
const EPOCHS: TableDefinition<u64, u64> = TableDefinition::new("epochs");
/// Counters: `format`, `epoch`, `changes`.
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// What this version writes.
const FORMAT: u64 = 1;
/// Bytes of the database's page cache. Memory holds the references themselves; the cache serves writes.
const CACHE_BYTES: usize = 32 << 20;

/// The store cannot be read or written.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The operating system or the database said no.
    #[error("cannot {action} {path}: {reason}; check the disk and the permissions of the store")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// Another process has the store.
    #[error("{path} is in use by another process; give each reward service its own store")]
    InUse {
        /// The database.
        path: PathBuf,
    },
    /// A later release wrote it.
    #[error("{path} is of format {format}, and this release ({release}) reads formats up to {FORMAT}: use the release that wrote it, or another store", release = env!("CARGO_PKG_VERSION"))]
    Later {
        /// The database.
        path: PathBuf,
        /// Its format.
        format: u64,
    },
    /// The database holds something else than was written.
    #[error("{path} is damaged ({reason}); {advice}")]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What is wrong.
        reason: String,
        /// What brings the last sound state back.
        advice: String,
    },
    /// An epoch is committed out of its turn.
    #[error("epoch {asked} cannot be committed: the next one is {next}; commit that, or import the references of epoch {} first", asked - 1)]
    WrongEpoch {
        /// The number that was asked for.
        asked: u64,
        /// The number that is next.
        next: u64,
    },
    /// A snapshot that was never made.
    #[error("there is no snapshot {asked}: the newest is {newest}")]
    NoSnapshot {
        /// The number that was asked for.
        asked: u64,
        /// The newest.
        newest: u64,
    },
    /// The thread that writes has ended.
    #[error("the journal has ended; restart the service")]
    Ended,
    /// A write took too long.
    #[error("the journal did not answer within {seconds} s; try again")]
    Late {
        /// How long was waited.
        seconds: u64,
    },
}

/// The database.
#[derive(Debug)]
pub struct Store {
    database: Database,
    path: PathBuf,
}

/// Whether a command was applied: its outcome, or why it changed nothing.
pub type Heard = Result<Outcome, StoreError>;

/// What a batch of commands did.
#[derive(Debug)]
pub struct Written {
    /// One per command.
    pub outcomes: Vec<Heard>,
    /// New state of every task that changed.
    pub known: BTreeMap<TaskId, Known>,
    /// Fingerprints that became known.
    pub prints: BTreeMap<TaskId, Print>,
    /// Epoch afterwards.
    pub epoch: u64,
    /// Changes that were made.
    pub changes: Vec<Change>,
}

impl Store {
    /// Opens the store in `folder`, making it if need be, and checks every page of it.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join("references.redb");
        let io = |action, reason: std::io::Error| StoreError::Io { action, path: path.clone(), reason: reason.to_string() };
        fs::create_dir_all(folder).map_err(|error| io("create", error))?;
        let store = Self::open_file(&path)?;
        // A new file's name survives a crash only once its folder is synced.
        fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| io("sync the folder of", error))?;
        Ok(store)
    }

    /// Opens a database file, making it if need be, and checks every page of it.
    pub fn open_file(path: &Path) -> Result<Self, StoreError> {
        let io = |action, reason: std::io::Error| StoreError::Io { action, path: path.to_owned(), reason: reason.to_string() };
        let mut options = fs::OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(path).map_err(|error| io("open", error))?;
        let backend = FileBackend::new(file).map_err(|error| fault("open", path, error.into()))?;
        Self::on(backend, path.to_owned())
    }

    /// A store that lives as long as the process.
    pub fn in_memory() -> Result<Self, StoreError> {
        Self::on(InMemoryBackend::new(), PathBuf::from("memory"))
    }

    /// A store on any backend; `path` is what errors call it.
    pub fn on(backend: impl StorageBackend, path: PathBuf) -> Result<Self, StoreError> {
        let mut builder = Builder::new();
        builder.set_cache_size(CACHE_BYTES);
        // The database panics on some kinds of damage.
        let opened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut database = builder.create_with_backend(backend)?;
            let sound = database.check_integrity()?;
            Ok::<_, DatabaseError>((database, sound))
        }));
        let (database, sound) = match opened {
            Ok(opened) => opened.map_err(|error| fault("open", &path, error.into()))?,
            Err(_) => return Err(damaged(&path, "its pages contradict each other".into())),
        };
        if !sound {
            return Err(damaged(&path, "pages do not have the checksums that they were written with".into()));
        }
        let this = Self { database, path };
        this.prepare()?;
        Ok(this)
    }

    /// Makes the tables and checks the format.
    fn prepare(&self) -> Result<(), StoreError> {
        let format = self.write_to(|tables| {
            let format = tables.meta.get("format")?.map(|format| format.value());
            if format.is_none() {
                tables.meta.insert("format", FORMAT)?;
            }
            Ok(format.unwrap_or(FORMAT))
        })?;
        if format > FORMAT {
            return Err(StoreError::Later { path: self.path.clone(), format });
        }
        if format == 0 {
            return Err(damaged(&self.path, "there is no format 0".to_owned()));
        }
        Ok(())
    }

    /// All that is known, the epoch, and the number of changes.
    pub fn read(&self) -> Result<(BTreeMap<TaskId, Known>, u64, u64), StoreError> {
        self.read_from(|transaction| {
            let mut all = BTreeMap::new();
            for entry in transaction.open_table(KNOWN)?.iter()? {
                let (task, known) = entry?;
                all.insert(TaskId::new(task.value()), unpack(known.value()));
            }
            let meta = transaction.open_table(META)?;
            let number = |key| meta.get(key).map(|value| value.map_or(0, |value| value.value()));
            Ok((all, number("epoch")?, number("changes")?))
        })
    }

    /// What tasks ask, as far as it is known.
    pub fn prints(&self) -> Result<BTreeMap<TaskId, Print>, StoreError> {
        self.read_from(|transaction| {
            let mut all = BTreeMap::new();
            for entry in transaction.open_table(PRINTS)?.iter()? {
                let (task, print) = entry?;
                all.insert(TaskId::new(task.value()), Print(print.value()));
            }
            Ok(all)
        })
    }

    /// The newest changes of a task, the newest first; at most `most`.
    pub fn history(&self, task: &TaskId, most: usize) -> Result<Vec<Change>, StoreError> {
        self.read_from(|transaction| {
            let (index, changes) = (transaction.open_table(BY_TASK)?, transaction.open_table(CHANGES)?);
            let mut found = vec![];
            for entry in index.range((task.as_str(), 0)..=(task.as_str(), u64::MAX))?.rev().take(most) {
                let (key, _) = entry?;
                if let Some(change) = changes.get(key.value().1)? {
                    found.extend(serde_json::from_slice::<Change>(change.value()).ok());
                }
            }
            Ok(found)
        })
    }

    /// Applies the commands in one transaction. When this returns `Ok`, what it says survives a crash; after an error nothing of it
    /// has happened.
    pub fn write(&self, commands: &[StoreCommand]) -> Result<Written, StoreError> {
        self.write_to(|tables| {
            let mut written = Written { outcomes: vec![], known: BTreeMap::new(), prints: BTreeMap::new(), epoch: 0, changes: vec![] };
            let mut transaction =
                StoreTransaction { epoch: tables.number("epoch")?, changes: tables.number("changes")?, tables, written: &mut written };
            for command in commands {
                let outcome = transaction.apply(command)?;
                transaction.written.outcomes.push(outcome);
            }
            let (epoch, changes) = (transaction.epoch, transaction.changes);
            tables.meta.insert("epoch", epoch)?;
            tables.meta.insert("changes", changes)?;
            written.epoch = epoch;
            Ok(written)
        })
    }

    fn read_from<T>(&self, work: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        let read = || work(&self.database.begin_read()?);
        read().map_err(|error| fault("read", &self.path, error))
    }

    fn write_to<T>(&self, work: impl FnOnce(&mut Tables<'_>) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        let write = || {
            let transaction = self.database.begin_write()?;
            let done = work(&mut Tables::open(&transaction)?)?;
            transaction.commit()?;
            Ok(done)
        };
        write().map_err(|error| fault("write", &self.path, error))
    }
}

struct Tables<'a> {
    known: Table<'a, &'static str, (u32, u32, u32, u32)>,
    witnesses: Table<'a, &'static str, &'static [u8]>,
    prints: Table<'a, &'static str, u64>,
    changes: Table<'a, u64, &'static [u8]>,
    by_task: Table<'a, (&'static str, u64), ()>,
    epochs: Table<'a, u64, u64>,
    meta: Table<'a, &'static str, u64>,
}

impl<'a> Tables<'a> {
    fn open(transaction: &'a WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            known: transaction.open_table(KNOWN)?,
            witnesses: transaction.open_table(WITNESSES)?,
            prints: transaction.open_table(PRINTS)?,
            changes: transaction.open_table(CHANGES)?,
            by_task: transaction.open_table(BY_TASK)?,
            epochs: transaction.open_table(EPOCHS)?,
            meta: transaction.open_table(META)?,
        })
    }

    fn number(&self, key: &str) -> Result<u64, redb::Error> {
        Ok(self.meta.get(key)?.map_or(0, |value| value.value()))
    }

    fn known(&self, task: &TaskId) -> Result<Known, redb::Error> {
        Ok(self.known.get(task.as_str())?.map_or(Known::default(), |known| unpack(known.value())))
    }

    fn asks_another(&self, task: &TaskId, print: Print) -> Result<bool, redb::Error> {
        Ok(self.prints.get(task.as_str())?.is_some_and(|known| known.value() != print.0))
    }

    fn witness(&self, task: &TaskId) -> Result<Option<Provenance>, redb::Error> {
        Ok(self.witnesses.get(task.as_str())?.and_then(|by| serde_json::from_slice(by.value()).ok()))
    }
}

/// Where commands are applied, one after the other, within one transaction.
struct StoreTransaction<'a, 'b> {
    tables: &'a mut Tables<'b>,
    written: &'a mut Written,
    epoch: u64,
    changes: u64,
}

impl StoreTransaction<'_, '_> {
    fn apply(&mut self, command: &StoreCommand) -> Result<Heard, redb::Error> {
        let mut outcome = Outcome::default();
        match command {
            // Of two questions that race for one id, the first has it, and the other's success is none of its.
            StoreCommand::Observe { task, print, .. } if self.tables.asks_another(task, *print)? => {}
            StoreCommand::Observe { mode, task, print, seen, by } => {
                let mut known = self.tables.known(task)?;
                if known.is_news(*mode, *seen) {
                    outcome.applied = true;
                    let changed = known.observe(*mode, *seen);
                    self.put(task, known)?;
                    self.claim(task, *print)?;
                    match changed {
                        Some(changed) => self.record(task, Cause::Observation, changed, Some(by.clone()), &mut outcome)?,
                        None if *mode == ReferenceMode::Epoch => {
                            let by = serde_json::to_vec(by).expect("a witness is plain data");
                            self.tables.witnesses.insert(task.as_str(), by.as_slice())?;
                        }
                        None => {}
                    }
                }
            }
            StoreCommand::Claim { task, print } => {
                outcome.applied = self.tables.known(task)? != Known::default() && self.claim(task, *print)?;
            }
            StoreCommand::Commit { epoch } if *epoch > self.epoch + 1 => {
                return Ok(Err(StoreError::WrongEpoch { asked: *epoch, next: self.epoch + 1 }));
            }
            StoreCommand::Commit { epoch } if *epoch == self.epoch + 1 => {
                outcome.applied = true;
                self.epoch = *epoch;
                let before = self.changes;
                for task in self.waiting()? {
                    let mut known = self.tables.known(&task)?;
                    let by = self.tables.witness(&task)?;
                    if let Some(changed) = known.commit() {
                        self.put(&task, known)?;
                        self.record(&task, Cause::Commit, changed, by, &mut outcome)?;
                    }
                }
                self.begin(*epoch, before)?;
            }
            StoreCommand::Commit { .. } => {}
            StoreCommand::Import { epoch, references } => {
                let before = self.changes;
                for (task, reference) in references {
                    let mut known = self.tables.known(task)?;
                    if let Some(changed) = known.observe(ReferenceMode::Immediate, *reference) {
                        outcome.applied = true;
                        self.put(task, known)?;
                        self.record(task, Cause::Import, changed, None, &mut outcome)?;
                    }
                }
                if *epoch > self.epoch {
                    outcome.applied = true;
                    self.epoch = *epoch;
                    self.begin(*epoch, before)?;
                }
            }
            StoreCommand::Restore { snapshot } if *snapshot > self.changes => {
                return Ok(Err(StoreError::NoSnapshot { asked: *snapshot, newest: self.changes }));
            }
            StoreCommand::Restore { snapshot } => self.restore(*snapshot, &mut outcome)?,
        }
        (outcome.epoch, outcome.snapshot) = (self.epoch, self.changes);
        Ok(Ok(outcome))
    }

    /// Notes what a task asks, unless that is known.
    fn claim(&mut self, task: &TaskId, print: Print) -> Result<bool, redb::Error> {
        let new = self.tables.prints.get(task.as_str())?.is_none();
        if new {
            self.tables.prints.insert(task.as_str(), print.0)?;
            self.written.prints.insert(task.clone(), print);
        }
        Ok(new)
    }

    /// Notes where an epoch begins. One that changed nothing takes a number too, so that its snapshot is not its
    /// predecessor's and a restore knows them apart.
    fn begin(&mut self, epoch: u64, before: u64) -> Result<(), redb::Error> {
        self.changes += u64::from(self.changes == before);
        self.tables.epochs.insert(epoch, self.changes)?;
        Ok(())
    }

    /// Tasks with a candidate.
    fn waiting(&self) -> Result<Vec<TaskId>, redb::Error> {
        let mut waiting = vec![];
        for entry in self.tables.witnesses.iter()? {
            waiting.push(TaskId::new(entry?.0.value()));
        }
        Ok(waiting)
    }

    /// What the first `snapshot` changes made; candidates belong to the future that is given up.
    fn restore(&mut self, snapshot: u64, outcome: &mut Outcome) -> Result<(), redb::Error> {
        let mut then: BTreeMap<TaskId, Option<Reference>> = BTreeMap::new();
        for entry in self.tables.changes.range(snapshot + 1..)? {
            let change: Option<Change> = serde_json::from_slice(entry?.1.value()).ok();
            if let Some(change) = change {
                // The first change after the snapshot knows what there was before it.
                then.entry(change.task).or_insert(change.from);
            }
        }
        for task in self.waiting()? {
            let committed = self.tables.known(&task)?.committed();
            then.entry(task).or_insert(committed);
        }
        let mut epoch = 0;
        for entry in self.tables.epochs.iter()? {
            let (number, changes) = entry?;
            if changes.value() <= snapshot {
                epoch = number.value();
            }
        }
        for (task, mut to) in then {
            // What an earlier version took for a reference is not brought back.
            if to.is_some_and(|to| !to.is_possible()) {
                to = self.tables.last_possible(&task, snapshot)?;
            }
            let from = self.tables.known(&task)?.committed();
            self.put(&task, to.map_or(Known::default(), Known::committed_at))?;
            if from != to {
                outcome.loosened += 1;
                self.change(&task, Cause::Restore, from, to, None)?;
            }
        }
        outcome.applied = true;
        self.epoch = epoch;
        self.tables.epochs.retain(|number, _| number <= epoch)?;
        Ok(())
    }

    fn put(&mut self, task: &TaskId, known: Known) -> Result<(), redb::Error> {
        if known == Known::default() {
            self.tables.known.remove(task.as_str())?;
            self.tables.prints.remove(task.as_str())?;
            self.written.prints.remove(task);
        } else {
            self.tables.known.insert(task.as_str(), pack(known))?;
        }
        if known.pending().is_none() {
            self.tables.witnesses.remove(task.as_str())?;
        }
        self.written.known.insert(task.clone(), known);
        Ok(())
    }

    fn record(
        &mut self,
        task: &TaskId,
        cause: Cause,
        changed: Tightened,
        by: Option<Provenance>,
        outcome: &mut Outcome,
    ) -> Result<(), redb::Error> {
        match changed.from {
            None => outcome.adopted += 1,
            Some(_) => outcome.tightened += 1,
        }
        self.change(task, cause, changed.from, Some(changed.to), by)
    }

    fn change(
        &mut self,
        task: &TaskId,
        cause: Cause,
        from: Option<Reference>,
        to: Option<Reference>,
        by: Option<Provenance>,
    ) -> Result<(), redb::Error> {
        self.changes += 1;
        let at_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let change = Change { number: self.changes, task: task.clone(), cause, epoch: self.epoch, from, to, by, at_ms };
        let text = serde_json::to_vec(&change).expect("a change is plain data");
        self.tables.changes.insert(change.number, text.as_slice())?;
        self.tables.by_task.insert((task.as_str(), change.number), ())?;
        self.written.changes.push(change);
        Ok(())
    }
}

fn pack(known: Known) -> (u32, u32, u32, u32) {
    let parts = |reference: Option<Reference>| reference.map_or((0, 0), |reference| (reference.rounds, reference.searches));
    let ((rounds, searches), (pending_rounds, pending_searches)) = (parts(known.committed()), parts(known.pending()));
    (rounds, searches, pending_rounds, pending_searches)
}

fn unpack((rounds, searches, pending_rounds, pending_searches): (u32, u32, u32, u32)) -> Known {
    let mut known = Known::default();
    known.observe(ReferenceMode::Immediate, Reference { rounds, searches });
    known.observe(ReferenceMode::Epoch, Reference { rounds: pending_rounds, searches: pending_searches });
    known
}

fn damaged(path: &Path, reason: String) -> StoreError {
    StoreError::Damaged { path: path.to_owned(), reason, advice: backup::advice(path) }
}

fn fault(action: &'static str, path: &Path, error: redb::Error) -> StoreError {
    match error {
        redb::Error::DatabaseAlreadyOpen => StoreError::InUse { path: path.to_owned() },
        redb::Error::Corrupted(reason) => damaged(path, reason),
        redb::Error::RepairAborted => damaged(path, "it cannot be repaired".into()),
        redb::Error::UpgradeRequired(format) => damaged(path, format!("it has the database format {format}")),
        redb::Error::Io(error) => match error.kind() {
            // What a page points to is not in the file.
            ErrorKind::InvalidInput | ErrorKind::UnexpectedEof => damaged(path, format!("it is shorter than its pages say: {error}")),
            ErrorKind::InvalidData => damaged(path, error.to_string()),
            _ => StoreError::Io { action, path: path.to_owned(), reason: error.to_string() },
        },
        other => StoreError::Io { action, path: path.to_owned(), reason: other.to_string() },
    }
}
