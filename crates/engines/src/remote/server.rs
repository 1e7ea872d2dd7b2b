//! One server of a pool: whether it takes part, which weights it holds, how many requests it works on. In: what becomes of requests, looks
//! and swaps. Out: a place for a turn. It asks nobody.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hypereyes_policy::checkpoint::Generation;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};

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
    /// Its free places, if it takes part.
    part: Option<Arc<Semaphore>>,
    /// Its places, free or taken.
    places: usize,
    /// Those that are taken. A server that leaves and comes back still works on what it was asked before.
    taken: usize,
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
    /// Since when it has stood still for other weights, if it does, and for how long it did before.
    still: Option<Instant>,
    stood: Duration,
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
    server: Arc<Server>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.server.state.lock();
        state.taken -= 1;
        if let Some(free) = state.part.as_ref().filter(|_| state.taken < state.places) {
            free.add_permits(1);
        }
    }
}

/// A server that stands still for other weights, until it is dropped.
#[derive(Debug)]
pub struct Still<'a> {
    server: &'a Server,
    since: Instant,
}

impl Still<'_> {
    /// The end of it; how long it was.
    pub fn ended(self) -> Duration {
        Instant::now() - self.since
    }
}

impl Drop for Still<'_> {
    fn drop(&mut self) {
        let mut state = self.server.state.lock();
        state.still = None;
        state.stood += Instant::now() - self.since;
    }
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
        let (still, stood) = (None, Duration::ZERO);
        let state = State {
            part: None,
            places: 0,
            taken: 0,
            failures: 0,
            unwell: 0,
            held: None,
            read: None,
            labels,
            forgotten: 0,
            known,
            still,
            stood,
        };
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
        state.places = places.clamp(1, Semaphore::MAX_PERMITS);
        let free = Arc::new(Semaphore::new(state.places.saturating_sub(state.taken)));
        if let Some(before) = state.part.replace(free) {
            before.close();
        }
        (state.failures, state.unwell) = (0, 0);
        state.known = known;
    }

    /// Notes which weights it is being given, if any.
    pub fn reads(&self, generation: Option<Generation>) {
        self.state.lock().read = generation;
    }

    /// Notes that it stands still for other weights, until what is returned is dropped.
    pub fn stands_still(&self) -> Still<'_> {
        let since = Instant::now();
        self.state.lock().still = Some(since);
        Still { server: self, since }
    }

    /// For how long it has stood still, up to now.
    pub fn stood_still(&self) -> Duration {
        let state = self.state.lock();
        state.stood + state.still.map_or(Duration::ZERO, |since| Instant::now() - since)
    }

    /// Waits until a moment, and as much longer as it stands still meanwhile: that is no time in which it could have answered. One that has
    /// left is given no more of it: others are asked.
    pub async fn late(&self, until: Instant) {
        let (before, mut next) = (self.stood_still(), until);
        loop {
            sleep_until(next).await;
            let moved = until + (self.stood_still() - before);
            if moved <= next || !self.is_in() {
                return;
            }
            next = moved;
        }
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
    pub async fn place(self: &Arc<Self>) -> Option<Place> {
        let free = self.state.lock().part.clone()?;
        let permit = free.acquire().await.ok()?;
        let mut state = self.state.lock();
        // Where it has left and come back meanwhile, this place is counted no more.
        state.part.as_ref().filter(|part| Arc::ptr_eq(part, &free))?;
        let held = state.held.clone()?;
        permit.forget();
        state.taken += 1;
        let mark = (state.forgotten + state.labels.len()).saturating_sub(1);
        Some(Place { held, known: state.known.clone(), mark, server: self.clone() })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn time_in_which_it_stands_still_is_none_in_which_it_is_late() {
        let server = Server::new(Link::new("http://a:1", None, reqwest::Client::new()));
        server.enter(Known::default(), 1);
        let (began, second) = (Instant::now(), Duration::from_secs(1));
        let after = |seconds: u32| began + second * seconds;
        let swaps = async {
            for (from, to) in [(1, 5), (6, 10), (20, 30)] {
                sleep_until(after(from)).await;
                let still = server.stands_still();
                sleep_until(after(to)).await;
                assert_eq!(still.ended(), second * (to - from));
            }
        };
        let waits = async {
            // Two swaps of four seconds each lie within.
            server.late(after(4)).await;
            assert_eq!(Instant::now(), after(12));
            server.late(after(15)).await;
            assert_eq!(Instant::now(), after(15));
            sleep_until(after(25)).await;
            // Half of the third, and what stood still before does not count again.
            server.late(after(26)).await;
            assert_eq!(Instant::now(), after(31));
        };
        tokio::join!(swaps, waits);
        assert_eq!(server.stood_still(), second * 18);
        // One that has left while it stood still is waited for no longer.
        let (_still, until) = (server.stands_still(), Instant::now() + second * 5);
        assert!(server.leave());
        server.late(until).await;
        assert_eq!(Instant::now(), until);
    }
}
