//! One server of a pool: whether it takes part, which weights it holds, how many requests it works on. In: what becomes of requests, looks
//! and swaps. Out: a place for a turn. It asks nobody.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hypereyes_policy::checkpoint::Generation;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::link::Link;

/// Answers or looks that may fail in a row until a server is taken out.
pub const MOST_FAILURES: u32 = 3;
/// Labels that are remembered: a turn spans fewer versions than this.
const MOST_LABELS: usize = 64;

/// A server.
#[derive(Debug)]
pub struct Server {
    /// Its address.
    pub link: Link,
    /// Held while weights are put in: whoever does so, one at a time.
    pub swapping: tokio::sync::Mutex<()>,
    /// Sequences that keep to it.
    seated: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Its places, if it takes part.
    part: Option<Arc<Semaphore>>,
    /// Answers that failed in a row.
    failures: u32,
    /// Looks that found it unwell in a row.
    unwell: u32,
    /// The weights that it holds, as far as this engine has put them there.
    held: Option<Generation>,
    /// The weights that it is being given.
    read: Option<Generation>,
    /// Labels that its weights have had, the newest last, and how many were forgotten.
    labels: VecDeque<String>,
    forgotten: usize,
    known: Known,
}

/// How a server that takes part is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The model's name there.
    pub model: String,
    /// Whether turns are asked for with their seeds.
    pub seeded: bool,
}

/// A place at a server, given back when dropped.
#[derive(Debug)]
pub struct Place {
    /// The weights that the server holds.
    pub held: Generation,
    /// How it is asked.
    pub known: Known,
    /// Where the label of those stands among all that it has had.
    mark: usize,
    _permit: OwnedSemaphorePermit,
}

/// A sequence's keeping to a server.
#[derive(Debug)]
pub struct Seat(Arc<Server>);

impl Seat {
    /// Keeps to a server until dropped.
    pub fn at(server: Arc<Server>) -> Self {
        server.seated.fetch_add(1, Ordering::Relaxed);
        Self(server)
    }

    /// The server.
    pub fn server(&self) -> &Arc<Server> {
        &self.0
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.seated.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Server {
    /// One that takes no part yet.
    pub fn new(link: Link) -> Self {
        let (labels, known) = (VecDeque::new(), Known::default());
        let state = State { part: None, failures: 0, unwell: 0, held: None, read: None, labels, forgotten: 0, known };
        Self { link, swapping: tokio::sync::Mutex::new(()), seated: AtomicUsize::new(0), state: Mutex::new(state) }
    }

    /// Whether it takes part.
    pub fn is_in(&self) -> bool {
        self.state.lock().part.is_some()
    }

    /// Sequences that keep to it.
    pub fn seated(&self) -> usize {
        self.seated.load(Ordering::Relaxed)
    }

    /// The weights that it holds.
    pub fn held(&self) -> Option<Generation> {
        self.state.lock().held.clone()
    }

    /// Notes which weights it holds from now on.
    pub fn holds(&self, generation: Generation) {
        let mut state = self.state.lock();
        state.labels.push_back(generation.label());
        if state.labels.len() > MOST_LABELS {
            state.labels.pop_front();
            state.forgotten += 1;
        }
        state.held = Some(generation);
    }

    /// Takes part from now on, with so many places.
    pub fn enter(&self, known: Known, places: usize) {
        let mut state = self.state.lock();
        state.part = Some(Arc::new(Semaphore::new(places.clamp(1, Semaphore::MAX_PERMITS))));
        (state.failures, state.unwell) = (0, 0);
        state.known = known;
    }

    /// Notes which weights it is being given, if any.
    pub fn reads(&self, generation: Option<Generation>) {
        self.state.lock().read = generation;
    }

    /// The generations that must not be removed under it.
    pub fn in_use(&self) -> Vec<Generation> {
        let state = self.state.lock();
        state.held.iter().chain(&state.read).cloned().collect()
    }

    /// Forgets which weights it holds: those that were put there are gone.
    pub fn forgets(&self) {
        self.state.lock().held = None;
    }

    /// Takes no part any more: who waits for a place is sent elsewhere, requests under way go on. True when it did.
    pub fn leave(&self) -> bool {
        match self.state.lock().part.take() {
            Some(places) => {
                places.close();
                true
            }
            None => false,
        }
    }

    /// It answered as it should.
    pub fn answered(&self) {
        self.state.lock().failures = 0;
    }

    /// It did not; true when too often in a row.
    pub fn failed(&self) -> bool {
        let mut state = self.state.lock();
        state.failures += 1;
        state.failures >= MOST_FAILURES
    }

    /// A look found it well or not; true when it was unwell too often in a row.
    pub fn looked(&self, well: bool) -> bool {
        let mut state = self.state.lock();
        state.unwell = if well { 0 } else { state.unwell + 1 };
        state.unwell >= MOST_FAILURES
    }

    /// A place, as soon as one is free; `None` when it takes no part (any more).
    pub async fn place(&self) -> Option<Place> {
        let places = self.state.lock().part.clone()?;
        let permit = places.acquire_owned().await.ok()?;
        let state = self.state.lock();
        // It may have left and come back meanwhile, which changes nothing for this turn.
        state.part.as_ref()?;
        let held = state.held.clone()?;
        let mark = (state.forgotten + state.labels.len()).saturating_sub(1);
        Some(Place { held, known: state.known.clone(), mark, _permit: permit })
    }

    /// The labels of the weights that it has had since a place was given, the first of them then.
    pub fn labels_since(&self, place: &Place) -> Vec<String> {
        let state = self.state.lock();
        match place.mark.checked_sub(state.forgotten) {
            Some(from) => state.labels.iter().skip(from).cloned().collect(),
            None => vec![place.held.label()],
        }
    }
}
