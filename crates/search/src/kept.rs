//! Outcomes that are asked for once. In: a back end, and a store. Out: the same back end, which is asked for what is not kept; of equal
//! queries in the air, one is asked. In a replay nobody is asked at all.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hypereyes_environment::{Fault, Outcome, Query};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::asked::{AskFuture, Asked, BackEnd, Key, fault, late};
use crate::config::{CacheConfig, Mode};
use crate::metrics::{CACHED, FLIGHTS_JOINED};
use crate::recording;
use crate::steps::{How, Steps};
use crate::store::{Entry, Kept, Store};

/// What is kept, and for how long.
#[derive(Clone)]
pub struct Keeping {
    /// Whether anybody is asked, and what is written down.
    pub mode: Mode,
    /// Where; nothing is kept without.
    pub store: Option<Arc<Store>>,
    /// How long hits are.
    pub age: Duration,
    /// How long it is that nothing was found.
    pub empty_age: Duration,
    /// When this process began, in seconds since 1970.
    since: u64,
}

impl Keeping {
    /// As settings say.
    pub fn new(mode: Mode, store: Option<Arc<Store>>, config: &CacheConfig) -> Self {
        let seconds = Duration::from_secs_f64;
        Self { mode, store, age: seconds(config.days * 86_400.0), empty_age: seconds(config.empty_hours * 3600.0), since: now() }
    }

    /// Whether an entry may be given instead of asking.
    fn is_good(&self, entry: &Entry, now: u64) -> bool {
        let within = |age: Duration| now.saturating_sub(entry.at) <= age.as_secs();
        match (&entry.outcome, self.mode) {
            // What a recording holds, it holds; but what failed is asked again by the next who records.
            (_, Mode::Replay) | (Kept::Hits(_), Mode::Record) => true,
            (Kept::Failure(..), Mode::Record) => entry.at >= self.since,
            (Kept::Hits(hits), Mode::Live) => within(if hits.is_empty() { self.empty_age } else { self.age }),
            (Kept::Failure(..), Mode::Live) => false,
        }
    }

    /// Whether an outcome is written down. A failure of the moment is none of a query; a recording holds it all the same, so that
    /// a replay goes as it went.
    fn is_kept(&self, outcome: &Outcome) -> bool {
        match self.mode {
            Mode::Live => outcome.is_ok(),
            Mode::Record => true,
            Mode::Replay => false,
        }
    }
}

/// A back end that is asked for what is not kept.
pub struct Keeper {
    inner: Box<dyn BackEnd>,
    keeping: Keeping,
    flights: Mutex<HashMap<Key, watch::Receiver<Option<Outcome>>>>,
}

/// What becomes of one query.
enum Way {
    /// It is known.
    Known(Outcome),
    /// Somebody else asks.
    Joined(watch::Receiver<Option<Outcome>>),
    /// It is asked here.
    Asked(Flight),
}

/// A query that is asked here, of which others wait for the outcome.
struct Flight {
    key: Key,
    outcome: watch::Sender<Option<Outcome>>,
}

impl Keeper {
    /// Around a back end.
    pub fn new(inner: Box<dyn BackEnd>, keeping: Keeping) -> Self {
        Self { inner, keeping, flights: Mutex::default() }
    }

    fn count(&self, how: &'static str) {
        metrics::counter!(CACHED, "service" => self.inner.name(), "how" => how).increment(1);
    }

    /// What is kept of a query, if it is good.
    fn known(&self, key: &Key, query: &Query) -> Option<Outcome> {
        let store = self.keeping.store.as_ref()?;
        let kept = store.get(key).and_then(|entry| match entry {
            // A recording that was shared has addresses without what opens them.
            None if self.keeping.mode == Mode::Replay => store.get(&recording::plain(key)),
            entry => Ok(entry),
        });
        let entry = match kept {
            Ok(entry) => entry,
            Err(why) => {
                tracing::warn!(%why, "the search cache cannot be read; the service is asked");
                self.count("broken");
                return (self.keeping.mode == Mode::Replay).then(|| Err(query.failed(Fault::Unavailable, why)));
            }
        };
        if let Some(entry) = entry.filter(|entry| self.keeping.is_good(entry, now())) {
            return Some(match entry.outcome {
                Kept::Hits(hits) => Ok(hits),
                Kept::Failure(fault, reason) => Err(query.failed(fault, reason)),
            });
        }
        let Mode::Replay = self.keeping.mode else { return None };
        let Key { service, endpoint, parameters } = key;
        Some(Err(query.failed(Fault::Miss, format!("the recording has no answer of {service} at {endpoint} to {parameters}"))))
    }

    fn way(&self, layer: u64, query: &Query) -> Way {
        let key = self.inner.key(layer, query);
        let known = |outcome: Outcome| {
            let is_miss = outcome.as_ref().is_err_and(|error| error.fault == Fault::Miss);
            self.count(if is_miss { "missing" } else { "kept" });
            Way::Known(outcome)
        };
        if let Some(outcome) = self.known(&key, query) {
            return known(outcome);
        }
        let mut flights = self.flights.lock();
        if let Some(flight) = flights.get(&key).filter(|flight| flight.has_changed().is_ok()) {
            metrics::counter!(FLIGHTS_JOINED, "service" => self.inner.name()).increment(1);
            return Way::Joined(flight.clone());
        }
        // Whoever asked may have landed since.
        if let Some(outcome) = self.known(&key, query) {
            return known(outcome);
        }
        self.count("missing");
        let (outcome, others) = watch::channel(None);
        flights.insert(key.clone(), others);
        Way::Asked(Flight { key, outcome })
    }

    /// Writes down what was found for so many dollars, which all of it shares.
    async fn put(&self, landed: &[(Key, &Outcome)], usd: f64) {
        let Some(store) = self.keeping.store.clone() else { return };
        let (at, usd) = (now(), usd / landed.len() as f64);
        let entry = |(key, outcome): &(Key, &Outcome)| {
            let outcome = match outcome {
                Ok(hits) => Kept::Hits(hits.clone()),
                Err(error) => Kept::Failure(error.fault, error.reason.clone()),
            };
            Entry { key: key.clone(), at, usd, outcome }
        };
        let entries: Vec<Entry> = landed.iter().filter(|(_, outcome)| self.keeping.is_kept(outcome)).map(entry).collect();
        if entries.is_empty() {
            return;
        }
        // It waits for the disk: not on the runtime's threads.
        let put = tokio::task::spawn_blocking(move || store.put(&entries)).await;
        if let Err(why) = put.unwrap_or_else(|died| Err(died.to_string())) {
            tracing::warn!(%why, "what was searched cannot be kept");
            self.count("not_kept");
        }
    }

    /// Asks for some queries, and tells everybody who waits for them.
    async fn ask_for(&self, asked: Asked<'_>, flights: Vec<Flight>) -> Vec<Outcome> {
        let Asked { layer, queries, until, steps: told } = asked;
        let landing = Landing { flights: &self.flights, keys: flights.iter().map(|flight| flight.key.clone()).collect() };
        let steps = Steps::default();
        let outcomes = self.inner.ask(Asked { layer, queries, until, steps: &steps }).await;
        let steps = steps.into_inner();
        let usd = steps.iter().map(|step| step.usd).sum();
        told.extend(steps);
        let landed: Vec<(Key, &Outcome)> = flights.iter().map(|flight| flight.key.clone()).zip(&outcomes).collect();
        // Kept before it is told: who asks after this finds it.
        self.put(&landed, usd).await;
        drop(landing);
        for (flight, outcome) in flights.iter().zip(&outcomes) {
            // That nobody waited longer here is no outcome for who does: they ask again.
            let is_late = outcome.as_ref().is_err_and(|error| error.fault == Fault::Timeout) && Instant::now() >= until;
            if !is_late {
                flight.outcome.send_replace(Some(outcome.clone()));
            }
        }
        outcomes
    }

    async fn all(&self, asked: Asked<'_>) -> Vec<Outcome> {
        let Asked { layer, queries, until, steps } = asked;
        let mut outcomes: Vec<Option<Outcome>> = vec![None; queries.len()];
        let mut open: Vec<usize> = (0..queries.len()).collect();
        while !open.is_empty() {
            let (mut own, mut joined) = (vec![], vec![]);
            for at in std::mem::take(&mut open) {
                match self.way(layer, &queries[at]) {
                    Way::Known(outcome) => {
                        steps.note(self.inner.name(), How::Kept, 0.0, fault(&outcome));
                        outcomes[at] = Some(outcome);
                    }
                    Way::Joined(flight) => joined.push((at, flight)),
                    Way::Asked(flight) => own.push((at, flight)),
                }
            }
            // Request by request: each is kept and told when it is done.
            let mut requests = FuturesUnordered::new();
            while !own.is_empty() {
                let (places, flights): (Vec<usize>, Vec<Flight>) = own.drain(..own.len().min(self.inner.most())).unzip();
                requests.push(async {
                    let these: Vec<Query> = places.iter().map(|at| queries[*at].clone()).collect();
                    let found = self.ask_for(Asked { layer, queries: &these, until, steps }, flights).await;
                    places.into_iter().zip(found).collect::<Vec<_>>()
                });
            }
            while let Some(found) = requests.next().await {
                found.into_iter().for_each(|(at, outcome)| outcomes[at] = Some(outcome));
            }
            drop(requests);
            for (at, mut flight) in joined {
                let landed =
                    timeout_at(until, flight.wait_for(Option::is_some)).await.map(|landed| landed.ok().and_then(|one| one.clone()));
                match landed {
                    Ok(Some(outcome)) => {
                        steps.note(self.inner.name(), How::Joined, 0.0, fault(&outcome));
                        outcomes[at] = Some(outcome);
                    }
                    // Who asked has gone away, and nobody knows the outcome: it is asked again.
                    Ok(None) => open.push(at),
                    Err(_) => outcomes[at] = late(&queries[at..=at]).pop(),
                }
            }
        }
        outcomes.into_iter().map(|outcome| outcome.expect("every query came to an end")).collect()
    }
}

/// Takes flights off the list, whatever becomes of them.
struct Landing<'a> {
    flights: &'a Mutex<HashMap<Key, watch::Receiver<Option<Outcome>>>>,
    keys: Vec<Key>,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        let mut flights = self.flights.lock();
        for key in &self.keys {
            flights.remove(key);
        }
    }
}

impl BackEnd for Keeper {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn can(&self, query: &Query) -> bool {
        self.inner.can(query)
    }

    fn most(&self) -> usize {
        self.inner.most()
    }

    fn key(&self, layer: u64, query: &Query) -> Key {
        self.inner.key(layer, query)
    }

    fn ask<'a>(&'a self, asked: Asked<'a>) -> AskFuture<'a> {
        Box::pin(self.all(asked))
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
