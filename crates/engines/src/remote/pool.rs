//! Servers that hold the same weights. In: questions that want a place, servers that fail, generations. Out: a place at a server that
//! takes part, the same one for the same sequence as long as it does. What holds: a server takes part only with the newest generation in
//! it. Looks at servers and their coming back are in [`super::admission`].

use std::sync::Arc;
use std::time::Duration;

use hypereyes_policy::checkpoint::Generation;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::convention::Convention;
use super::dialect::Speak;
use super::metrics;
use super::outcome::{Miss, Outcome};
use super::probe::Probe;
use super::server::{Known, Place, Seat, Server};
use super::swap::{self, Refusal};

/// What a pool is made with.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The model's name at the servers; empty: the first that they serve.
    pub model: String,
    /// Tokens that a sequence may have.
    pub context: usize,
    /// Requests under way at a server.
    pub places: usize,
    /// Longest wait for one answer.
    pub request: Duration,
    /// Longest time for other weights.
    pub reload: Duration,
    /// Pause between looks at a server.
    pub health: Duration,
}

/// The servers.
pub struct Pool {
    /// All that there are.
    pub servers: Vec<Arc<Server>>,
    /// How they are spoken to.
    pub speaker: &'static dyn Speak,
    /// Sizes and times.
    pub limits: Limits,
    /// What each must show.
    pub probe: Probe,
    /// The generation without which nobody takes part. Whoever lets a server in holds this.
    newest: Mutex<Generation>,
    /// Which log-probs are given: those of the first that took part.
    convention: Mutex<Option<Convention>>,
    /// One generation at a time.
    setting: tokio::sync::Mutex<()>,
    /// Told whenever a server enters or leaves.
    changed: watch::Sender<()>,
}

impl Pool {
    /// Servers of which none takes part yet.
    pub fn new(servers: Vec<Arc<Server>>, speaker: &'static dyn Speak, limits: Limits, probe: Probe, first: Generation) -> Self {
        Self {
            servers,
            speaker,
            limits,
            probe,
            newest: Mutex::new(first),
            convention: Mutex::new(None),
            setting: tokio::sync::Mutex::new(()),
            changed: watch::channel(()).0,
        }
    }

    /// The newest generation.
    pub fn newest(&self) -> Generation {
        self.newest.lock().clone()
    }

    /// Generations that servers hold or are being given.
    pub fn in_use(&self) -> Vec<Generation> {
        self.servers.iter().flat_map(|server| server.in_use()).collect()
    }

    /// Which log-probs the servers give; nothing before the first took part.
    pub fn convention(&self) -> Option<Convention> {
        *self.convention.lock()
    }

    /// Told whenever a server enters or leaves.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Lets a server in, with so many places, if it holds the newest generation. False when there is a newer one.
    ///
    /// # Errors
    /// A text, when it gives other log-probs than the others.
    pub fn let_in(&self, server: &Server, known: Known, places: usize, gives: Convention) -> Result<bool, String> {
        let mut convention = self.convention.lock();
        let ours = *convention.get_or_insert(gives);
        // A policy that has become sure of itself shows no convention any more.
        if ours == Convention::Unknown {
            *convention = Some(gives);
        }
        drop(convention);
        if ours != gives && ours != Convention::Unknown && gives != Convention::Unknown {
            return Err(format!("its log-probs are {gives:?}, those of the others {ours:?}: start all servers alike"));
        }
        let newest = self.newest.lock();
        if server.held().as_ref() != Some(&*newest) {
            return Ok(false);
        }
        server.enter(known, places);
        drop(newest);
        metrics::admitted();
        self.tell();
        Ok(true)
    }

    /// Takes a server out: no turn goes there until it is let in again; those under way go on.
    pub fn eject(&self, server: &Server, reason: &'static str, message: &str) {
        if server.leave() {
            metrics::ejected(reason);
            tracing::warn!(url = server.link.url(), reason, message, "a server is taken out");
            self.tell();
        }
    }

    /// Notes that a server failed at a question.
    pub fn blame(&self, server: &Server, miss: &Miss) {
        match miss.outcome {
            // What was there before it was restarted is gone: nobody else is sent there.
            Outcome::StaleVersion => self.eject(server, "stale", &miss.reason),
            // These say nothing of the server's health.
            Outcome::Busy | Outcome::Refused | Outcome::Aborted | Outcome::Expansion | Outcome::TooLong => {}
            Outcome::Slow if server.swapping.try_lock().is_err() => {}
            _ if server.failed() => self.eject(server, "failures", &miss.reason),
            _ => {}
        }
    }

    fn tell(&self) {
        metrics::servers(self.servers.iter().filter(|server| server.is_in()).count());
        self.changed.send_replace(());
    }

    /// A place: at the server that the seat is at while that takes part, else at the one with the fewest sequences, rather not at the one to
    /// `avoid`. Waits for servers and places until a moment, which moves on by the time for which the server stands still meanwhile.
    ///
    /// # Errors
    /// [`Miss`] when there is none by then.
    pub async fn place(&self, seat: &mut Option<Seat>, avoid: Option<&Arc<Server>>, until: &mut Instant) -> Result<Place, Miss> {
        let mut changes = self.changes();
        let avoided = |server: &Arc<Server>| avoid.is_some_and(|avoid| Arc::ptr_eq(avoid, server));
        loop {
            changes.borrow_and_update();
            if seat.as_ref().is_none_or(|seat| !seat.server().is_in() || avoided(seat.server())) {
                let fewest = self.servers.iter().filter(|server| server.is_in()).min_by_key(|server| (avoided(server), server.seated()));
                *seat = fewest.cloned().map(Seat::at);
            }
            let Some(seat) = seat.as_ref() else {
                let waited = timeout_at(*until, changes.changed()).await;
                waited.ok().and_then(Result::ok).ok_or_else(|| Miss::last(Outcome::Connect, "no server takes part at present"))?;
                continue;
            };
            let (server, stood) = (seat.server(), seat.server().stood_still());
            let place = tokio::select! {
                biased;
                place = server.place() => place,
                () = server.late(*until) => {
                    return Err(Miss::last(Outcome::Busy, "no server had a place in time: max_sequences are under way"));
                }
            };
            *until += server.stood_still() - stood;
            if let Some(place) = place {
                return Ok(place);
            }
        }
    }

    /// Puts a generation into every server that takes part, at the same time. One that does not take it leaves, and comes back with it, and
    /// so does one that takes much longer than the first: the others are not kept from the generations that follow. When none takes it, all
    /// go on with the one before.
    ///
    /// # Errors
    /// A text that says what each server said, when none took it.
    pub async fn set(self: &Arc<Self>, generation: Generation) -> Result<(), String> {
        let _one = self.setting.lock().await;
        let (began, before) = (Instant::now(), self.newest());
        let mut givings = JoinSet::new();
        for server in self.servers.iter().filter(|server| server.is_in()) {
            let (pool, server, generation, before) = (self.clone(), server.clone(), generation.clone(), before.clone());
            givings.spawn(async move { pool.give(&server, &generation, &before).await });
        }
        let mut refusals = Vec::new();
        // Known once one has taken it: as long again, or as long as one that leaves is away at least.
        let mut until = None;
        loop {
            let given = match until {
                None => givings.join_next().await,
                Some(until) => timeout_at(until, givings.join_next()).await.unwrap_or(None),
            };
            let Some(given) = given else { break };
            match given.unwrap_or_else(|died| Err(died.to_string())) {
                Ok(true) => _ = until.get_or_insert_with(|| Instant::now() + began.elapsed().max(self.limits.health)),
                Ok(false) => {}
                Err(refusal) => refusals.push(refusal),
            }
        }
        if until.is_none() && !refusals.is_empty() {
            return Err(refusals.join("; "));
        }
        refusals.iter().for_each(|refusal| tracing::warn!(refusal, "a server did not take weights that others took"));
        // Whoever is still at it is not stopped in the middle, and looked at again afterwards.
        givings.detach_all();
        let mut newest = self.newest.lock();
        *newest = generation;
        // Under the lock, so that nobody who was let in meanwhile stays with the one before.
        let behind = self.servers.iter().filter(|server| server.is_in() && server.held().as_ref() != Some(&*newest));
        let behind: Vec<&Arc<Server>> = behind.collect();
        behind.iter().for_each(|server| self.eject(server, "behind", "it holds an older policy than the others"));
        drop(newest);
        Ok(())
    }

    /// Puts a generation into one server; false where its turn came too late: it has left, or the one `before` is the newest no more. It comes
    /// back with the newest then.
    ///
    /// # Errors
    /// A text that says what the server said. One of which nobody knows any more what it holds has left.
    async fn give(&self, server: &Server, generation: &Generation, before: &Generation) -> Result<bool, String> {
        let _swapping = server.swapping.lock().await;
        if !server.is_in() || self.newest() != *before {
            return Ok(false);
        }
        let result = swap::put(server, self.speaker, generation, self.limits.reload).await;
        metrics::swapped(match &result {
            Ok(()) => "ok",
            Err(Refusal::PutBack(_)) => "put_back",
            Err(Refusal::Lost(_)) => "lost",
        });
        if let Err(Refusal::Lost(reason)) = &result {
            self.eject(server, "weights", reason);
            server.forgets();
        }
        let told = |(Refusal::PutBack(reason) | Refusal::Lost(reason))| format!("{}: {reason}", server.link.url());
        result.map(|()| true).map_err(told)
    }
}
