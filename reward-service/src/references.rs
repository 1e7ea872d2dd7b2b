//! The service's references: in memory for readers, in the store before anybody is told. In: observations, commits, imports.
//! Out: the reference of a task and the epoch it belongs to.
//!
//! One thread writes. It takes all commands that wait, has the store apply them in one transaction, makes memory follow, and
//! then answers: many callers share one sync of the disk. Readers never wait for the disk. Observations touch single
//! entries; what moves many of them at once (a commit, a restore) happens under the epoch's lock, so that a reader sees all
//! of it or nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use dashmap::DashMap;
use hypereyes_domain::{Reference, Task, TaskId};
use hypereyes_scoring::{Known, ReferenceMode};
use metrics::{counter, gauge, histogram};
use tokio::sync::{mpsc, oneshot};

use crate::backup;
use crate::change::{Cause, Change, Outcome, Print, Provenance, StoreCommand};
use crate::metrics as names;
use crate::store::{Heard, Store, StoreError, Written};

/// Commands in one transaction.
const MAX_BATCH: usize = 1024;
/// Commands that wait; callers beyond wait for room.
const MAX_WAITING: usize = 4096;
/// Longest wait for the disk. Syncs take milliseconds; a disk that cannot sync for this long is broken.
const PATIENCE: Duration = Duration::from_secs(20);

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

/// What readers see.
#[derive(Debug, Default)]
struct Seen {
    known: DashMap<TaskId, Known>,
    /// What the tasks with a reference ask, as far as it is known.
    prints: DashMap<TaskId, Print>,
    /// Held for writing while entries move, so that a reader who holds it sees all of a commit or nothing.
    state: RwLock<State>,
}

/// What is known of all entries together.
#[derive(Debug, Default)]
struct State {
    epoch: u64,
    count: u64,
    rounds: u64,
    searches: u64,
}

impl State {
    fn add(&mut self, reference: Option<Reference>) {
        let Some(Reference { rounds, searches }) = reference else { return };
        (self.count, self.rounds, self.searches) = (self.count + 1, self.rounds + u64::from(rounds), self.searches + u64::from(searches));
    }

    fn remove(&mut self, reference: Option<Reference>) {
        let Some(Reference { rounds, searches }) = reference else { return };
        (self.count, self.rounds, self.searches) = (self.count - 1, self.rounds - u64::from(rounds), self.searches - u64::from(searches));
    }
}

impl Seen {
    fn new(all: BTreeMap<TaskId, Known>, prints: BTreeMap<TaskId, Print>, epoch: u64) -> Self {
        let mut state = State { epoch, ..State::default() };
        all.values().for_each(|known| state.add(known.committed()));
        Self { known: all.into_iter().collect(), prints: prints.into_iter().collect(), state: RwLock::new(state) }
    }

    fn state(&self) -> std::sync::RwLockReadGuard<'_, State> {
        // A panic while it was held left whole numbers.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Committed references in the order of their tasks, and the epoch, read at one instant.
    fn committed(&self) -> (BTreeMap<TaskId, Reference>, u64) {
        let state = self.state();
        let all = self.known.iter().filter_map(|entry| Some((entry.key().clone(), entry.committed()?))).collect();
        (all, state.epoch)
    }

    /// Makes memory what the store has become.
    fn follow(&self, written: &Written) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        for (task, known) in &written.known {
            let before = match *known == Known::default() {
                true => {
                    self.prints.remove(task);
                    self.known.remove(task).map(|(_, before)| before)
                }
                false => self.known.insert(task.clone(), *known),
            };
            state.remove(before.and_then(|before| before.committed()));
            state.add(known.committed());
        }
        for (task, print) in &written.prints {
            self.prints.insert(task.clone(), *print);
        }
        state.epoch = written.epoch;
    }
}

/// The references and the way to change them.
#[derive(Clone, Debug)]
pub struct References {
    mode: ReferenceMode,
    seen: Arc<Seen>,
    /// The journal's; gone once the references are closed.
    store: Weak<Store>,
    journal: mpsc::Sender<Message>,
}

/// What the journal is told.
enum Message {
    /// A command, and whom to answer.
    StoreCommand(StoreCommand, oneshot::Sender<Heard>),
    /// Close the store, then answer.
    Close(oneshot::Sender<()>),
}

impl References {
    /// Opens the store in `folder` and starts the thread that writes; without a folder, references live as long as the
    /// process. `backups` files of committed references are kept beside the store.
    pub fn open(mode: ReferenceMode, folder: Option<&Path>, backups: usize) -> Result<Self, StoreError> {
        let store = match folder {
            Some(folder) => Store::open(folder)?,
            None => Store::in_memory()?,
        };
        let healed = store.heal()?;
        if let Some(first) = healed.first() {
            counter!(names::IMPOSSIBLE, "from" => "store").increment(healed.len() as u64);
            counter!(names::TIGHTENED, "cause" => Cause::Repair.label()).increment(healed.len() as u64);
            tracing::warn!(references = healed.len(), %first, "references that nobody can have reached, with no search, are as before they came");
        }
        let (all, epoch, changes) = store.read()?;
        if let Some(folder) = folder {
            tracing::info!(references = all.len(), epoch, changes, store = %folder.display(), "references restored");
        }
        let seen = Arc::new(Seen::new(all, store.prints()?, epoch));
        let store = Arc::new(store);
        let (sender, inbox) = mpsc::channel(MAX_WAITING);
        let weak = Arc::downgrade(&store);
        let journal = Journal { store, seen: seen.clone(), folder: folder.map(Path::to_owned), backups };
        report(&seen);
        let failed =
            |error: std::io::Error| StoreError::Io { action: "start the thread of", path: PathBuf::new(), reason: error.to_string() };
        std::thread::Builder::new().name("journal".into()).spawn(move || journal.run(inbox)).map_err(failed)?;
        Ok(Self { mode, seen, store: weak, journal: sender })
    }

    /// Closes the store: when this returns, another process may open it. Commands that come later fail.
    pub async fn close(&self) {
        let (reply, closed) = oneshot::channel();
        let close = async {
            // Both fail only when the journal has ended, and the store with it.
            if self.journal.send(Message::Close(reply)).await.is_ok() {
                let _ = closed.await;
            }
        };
        if tokio::time::timeout(PATIENCE, close).await.is_err() {
            tracing::warn!("the store did not close within {PATIENCE:?}");
        }
    }

    /// The id under which the reference of `task` is kept: its own, unless that names another question already. The answer
    /// stands for one scoring; a reference that came without its question is from now on this one's.
    pub fn place(&self, task: &Task) -> TaskId {
        let print = Print::of(task);
        match self.seen.prints.get(&task.id).map(|known| *known) {
            Some(known) if known == print => return task.id.clone(),
            Some(_) => return print.apart(&task.id),
            None => {}
        }
        if self.seen.known.contains_key(&task.id) {
            // Written when the journal comes to it. Until then two may claim it; the journal hears one.
            let (reply, _) = oneshot::channel();
            if let Err(error) = self.journal.try_send(Message::StoreCommand(StoreCommand::Claim { task: task.id.clone(), print }, reply)) {
                tracing::debug!(task = %task.id, %error, "the journal is busy; the question of a reference is noted later");
            }
        }
        task.id.clone()
    }

    /// The reference that `task`, kept at `place`, is scored against and the epoch it belongs to, read at one instant.
    pub fn for_task(&self, task: &Task, place: &TaskId) -> (Option<Reference>, u64) {
        let state = self.seen.state();
        let reference = match self.seen.known.get(place) {
            Some(known) => known.reference_for(task),
            None => Known::default().reference_for(task),
        };
        (reference, state.epoch)
    }

    /// The committed reference of a task and the epoch.
    pub fn committed(&self, task: &TaskId) -> (Option<Reference>, u64) {
        let state = self.seen.state();
        (self.seen.known.get(task).and_then(|known| known.committed()), state.epoch)
    }

    /// All committed references in the order of their task ids, and the epoch.
    pub fn export(&self) -> (BTreeMap<TaskId, Reference>, u64) {
        self.seen.committed()
    }

    /// Count and means of the committed references.
    pub fn overview(&self) -> Overview {
        overview(&self.seen.state())
    }

    /// The newest changes of a task, the newest first; blocks on the disk.
    pub fn history(&self, task: &TaskId, most: usize) -> Result<Vec<Change>, StoreError> {
        self.store.upgrade().ok_or(StoreError::Ended)?.history(task, most)
    }

    /// Takes in a success. Durable when it returns.
    pub async fn observe(&self, task: &TaskId, print: Print, seen: Reference, by: Provenance) -> Result<(), StoreError> {
        // Most successes are no news; they should not wait for the disk.
        let news = match self.seen.known.get(task) {
            Some(known) => known.is_news(self.mode, seen),
            None => Known::default().is_news(self.mode, seen),
        };
        if news {
            self.command(StoreCommand::Observe { mode: self.mode, task: task.clone(), print, seen, by }).await?;
        }
        Ok(())
    }

    /// Commits an epoch. Durable when it returns. A number that was reached before changes nothing.
    pub async fn commit(&self, epoch: u64) -> Heard {
        self.command(StoreCommand::Commit { epoch }).await
    }

    /// Takes in references that were committed elsewhere. Durable when it returns.
    pub async fn import(&self, epoch: u64, references: Vec<(TaskId, Reference)>) -> Heard {
        self.command(StoreCommand::Import { epoch, references }).await
    }

    /// Goes back to a snapshot, which may loosen references. Durable when it returns.
    pub async fn restore(&self, snapshot: u64) -> Heard {
        self.command(StoreCommand::Restore { snapshot }).await
    }

    async fn command(&self, command: StoreCommand) -> Heard {
        let (reply, answer) = oneshot::channel();
        let heard = async {
            self.journal.send(Message::StoreCommand(command, reply)).await.map_err(|_| StoreError::Ended)?;
            answer.await.map_err(|_| StoreError::Ended)?
        };
        tokio::time::timeout(PATIENCE, heard).await.unwrap_or(Err(StoreError::Late { seconds: PATIENCE.as_secs() }))
    }
}

/// The thread that writes. Consumes commands; produces outcomes. Waits for commands when there are none; ends with the last
/// handle.
struct Journal {
    store: Arc<Store>,
    seen: Arc<Seen>,
    folder: Option<PathBuf>,
    backups: usize,
}

impl Journal {
    fn run(self, mut inbox: mpsc::Receiver<Message>) {
        let mut batch = vec![];
        while inbox.blocking_recv_many(&mut batch, MAX_BATCH) > 0 {
            let (mut commands, mut replies, mut close) = (vec![], vec![], None);
            for message in batch.drain(..) {
                match message {
                    Message::StoreCommand(command, reply) => {
                        commands.push(command);
                        replies.push(reply);
                    }
                    Message::Close(reply) => close = Some(reply),
                }
            }
            if !commands.is_empty() {
                self.apply(&commands, replies);
            }
            if let Some(reply) = close {
                drop((self, inbox));
                let _ = reply.send(()); // Whoever asked may have stopped waiting.
                return;
            }
        }
    }

    fn apply(&self, commands: &[StoreCommand], replies: Vec<oneshot::Sender<Heard>>) {
        let began = std::time::Instant::now();
        let heard = self.store.write(commands);
        histogram!(names::SYNC_SECONDS).record(began.elapsed().as_secs_f64());
        match heard {
            Ok(written) => {
                // The store first, memory second: nobody reads what a crash could take back.
                self.seen.follow(&written);
                self.count(commands, &written);
                for (reply, outcome) in replies.into_iter().zip(written.outcomes) {
                    let _ = reply.send(outcome); // The asker may be gone; what it wished for has happened.
                }
            }
            Err(error) => {
                counter!(names::STORE_ERRORS, "reason" => "write").increment(1);
                tracing::error!(%error, commands = commands.len(), "nothing was written");
                let mut error = Some(error);
                for reply in replies {
                    // One caller gets the error itself, the others the same words.
                    let own = error.take().unwrap_or_else(|| StoreError::Io {
                        action: "write",
                        path: self.folder.clone().unwrap_or_default(),
                        reason: "the transaction of which this was part failed".into(),
                    });
                    let _ = reply.send(Err(own)); // The asker may be gone; the failure is counted.
                }
            }
        }
    }

    fn count(&self, commands: &[StoreCommand], written: &Written) {
        for change in &written.changes {
            counter!(names::TIGHTENED, "cause" => change.cause.label()).increment(1);
        }
        let committed = commands.iter().zip(&written.outcomes).any(|(command, outcome)| {
            matches!(command, StoreCommand::Commit { .. } | StoreCommand::Restore { .. })
                && outcome.as_ref().is_ok_and(|outcome: &Outcome| outcome.applied)
        });
        report(&self.seen);
        if let Some(folder) = self.folder.as_ref().filter(|_| committed && self.backups > 0) {
            let (references, epoch) = self.seen.committed();
            // The store has everything; a backup that fails costs a way back, not truth.
            if let Err(error) = backup::write(folder, epoch, &references, self.backups) {
                counter!(names::STORE_ERRORS, "reason" => "backup").increment(1);
                tracing::warn!(%error, epoch, "the backup failed; the next epoch tries again");
            }
        }
    }
}

fn overview(state: &State) -> Overview {
    let n = state.count.max(1) as f64;
    Overview { count: state.count, mean_rounds: state.rounds as f64 / n, mean_searches: state.searches as f64 / n }
}

fn report(seen: &Seen) {
    let state = seen.state();
    let overview = overview(&state);
    gauge!(names::REFERENCES).set(overview.count as f64);
    gauge!(names::MEAN_ROUNDS).set(overview.mean_rounds);
    gauge!(names::MEAN_SEARCHES).set(overview.mean_searches);
    gauge!(names::EPOCH).set(state.epoch as f64);
}
