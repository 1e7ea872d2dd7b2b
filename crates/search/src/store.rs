//! Outcomes of searches on disk. In: keys, outcomes, what was spent. Out: the same, by the next process too. One process has a file open;
//! several share one through a server.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use hypereyes_environment::{Fault, Hit};
use parking_lot::Mutex;
use redb::backends::InMemoryBackend;
use redb::{
    Builder, Database, ReadOnlyDatabase, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition,
    WriteTransaction,
};
use serde::{Deserialize, Serialize};

use crate::asked::Key;
use crate::budget::Spent;
use crate::recording;

/// Entries by BLAKE3 of their keys.
const ENTRIES: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("entries");
/// What was spent.
const SPENT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("spent");
/// The format of the file.
const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("about");
/// The format that is written and read.
const FORMAT: u64 = 1;
/// Bytes of a file that are held in memory: a search reads one entry.
const CACHE: usize = 64 << 20;
/// Between two looks at a file that another process has open.
const AGAIN: Duration = Duration::from_millis(200);

/// An outcome, as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kept {
    /// Hits, or none.
    Hits(Vec<Hit>),
    /// A failure, in words without a key.
    Failure(Fault, String),
}

/// What is kept of one query.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What was asked.
    pub key: Key,
    /// When, in seconds since 1970.
    pub at: u64,
    /// What it cost, in dollars.
    pub usd: f64,
    /// What came of it.
    pub outcome: Kept,
}

/// Totals of a service.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Totals {
    /// Entries.
    pub entries: u64,
    /// Those with nothing found.
    pub empty: u64,
    /// Failures.
    pub failures: u64,
    /// What asking for them cost, in dollars.
    pub usd: f64,
    /// The oldest, in seconds since 1970.
    pub from: u64,
    /// The newest.
    pub to: u64,
}

/// A file of outcomes.
pub struct Store {
    path: PathBuf,
    open: Open,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("path", &self.path).finish_non_exhaustive()
    }
}

/// How a file is open.
enum Open {
    /// By this process alone, or in its memory.
    Writes(Database),
    /// By any number of processes.
    Reads(ReadOnlyDatabase),
}

impl Store {
    /// Opens or makes one; what this process has open already is the same one.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn shared(path: &Path) -> Result<Arc<Self>, String> {
        Self::shared_within(path, Duration::ZERO)
    }

    /// The same, of a file that another process may have open for so long. It blocks the thread.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn shared_within(path: &Path, patience: Duration) -> Result<Arc<Self>, String> {
        static OPEN: Mutex<BTreeMap<PathBuf, Weak<Store>>> = Mutex::new(BTreeMap::new());
        let named = |error: std::io::Error| format!("{}: {error}", path.display());
        let (place, began) = (std::path::absolute(path).map_err(named)?, Instant::now());
        loop {
            {
                let mut open = OPEN.lock();
                if let Some(store) = open.get(&place).and_then(Weak::upgrade) {
                    return Ok(store);
                }
                if let Some(store) = Self::free(path)?.map(Arc::new) {
                    open.insert(place, Arc::downgrade(&store));
                    return Ok(store);
                }
            }
            if began.elapsed() >= patience {
                return Err(held(path));
            }
            std::thread::sleep(AGAIN);
        }
    }

    /// Opens or makes one.
    ///
    /// # Errors
    /// A sentence that names the file: it cannot be written, is open elsewhere, or is no such file.
    pub fn open(path: &Path) -> Result<Self, String> {
        Self::free(path)?.ok_or_else(|| held(path))
    }

    /// Opens or makes one; none where another process has it open.
    fn free(path: &Path) -> Result<Option<Self>, String> {
        let named = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(|error| named(&error))?;
        }
        match builder().create(path) {
            Ok(database) => Self::whole(path, database).map(Some),
            Err(redb::DatabaseError::DatabaseAlreadyOpen) => Ok(None),
            Err(error) => Err(named(&error)),
        }
    }

    /// Opens one, or a recording, of which nothing is changed: any number of processes can.
    ///
    /// # Errors
    /// As [`Store::open`], and of [`recording::import`].
    pub fn read(path: &Path) -> Result<Self, String> {
        let named = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
        if recording::is_one(path) {
            let database = builder().create_with_backend(InMemoryBackend::new()).map_err(|error| named(&error))?;
            let store = Self::whole(path, database)?;
            recording::import(path, &store)?;
            return Ok(store);
        }
        let database = match builder().open_read_only(path) {
            // Whoever wrote it was killed. It is whole all the same once it was opened for writing.
            Err(redb::DatabaseError::RepairAborted) => {
                drop(builder().open(path).map_err(|error| named(&error))?);
                builder().open_read_only(path)
            }
            opened => opened,
        };
        let database = database.map_err(|error| named(&error))?;
        let store = Self { path: path.to_owned(), open: Open::Reads(database) };
        let format =
            || -> Result<_, redb::Error> { Ok(store.begin_read()?.open_table(ABOUT)?.get("format")?.map(|format| format.value())) };
        store.check(format().map_err(|error| named(&error))?.unwrap_or(0))?;
        Ok(store)
    }

    fn whole(path: &Path, database: Database) -> Result<Self, String> {
        let store = Self { path: path.to_owned(), open: Open::Writes(database) };
        store.check(store.prepare().map_err(|error| store.named(&error))?)?;
        Ok(store)
    }

    fn check(&self, format: u64) -> Result<(), String> {
        if format != FORMAT {
            return Err(self.named(&format!("is of format {format}; this release reads {FORMAT}")));
        }
        Ok(())
    }

    fn begin_read(&self) -> Result<ReadTransaction, redb::TransactionError> {
        match &self.open {
            Open::Writes(database) => database.begin_read(),
            Open::Reads(database) => database.begin_read(),
        }
    }

    fn begin_write(&self) -> Result<WriteTransaction, redb::Error> {
        match &self.open {
            Open::Writes(database) => Ok(database.begin_write()?),
            Open::Reads(_) => Err(redb::Error::Io(std::io::Error::new(std::io::ErrorKind::ReadOnlyFilesystem, "it is open for reading"))),
        }
    }

    fn prepare(&self) -> Result<u64, redb::Error> {
        let write = self.begin_write()?;
        let format = {
            write.open_table(ENTRIES)?;
            write.open_table(SPENT)?;
            let mut about = write.open_table(ABOUT)?;
            let known = about.get("format")?.map(|format| format.value());
            match known {
                Some(format) => format,
                None => {
                    about.insert("format", FORMAT)?;
                    FORMAT
                }
            }
        };
        write.commit()?;
        Ok(format)
    }

    fn named(&self, why: &dyn std::fmt::Display) -> String {
        format!("{}: {why}", self.path.display())
    }

    /// What is kept of a key.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn get(&self, key: &Key) -> Result<Option<Entry>, String> {
        let read = || -> Result<Option<Vec<u8>>, redb::Error> {
            let entries = self.begin_read()?.open_table(ENTRIES)?;
            Ok(entries.get(&hash(key))?.map(|bytes| bytes.value().to_vec()))
        };
        let Some(bytes) = read().map_err(|error| self.named(&error))? else { return Ok(None) };
        let entry: Entry = serde_json::from_slice(&bytes).map_err(|error| self.named(&error))?;
        Ok((entry.key == *key).then_some(entry))
    }

    /// Keeps entries, in place of what was kept of their keys: all of them or none.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn put(&self, entries: &[Entry]) -> Result<(), String> {
        self.put_where(entries, |_, _| true)
    }

    /// Keeps those entries that are newer or better than what is kept of their keys: all of them or none.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn merge(&self, entries: &[Entry]) -> Result<(), String> {
        self.put_where(entries, |entry, known| {
            // What cannot be read is of no use.
            let Ok(known) = serde_json::from_slice::<Entry>(known) else { return true };
            match (&known.outcome, &entry.outcome) {
                (Kept::Hits(_), Kept::Failure(..)) => false,
                (Kept::Failure(..), Kept::Hits(_)) => true,
                (Kept::Hits(_), Kept::Hits(_)) | (Kept::Failure(..), Kept::Failure(..)) => entry.at > known.at,
            }
        })
    }

    /// Keeps entries, each in place of what is kept of its key only where `is_better` says so of it and the bytes of that.
    fn put_where(&self, entries: &[Entry], is_better: impl Fn(&Entry, &[u8]) -> bool) -> Result<(), String> {
        let write = || -> Result<(), redb::Error> {
            let write = self.begin_write()?;
            {
                let mut table = write.open_table(ENTRIES)?;
                for entry in entries {
                    let key = hash(&entry.key);
                    let is_wanted = table.get(&key)?.is_none_or(|known| is_better(entry, known.value()));
                    if is_wanted {
                        let bytes = serde_json::to_vec(entry).expect("plain values");
                        table.insert(&key, bytes.as_slice())?;
                    }
                }
            }
            Ok(write.commit()?)
        };
        write().map_err(|error| self.named(&error))
    }

    /// Takes every entry in the order of their keys' digests.
    ///
    /// # Errors
    /// A sentence that names the file, or what `take` says.
    pub fn each(&self, mut take: impl FnMut(Entry) -> Result<(), String>) -> Result<(), String> {
        let table = || -> Result<_, redb::Error> { Ok(self.begin_read()?.open_table(ENTRIES)?) };
        let table = table().map_err(|error| self.named(&error))?;
        for pair in table.iter().map_err(|error| self.named(&error))? {
            let (_, bytes) = pair.map_err(|error| self.named(&error))?;
            take(serde_json::from_slice(bytes.value()).map_err(|error| self.named(&error))?)?;
        }
        Ok(())
    }

    /// Entries.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn entries(&self) -> Result<u64, String> {
        let count = || -> Result<u64, redb::Error> { Ok(self.begin_read()?.open_table(ENTRIES)?.len()?) };
        count().map_err(|error| self.named(&error))
    }

    /// Totals by service.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn totals(&self) -> Result<BTreeMap<String, Totals>, String> {
        let mut totals: BTreeMap<String, Totals> = Default::default();
        self.each(|entry| {
            let of = totals.entry(entry.key.service).or_default();
            of.from = if of.entries == 0 { entry.at } else { of.from.min(entry.at) };
            of.to = of.to.max(entry.at);
            of.entries += 1;
            of.usd += entry.usd;
            match entry.outcome {
                Kept::Hits(hits) => of.empty += u64::from(hits.is_empty()),
                Kept::Failure(..) => of.failures += 1,
            }
            Ok(())
        })?;
        Ok(totals)
    }

    /// What was spent.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn spent(&self) -> Result<Spent, String> {
        let read = || -> Result<Option<Vec<u8>>, redb::Error> {
            let spent = self.begin_read()?.open_table(SPENT)?;
            Ok(spent.get("all")?.map(|bytes| bytes.value().to_vec()))
        };
        match read().map_err(|error| self.named(&error))? {
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| self.named(&error)),
            None => Ok(Spent::default()),
        }
    }

    /// Writes down what `next` makes of what was spent, if it does; it is on disk when this returns. Nobody spends meanwhile.
    ///
    /// # Errors
    /// A sentence that names the file; within, what `next` says.
    pub fn spend<E>(&self, next: impl FnOnce(Spent) -> Result<Spent, E>) -> Result<Result<Spent, E>, String> {
        let write = || -> Result<Result<Spent, E>, redb::Error> {
            let write = self.begin_write()?;
            let next = {
                let mut table = write.open_table(SPENT)?;
                let known = table.get("all")?.map(|bytes| serde_json::from_slice(bytes.value()));
                let known = known.transpose().map_err(|error| redb::Error::Corrupted(error.to_string()))?.unwrap_or_default();
                let next = match next(known) {
                    Ok(next) => next,
                    Err(why) => return Ok(Err(why)),
                };
                table.insert("all", serde_json::to_vec(&next).expect("plain values").as_slice())?;
                next
            };
            write.commit()?;
            Ok(Ok(next))
        };
        write().map_err(|error| self.named(&error))
    }

    /// Takes away what is older than `age` seconds at a moment, in seconds since 1970; how many that were.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn prune(&self, now: u64, age: u64) -> Result<u64, String> {
        let write = || -> Result<u64, redb::Error> {
            let write = self.begin_write()?;
            let mut gone = 0;
            write.open_table(ENTRIES)?.retain(|_, bytes| {
                // One that cannot be read is of no use either.
                let keep = serde_json::from_slice::<Entry>(bytes).is_ok_and(|entry| now.saturating_sub(entry.at) <= age);
                gone += u64::from(!keep);
                keep
            })?;
            write.commit()?;
            Ok(gone)
        };
        write().map_err(|error| self.named(&error))
    }
}

/// What opens files.
fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE);
    builder
}

/// Why a file is not opened that is.
fn held(path: &Path) -> String {
    format!("{}: another process has it open, and one at a time can", path.display())
}

fn hash(key: &Key) -> [u8; 32] {
    *blake3::hash(&serde_json::to_vec(key).expect("plain values")).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn entry(text: &str, outcome: Kept) -> Entry {
        let key = Key { service: "serper".into(), endpoint: "http://x/search".into(), parameters: text.into() };
        Entry { key, at: 7, usd: 0.001, outcome }
    }

    #[test]
    fn what_is_kept_is_there_for_the_next_process_and_one_at_a_time_has_it_open() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("deep/cache.redb");
        let store = Store::open(&path).expect("opens");
        let (found, failed) = (
            entry("a", Kept::Hits(vec![Hit { title: "t".into(), score: Some(0.5), ..Hit::default() }])),
            entry("b", Kept::Failure(Fault::Refused, "no".into())),
        );
        store.put(&[found.clone(), failed.clone()]).expect("kept");
        store.put(&[entry("c", Kept::Hits(vec![]))]).expect("kept");
        let spent = Spent { requests: 3, micro_usd: 3000 };
        assert_eq!(store.spend(|_| Ok::<_, ()>(spent)), Ok(Ok(spent)));
        assert_eq!(store.spend(|known| Err((known, "no"))), Ok(Err((spent, "no"))));
        let error = Store::open(&path).expect_err("open").to_string();
        assert!(error.contains("cache.redb: another process has it open"), "{error}");
        let other = path.clone();
        let waits = std::thread::spawn(move || Store::shared_within(&other, Duration::from_secs(4)).map(drop));
        std::thread::sleep(Duration::from_millis(50));
        drop(store);
        assert_eq!(waits.join().expect("no panic"), Ok(()), "who waits gets it");
        let store = Store::open(&path).expect("opens again");
        assert_eq!((store.get(&found.key), store.get(&failed.key)), (Ok(Some(found.clone())), Ok(Some(failed))));
        assert_eq!(store.get(&entry("d", Kept::Hits(vec![])).key), Ok(None));
        assert_eq!((store.spent(), store.entries()), (Ok(spent), Ok(3)));
        let totals = store.totals().expect("reads");
        assert_eq!(totals["serper"], Totals { entries: 3, empty: 1, failures: 1, usd: 0.003, from: 7, to: 7 });
        assert_eq!((store.prune(10, 3), store.entries()), (Ok(0), Ok(3)));
        assert_eq!((store.prune(11, 3), store.entries(), store.spent()), (Ok(3), Ok(0), Ok(spent)));
        std::fs::write(folder.path().join("other"), b"no such file, but long enough to be looked at").expect("written");
        assert!(Store::open(&folder.path().join("other")).expect_err("none").contains("other: "));
    }
}
