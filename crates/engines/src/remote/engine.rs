//! The engine at servers, as rollouts and learners see it. In: chunks of tokens that name pictures; snapshots. Out: sampled turns; weights in
//! every server. A sequence keeps its tokens here and sends all of them each turn: servers forget, are restarted and are exchanged.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hypereyes_domain::{
    Chunk, Failure, Generate, GenerateError, PolicyVersion, Sampled, Sampling, Sequence, SetWeights, SetWeightsError, Stop, turn_seed,
};
use hypereyes_pictures::{Processor, Store};
use hypereyes_policy::checkpoint::{PolicyFolder, Snapshot};
use hypereyes_policy::{Error, faults};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::admission;
use super::compact::compact;
use super::outcome::{Miss, Outcome};
use super::pictures::{Unshown, shown};
use super::pool::Pool;
use super::request::{Ask, Reads, Shown, Want};
use super::server::Seat;
use super::turn;
use crate::command::{EngineCommand, EngineProcess};

/// Pause between looks at a server that is not there yet.
const PAUSE: Duration = Duration::from_secs(1);

/// An engine at servers. Cheap to clone; its looks at servers end with the last handle and sequence.
#[derive(Clone)]
pub struct Remote(Arc<Inner>);

struct Inner {
    pool: Arc<Pool>,
    reads: Arc<Reads>,
    processor: Processor,
    pictures: Arc<Store>,
    folder: Arc<Mutex<PolicyFolder>>,
    /// Tokens of one sequence.
    context: usize,
    /// Longest wait for servers at the start.
    start: Duration,
    /// Looks at servers, from the first time that the engine was ready.
    watches: Mutex<JoinSet<()>>,
    /// A server that is started here, until it is.
    own: Mutex<Option<EngineCommand>>,
    /// The same, once it is; it ends with the last handle and sequence.
    running: OnceLock<EngineProcess>,
}

impl Remote {
    /// One whose servers are not looked at yet.
    pub fn new(
        pool: Pool,
        reads: Arc<Reads>,
        processor: Processor,
        pictures: Arc<Store>,
        folder: PolicyFolder,
        context: usize,
        start: Duration,
    ) -> Self {
        let (pool, folder, watches) = (Arc::new(pool), Arc::new(Mutex::new(folder)), Mutex::new(JoinSet::new()));
        let (own, running) = (Mutex::new(None), OnceLock::new());
        Self(Arc::new(Inner { pool, reads, processor, pictures, folder, context, start, watches, own, running }))
    }

    /// The same with a server that is to be started.
    pub fn owning(self, own: Option<EngineCommand>) -> Self {
        *self.0.own.lock() = own;
        self
    }

    /// Starts the server that is to be started, and waits until it is up; once.
    async fn started(&self) -> Result<(), Error> {
        let Some(own) = self.0.own.lock().take() else { return Ok(()) };
        let process = self.0.running.get_or_init(|| own.start());
        // One that died may have found its device still taken by the one before: whoever starts this process again is told to.
        let failed = |message| if process.has_given_up() { Error::Input(message) } else { Error::Device(message) };
        process.ready(self.0.start).await.map_err(failed)
    }

    /// Waits until every server takes part, or the time is up and some do.
    ///
    /// # Errors
    /// [`Error::Input`] for a server that can never take part as it is; [`Error::Device`] when none does in time.
    pub async fn ready(&self) -> Result<(), Error> {
        self.started().await?;
        let Inner { pool, start, watches, .. } = &*self.0;
        let until = Instant::now() + *start;
        let waits = pool.servers.iter().map(async |server| {
            loop {
                let miss = match admission::admit(pool, server).await {
                    Ok(()) => return Ok(()),
                    Err(miss) => Miss { reason: format!("{}: {}", server.link.url(), miss.reason), ..miss },
                };
                if !miss.again || Instant::now() + PAUSE >= until {
                    return Err(miss);
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
        let waited = futures::future::join_all(waits).await;
        let misses: Vec<Miss> = waited.into_iter().filter_map(Result::err).collect();
        if let Some(miss) = misses.iter().find(|miss| !miss.again) {
            return Err(Error::Input(format!("engine.url: {}", miss.reason)));
        }
        if let Some(miss) = misses.first() {
            if misses.len() == pool.servers.len() {
                let (reason, seconds) = (&miss.reason, start.as_secs());
                return Err(Error::Device(format!("engine.url: no server took part within start_timeout_s = {seconds}: {reason}")));
            }
            misses.iter().for_each(|miss| tracing::warn!(message = miss.reason, "a server does not take part yet"));
        }
        let mut watches = watches.lock();
        if watches.is_empty() {
            for server in &pool.servers {
                watches.spawn(admission::watch(pool.clone(), server.clone()));
            }
            if let Some(process) = self.0.running.get() {
                let gave_up = process.gave_up();
                // Without its server a process that samples is of no use; whoever supervises it starts another.
                watches.spawn(async move {
                    let _ = faults::report(gave_up.await);
                });
            }
        }
        Ok(())
    }

    /// Whether the log-probs are those that are trained on.
    ///
    /// # Errors
    /// A sentence that says what they are, and what would do.
    pub fn gives_logprobs(&self, sampling: Sampling) -> Result<(), String> {
        match self.0.pool.convention() {
            Some(convention) => convention.gives(sampling).map_err(|reason| format!("the engine {reason}")),
            None => Err("no server has taken part yet: nobody knows which log-probs it gives".into()),
        }
    }
}

fn refused(failure: Failure, message: impl ToString) -> GenerateError {
    GenerateError { failure, message: message.to_string() }
}

impl Inner {
    /// The pictures of a chunk, as servers take them.
    async fn shown(&self, chunk: &Chunk) -> Result<Vec<Shown>, GenerateError> {
        if chunk.pictures.is_empty() {
            return Ok(vec![]);
        }
        let (ids, pictures, processor) = (chunk.pictures.clone(), self.pictures.clone(), self.processor.clone());
        let encoded = tokio::task::spawn_blocking(move || shown(&ids, &pictures, &processor)).await;
        let encoded = encoded.unwrap_or_else(|died| Err(Unshown::Broken(died.to_string())));
        encoded.map_err(|error| refused(Failure::Infrastructure, error))
    }

    /// What is wrong with tokens that the model has no embedding for.
    fn check(&self, tokens: &[u32]) -> Result<(), GenerateError> {
        let vocabulary = self.reads.vocabulary;
        match tokens.iter().find(|token| **token as usize >= vocabulary) {
            Some(token) => Err(refused(Failure::Policy, format!("token {token} is outside the vocabulary of {vocabulary}"))),
            None => Ok(()),
        }
    }
}

/// One sequence: all of its tokens, and the server that it keeps to.
pub struct RemoteSequence {
    engine: Arc<Inner>,
    tokens: Vec<u32>,
    pictures: Vec<Shown>,
    sampling: Sampling,
    seed: u64,
    /// Turns so far.
    turns: u64,
    seat: Option<Seat>,
}

impl Generate for Remote {
    type Sequence = RemoteSequence;

    async fn start(&self, prompt: Chunk, seeds: Vec<u64>, sampling: Sampling) -> Result<Vec<RemoteSequence>, GenerateError> {
        let engine = &self.0;
        if prompt.tokens.is_empty() || seeds.is_empty() {
            return Err(refused(Failure::Policy, "a group needs a prompt and a seed for each of its sequences"));
        }
        if prompt.tokens.len() >= engine.context {
            let message = format!("the prompt has {} tokens; the context holds {}", prompt.tokens.len(), engine.context);
            return Err(refused(Failure::Policy, message));
        }
        engine.check(&prompt.tokens)?;
        let pictures = engine.shown(&prompt).await?;
        let counts: Vec<usize> = pictures.iter().map(|picture| picture.tokens).collect();
        compact(&prompt.tokens, engine.reads.pad, &counts).map_err(|message| refused(Failure::Policy, message))?;
        // Siblings keep to one server, which reads their prompt once.
        let fewest = engine.pool.servers.iter().filter(|server| server.is_in()).min_by_key(|server| server.seated());
        let sequence = |seed| RemoteSequence {
            engine: engine.clone(),
            tokens: prompt.tokens.clone(),
            pictures: pictures.clone(),
            sampling,
            seed,
            turns: 0,
            seat: fewest.cloned().map(Seat::at),
        };
        Ok(seeds.into_iter().map(sequence).collect())
    }
}

impl Sequence for RemoteSequence {
    async fn advance(&mut self, observation: Chunk, max_tokens: usize) -> Result<Sampled, GenerateError> {
        self.engine.check(&observation.tokens)?;
        let pictures = self.engine.shown(&observation).await?;
        let max_tokens = max_tokens.max(1);
        if self.tokens.len() + observation.tokens.len() >= self.engine.context {
            return Ok(Sampled { tokens: vec![], logprobs: vec![], versions: vec![], stop: Stop::ContextFull });
        }
        self.tokens.extend(observation.tokens);
        self.pictures.extend(pictures);
        let seed = turn_seed(self.seed, self.turns);
        self.turns += 1;
        let most = max_tokens.min(self.engine.context - self.tokens.len());
        let counts: Vec<usize> = self.pictures.iter().map(|picture| picture.tokens).collect();
        let compact = compact(&self.tokens, self.engine.reads.pad, &counts).map_err(|message| refused(Failure::Policy, message))?;
        let ask = Arc::new(Ask {
            expanded: self.tokens.clone(),
            compact,
            pictures: self.pictures.clone(),
            reads: self.engine.reads.clone(),
            want: Want::Turn { sampling: self.sampling, seed, max_tokens: most },
        });
        let (checked, version) = turn::ask(&self.engine.pool, &mut self.seat, ask, most).await.map_err(failed)?;
        self.tokens.extend(&checked.tokens);
        let stop = if checked.stop == Stop::Length && most < max_tokens { Stop::ContextFull } else { checked.stop };
        // A turn during which weights changed counts as the older version's: what it went on from was read by that.
        let versions = vec![version; checked.tokens.len()];
        Ok(Sampled { tokens: checked.tokens, logprobs: checked.logprobs, versions, stop })
    }
}

/// No miss is a policy's fault: the rollout is masked.
fn failed(miss: Miss) -> GenerateError {
    let failure = if miss.outcome == Outcome::Slow { Failure::Timeout } else { Failure::Infrastructure };
    refused(failure, format!("{} ({})", miss.reason, miss.outcome.label()))
}

impl SetWeights<Snapshot> for Remote {
    async fn set_weights(&self, snapshot: Snapshot, _version: PolicyVersion) -> Result<(), SetWeightsError> {
        // In a task of its own: whoever gives up waiting leaves no server that stands still.
        let inner = self.0.clone();
        let set = tokio::spawn(async move { inner.set(snapshot).await }).await;
        let set = set.unwrap_or_else(|died| Err(died.to_string()));
        set.map_err(|message| SetWeightsError { failure: Failure::Infrastructure, message })
    }
}

impl Inner {
    async fn set(&self, snapshot: Snapshot) -> Result<(), String> {
        let (folder, keep) = (self.folder.clone(), [self.pool.in_use(), vec![self.pool.newest()]].concat());
        let write = move || {
            let mut folder = folder.lock();
            // First: the room may be needed.
            if let Err(error) = folder.retain(&keep) {
                tracing::warn!(%error, "an old generation could not be removed");
            }
            folder.write(&snapshot)
        };
        let written = tokio::task::spawn_blocking(write).await;
        let written = written.map_err(|died| died.to_string())?.map_err(|error| format!("policy_folder: {error}"))?;
        let set = self.pool.set(written).await;
        if set.is_err() {
            // Nobody took it: whoever begins anew is to begin with what servers hold.
            let (folder, newest) = (self.folder.clone(), self.pool.newest());
            let back = tokio::task::spawn_blocking(move || folder.lock().go_back(&newest)).await;
            if let Err(error) = back.map_err(|died| died.to_string()).and_then(|back| back.map_err(|error| error.to_string())) {
                tracing::warn!(error, "the generation that servers hold could not be put in force again");
            }
        }
        let (folder, keep) = (self.folder.clone(), [self.pool.in_use(), vec![self.pool.newest()]].concat());
        // A generation that cannot be removed takes room, which is said; the weights are in all the same.
        let retained = tokio::task::spawn_blocking(move || folder.lock().retain(&keep)).await;
        match retained {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "an old generation could not be removed"),
            Err(error) => tracing::warn!(%error, "an old generation could not be removed"),
        }
        set
    }
}
