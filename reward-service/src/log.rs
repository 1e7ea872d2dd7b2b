//! The reference log on disk: one JSON event per line, synced before anybody is told. In: events. Out: the same events
//! after a crash, the torn last line excepted.
//!
//! It knows lines and files, not what events mean. Since events only ever tighten, replaying one twice is harmless; that
//! is why snapshot and log need not change in one atomic step.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use hypereyes_chassis::atomic;
use hypereyes_domain::{Reference, TaskId};
use hypereyes_scoring::{Ledger, ReferenceMode};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Longest line that is read or written: a full import batch is far below.
const MAX_LINE_BYTES: u64 = 16 << 20;
/// Largest snapshot that is read; ten million references are below it.
const MAX_SNAPSHOT_BYTES: u64 = 2 << 30;

/// One thing that happened to the ledger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// A success was seen.
    Observe {
        /// How it counted then; a later change of the setting does not rewrite history.
        mode: ReferenceMode,
        /// Whose.
        task: TaskId,
        /// What it cost.
        reference: Reference,
    },
    /// An epoch was committed.
    Commit {
        /// Its number.
        epoch: u64,
    },
    /// References came from elsewhere.
    Import {
        /// Epoch that they belong to.
        epoch: u64,
        /// The references.
        references: Vec<(TaskId, Reference)>,
    },
}

/// The store cannot be read or written.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The operating system said no.
    #[error("cannot {action} {path}: {source}; check the disk and the permissions of the store")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another process has the store.
    #[error("{path} is in use by another process; give each reward service its own store")]
    InUse {
        /// The log.
        path: PathBuf,
    },
    /// A file holds something else than was written.
    #[error("{path} line {line} is damaged ({reason}); restore it from a backup, or move it away and import references again")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// An event does not fit a line.
    #[error("an event of {bytes} bytes is over the limit of {MAX_LINE_BYTES}; import smaller batches")]
    TooLong {
        /// Its size.
        bytes: usize,
    },
}

/// An open log with its snapshot.
#[derive(Debug)]
pub struct Log {
    file: File,
    path: PathBuf,
    snapshot: PathBuf,
    /// Bytes of whole, synced lines.
    length: u64,
}

/// What was found in a store.
#[derive(Debug, Default)]
pub struct Found {
    /// The last snapshot.
    pub ledger: Ledger,
    /// Events after it (and possibly some before it).
    pub events: Vec<Event>,
    /// Lines that a crash had torn: 0 or 1.
    pub torn: u64,
}

impl Log {
    /// Opens the store in `folder`, making it if need be, and reads what it holds. A torn last line is cut off.
    pub fn open(folder: &Path) -> Result<(Self, Found), StoreError> {
        fs::create_dir_all(folder).map_err(|source| io_error("create", folder, source))?;
        let path = folder.join("references.log");
        let snapshot = folder.join("references.json");
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true);
        let file = options.open(&path).map_err(|source| io_error("open", &path, source))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(StoreError::InUse { path }),
            Err(fs::TryLockError::Error(source)) => return Err(io_error("lock", &path, source)),
        }
        let mut found = Found { ledger: read_snapshot(&snapshot)?, ..Found::default() };
        let length = read_lines(&file, &path, &mut found)?;
        if found.torn > 0 {
            file.set_len(length).and_then(|()| file.sync_data()).map_err(|source| io_error("cut the torn end of", &path, source))?;
        }
        sync_folder(folder)?;
        Ok((Self { file, path, snapshot, length }, found))
    }

    /// Appends an event; when this returns `Ok`, it survives a crash. After an error the event is not in the log, or the
    /// next append fails too.
    pub fn append(&mut self, event: &Event) -> Result<(), StoreError> {
        let mut line = serde_json::to_vec(event).expect("events are plain data with text keys");
        line.push(b'\n');
        if line.len() as u64 > MAX_LINE_BYTES {
            return Err(StoreError::TooLong { bytes: line.len() });
        }
        // What an earlier failed append left behind would run into this line.
        let written = self.trim().and_then(|()| self.file.write_all(&line)).and_then(|()| self.file.sync_data());
        if let Err(source) = written {
            // Best effort: the next append trims again before it writes.
            let _ = self.trim();
            return Err(io_error("append to", &self.path, source));
        }
        self.length += line.len() as u64;
        Ok(())
    }

    /// Replaces the snapshot by `ledger` in one step, then empties the log, whose events it contains.
    pub fn snapshot(&mut self, ledger: &Ledger) -> Result<(), StoreError> {
        let text = serde_json::to_vec(ledger).expect("a ledger is plain data with text keys");
        // Durable, name included, before the events that it replaces are gone.
        atomic::write(&self.snapshot, &text).map_err(|source| io_error("write", &self.snapshot, source))?;
        self.length = 0;
        self.trim().and_then(|()| self.file.sync_data()).map_err(|source| io_error("empty", &self.path, source))
    }

    fn trim(&self) -> io::Result<()> {
        if self.file.metadata()?.len() > self.length { self.file.set_len(self.length) } else { Ok(()) }
    }
}

fn read_snapshot(path: &Path) -> Result<Ledger, StoreError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ledger::default()),
        Err(source) => return Err(io_error("open", path, source)),
    };
    // It was renamed into place whole, so a snapshot that cannot be read is damage, never a crash.
    serde_json::from_reader(BufReader::new(file.take(MAX_SNAPSHOT_BYTES))).map_err(|error| StoreError::Damaged {
        path: path.to_owned(),
        line: error.line() as u64,
        reason: error.to_string(),
    })
}

/// Reads events into `found`; returns the length of the whole lines.
fn read_lines(mut file: &File, path: &Path, found: &mut Found) -> Result<u64, StoreError> {
    file.seek(SeekFrom::Start(0)).map_err(|source| io_error("read", path, source))?;
    let mut reader = BufReader::new(file);
    let (mut length, mut number) = (0, 0);
    let mut line = Vec::new();
    loop {
        line.clear();
        number += 1;
        let read = reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line).map_err(|source| io_error("read", path, source))?;
        if read == 0 {
            return Ok(length);
        }
        let event = match line.strip_suffix(b"\n") {
            Some(text) => serde_json::from_slice(text).map_err(|error| error.to_string()),
            None => Err("it has no end".to_owned()),
        };
        match event {
            Ok(event) => found.events.push(event),
            Err(reason) => {
                let rest = reader.fill_buf().map_err(|source| io_error("read", path, source))?;
                if !rest.is_empty() {
                    return Err(StoreError::Damaged { path: path.to_owned(), line: number, reason });
                }
                // Torn by a crash in the middle of an append, so nobody was told of it.
                found.torn = 1;
                return Ok(length);
            }
        }
        length += read as u64;
    }
}

/// A new or renamed file survives a crash only once its folder is synced.
fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|source| io_error("sync", folder, source))
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> StoreError {
    StoreError::Io { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(rounds: u32) -> Event {
        Event::Observe { mode: ReferenceMode::Epoch, task: "t".into(), reference: Reference { rounds, searches: rounds } }
    }

    #[test]
    fn what_was_appended_is_found_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let events = [
            observed(2),
            Event::Commit { epoch: 1 },
            Event::Import { epoch: 1, references: vec![("u".into(), Reference { rounds: 1, searches: 1 })] },
        ];
        let (mut log, _) = Log::open(folder.path()).expect("opens");
        for event in &events {
            log.append(event).expect("appends");
        }
        drop(log);
        let (_, found) = Log::open(folder.path()).expect("opens again");
        assert_eq!((found.events.as_slice(), found.torn), (events.as_slice(), 0));
    }

    #[test]
    fn a_torn_last_line_is_dropped_and_counted() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut log, _) = Log::open(folder.path()).expect("opens");
        log.append(&observed(2)).expect("appends");
        drop(log);
        let path = folder.path().join("references.log");
        let mut raw = OpenOptions::new().append(true).open(&path).expect("the log is a file");
        raw.write_all(br#"{"observe":{"mode":"ep"#).expect("writes");
        drop(raw);
        let (mut log, found) = Log::open(folder.path()).expect("opens");
        assert_eq!((found.events.as_slice(), found.torn), ([observed(2)].as_slice(), 1));
        log.append(&observed(1)).expect("appends after the cut");
        drop(log);
        let (_, found) = Log::open(folder.path()).expect("opens");
        assert_eq!((found.events.as_slice(), found.torn), ([observed(2), observed(1)].as_slice(), 0));
    }

    #[test]
    fn damage_in_the_middle_is_not_a_crash() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("references.log"), "nonsense\n{\"commit\":{\"epoch\":1}}\n").expect("writes");
        let error = Log::open(folder.path()).expect_err("damaged");
        assert!(error.to_string().contains("line 1"), "{error}");
    }

    #[test]
    fn two_services_never_share_a_store() {
        let folder = tempfile::tempdir().expect("a folder");
        let _held = Log::open(folder.path()).expect("opens");
        assert!(matches!(Log::open(folder.path()), Err(StoreError::InUse { .. })));
    }

    #[test]
    fn a_snapshot_replaces_the_log() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut log, _) = Log::open(folder.path()).expect("opens");
        log.append(&observed(2)).expect("appends");
        let mut ledger = Ledger::default();
        ledger.import(&"t".into(), Reference { rounds: 2, searches: 2 });
        log.snapshot(&ledger).expect("writes");
        log.append(&observed(1)).expect("appends");
        drop(log);
        let (_, found) = Log::open(folder.path()).expect("opens");
        assert_eq!((found.ledger, found.events.as_slice()), (ledger, [observed(1)].as_slice()));
    }
}
