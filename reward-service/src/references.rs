//! The service's references: the ledger in memory, and in a log on disk before anybody is told. In: observations,
//! commits, imports. Out: the reference of a task and the epoch it belongs to.
//!
//! Calls that change something block on the disk; call them from a blocking thread. One lock, not one per task: a commit
//! must fall between all scorings, and changes are rare (a reference tightens a handful of times in its life). Readers
//! never wait for the disk, because the ledger is locked only after the log has been written.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use hypereyes_domain::{Reference, Task, TaskId};
use hypereyes_scoring::{CommitSummary, Ledger, ReferenceMode};
use metrics::{counter, gauge};

use crate::log::{Event, Log, StoreError};
use crate::metrics as names;

/// The ledger with its log.
#[derive(Debug)]
pub struct References {
    mode: ReferenceMode,
    ledger: RwLock<Ledger>,
    /// Held by whoever changes the ledger, from the decision until the change is visible.
    log: Mutex<Option<Log>>,
}

/// The references as one line of numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Overview {
    /// Committed references.
    pub count: u64,
    /// Their mean rounds; 0 without any.
    pub mean_rounds: f64,
    /// Their mean searches; 0 without any.
    pub mean_searches: f64,
}

impl References {
    /// Opens the store and replays it; without a store, references live as long as the process.
    pub fn open(mode: ReferenceMode, store: Option<&Path>) -> Result<Self, StoreError> {
        let Some(folder) = store else {
            return Ok(Self { mode, ledger: RwLock::default(), log: Mutex::new(None) });
        };
        let (log, found) = Log::open(folder)?;
        let mut ledger = found.ledger;
        let events = found.events.len();
        for event in found.events {
            apply(&mut ledger, event);
        }
        counter!(names::TORN).increment(found.torn);
        let (references, epoch) = (ledger.references().len(), ledger.epoch());
        tracing::info!(references, epoch, events, torn = found.torn, store = %folder.display(), "references restored");
        let this = Self { mode, ledger: RwLock::new(ledger), log: Mutex::new(Some(log)) };
        this.report();
        Ok(this)
    }

    /// The reference that `task` is scored against and the epoch it belongs to, read at one instant.
    pub fn for_task(&self, task: &Task) -> (Option<Reference>, u64) {
        let ledger = self.read();
        (ledger.reference_for(task), ledger.epoch())
    }

    /// The committed reference of a task and the epoch.
    pub fn committed(&self, task: &TaskId) -> (Option<Reference>, u64) {
        let ledger = self.read();
        (ledger.committed(task), ledger.epoch())
    }

    /// All committed references in the order of their task ids, and the epoch.
    pub fn export(&self) -> (Vec<(TaskId, Reference)>, u64) {
        let ledger = self.read();
        (ledger.references().iter().map(|(task, reference)| (task.clone(), *reference)).collect(), ledger.epoch())
    }

    /// Count and means of the committed references.
    pub fn overview(&self) -> Overview {
        let ledger = self.read();
        let count = ledger.references().len();
        if count == 0 {
            return Overview::default();
        }
        let (rounds, searches) = ledger.references().values().fold((0.0, 0.0), |(rounds, searches), reference| {
            (rounds + f64::from(reference.rounds), searches + f64::from(reference.searches))
        });
        Overview { count: count as u64, mean_rounds: rounds / count as f64, mean_searches: searches / count as f64 }
    }

    /// Takes in a success. Durable when it returns; blocks.
    pub fn observe(&self, task: &TaskId, seen: Reference) -> Result<bool, StoreError> {
        // Most successes are no news; they should not wait for somebody else's write.
        if !self.read().is_news(self.mode, task, seen) {
            return Ok(false);
        }
        let mut log = self.writer();
        if !self.read().is_news(self.mode, task, seen) {
            return Ok(false);
        }
        self.write_through(&mut log, Event::Observe { mode: self.mode, task: task.clone(), reference: seen })?;
        if self.mode == ReferenceMode::Immediate {
            counter!(names::TIGHTENED, "cause" => "observation").increment(1);
        }
        Ok(true)
    }

    /// Commits an epoch. Durable when it returns; blocks. A number that was reached before changes nothing.
    pub fn commit(&self, epoch: u64) -> Result<CommitSummary, StoreError> {
        let mut log = self.writer();
        let current = self.read().epoch();
        if epoch <= current {
            return Ok(CommitSummary { epoch: current, ..CommitSummary::default() });
        }
        let summary = self.write_through(&mut log, Event::Commit { epoch })?;
        counter!(names::TIGHTENED, "cause" => "commit").increment(summary.adopted + summary.tightened);
        if let Some(log) = log.as_mut() {
            let ledger = self.read().clone();
            // The commit itself is in the log already; a snapshot that fails costs disk, not truth.
            if let Err(error) = log.snapshot(&ledger) {
                counter!(names::STORE_ERRORS, "reason" => "snapshot").increment(1);
                tracing::warn!(%error, epoch, "the snapshot failed; the log keeps everything and the next commit tries again");
            }
        }
        self.report();
        Ok(summary)
    }

    /// Takes in references that were committed elsewhere; returns how many were tighter or new. Durable when it
    /// returns; blocks.
    pub fn import(&self, epoch: u64, references: Vec<(TaskId, Reference)>) -> Result<u64, StoreError> {
        let mut log = self.writer();
        let mut news = BTreeMap::new();
        let behind = {
            let ledger = self.read();
            for (task, reference) in references {
                if ledger.is_news(ReferenceMode::Immediate, &task, reference) {
                    let known = news.entry(task).or_insert(reference);
                    *known = reference.min(*known);
                }
            }
            ledger.epoch() < epoch
        };
        if news.is_empty() && !behind {
            return Ok(0);
        }
        let tightened = news.len() as u64;
        self.write_through(&mut log, Event::Import { epoch, references: news.into_iter().collect() })?;
        counter!(names::TIGHTENED, "cause" => "import").increment(tightened);
        self.report();
        Ok(tightened)
    }

    /// Log first, memory second: nobody reads what a crash could take back.
    fn write_through(&self, log: &mut MutexGuard<'_, Option<Log>>, event: Event) -> Result<CommitSummary, StoreError> {
        if let Some(log) = log.as_mut() {
            log.append(&event).inspect_err(|_| counter!(names::STORE_ERRORS, "reason" => "append").increment(1))?;
        }
        Ok(apply(&mut self.ledger.write().unwrap_or_else(PoisonError::into_inner), event))
    }

    fn report(&self) {
        let overview = self.overview();
        gauge!(names::REFERENCES).set(overview.count as f64);
        gauge!(names::MEAN_ROUNDS).set(overview.mean_rounds);
        gauge!(names::MEAN_SEARCHES).set(overview.mean_searches);
        gauge!(names::EPOCH).set(self.read().epoch() as f64);
    }

    /// A panic while a lock is held cannot leave a ledger half changed in a way that loosens it, so poison is ignored.
    fn read(&self) -> std::sync::RwLockReadGuard<'_, Ledger> {
        self.ledger.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> MutexGuard<'_, Option<Log>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn apply(ledger: &mut Ledger, event: Event) -> CommitSummary {
    match event {
        Event::Observe { mode, task, reference } => {
            ledger.observe(mode, &task, reference);
        }
        Event::Commit { epoch } => return ledger.commit(epoch),
        Event::Import { epoch, references } => {
            for (task, reference) in references {
                ledger.import(&task, reference);
            }
            ledger.advance(epoch);
        }
    }
    CommitSummary::default()
}
