//! One type for engines of every kind, chosen when the program runs. In: any implementation of the port. Out: the same behind a
//! pointer. Costs an allocation a turn and knows no kind.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use hypereyes_domain::{Chunk, Generate, GenerateError, PolicyVersion, Round, Sampled, Sampling, Sequence, SetWeights, SetWeightsError};
use hypereyes_policy::Error;
use hypereyes_policy::checkpoint::Snapshot;

use crate::remote::Remote;

type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// An engine of some kind. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    any: Arc<dyn AnyEngine>,
    /// The same where servers sample: they are waited for, and give log-probs of their own kind.
    remote: Option<Remote>,
}

/// One of its sequences.
pub struct EngineSequence(Box<dyn AnySequence>);

impl Engine {
    /// Any implementation of the port.
    pub fn new(engine: impl SetWeights<Snapshot>) -> Self {
        Self { any: Arc::new(engine), remote: None }
    }

    pub(crate) fn remote(engine: Remote) -> Self {
        Self { any: Arc::new(engine.clone()), remote: Some(engine) }
    }

    /// Waits until it can be asked: at once in this process; servers are waited for, given the policy and looked at. To be called once, in
    /// the runtime that the engine is used in.
    ///
    /// # Errors
    /// [`Error::Input`] for a server that can never take part as it is started; [`Error::Device`] when there is none in time.
    pub async fn ready(&self) -> Result<(), Error> {
        match &self.remote {
            Some(remote) => remote.ready().await,
            None => Ok(()),
        }
    }

    /// Whether its log-probs are those that a learner assumes: at the sampling temperature, before the distribution is truncated. To be
    /// asked before rollouts are made to be trained on.
    ///
    /// # Errors
    /// A sentence that says what they are instead, and what would do.
    pub fn gives_logprobs(&self, sampling: Sampling) -> Result<(), String> {
        match &self.remote {
            Some(remote) => remote.gives_logprobs(sampling),
            None => Ok(()),
        }
    }
}

/// The port, for a pointer.
trait AnyEngine: Send + Sync {
    fn start(&self, prompt: Chunk, seeds: Vec<u64>, sampling: Sampling) -> Later<'_, Result<Vec<EngineSequence>, GenerateError>>;
    fn most_siblings(&self) -> usize;
    fn set_weights(&self, snapshot: Snapshot, version: PolicyVersion) -> Later<'_, Result<(), SetWeightsError>>;
}

impl<E: SetWeights<Snapshot>> AnyEngine for E {
    fn start(&self, prompt: Chunk, seeds: Vec<u64>, sampling: Sampling) -> Later<'_, Result<Vec<EngineSequence>, GenerateError>> {
        Box::pin(async move {
            let started = Generate::start(self, prompt, seeds, sampling).await?;
            Ok(started.into_iter().map(|sequence| EngineSequence(Box::new(sequence))).collect())
        })
    }

    fn most_siblings(&self) -> usize {
        Generate::most_siblings(self)
    }

    fn set_weights(&self, snapshot: Snapshot, version: PolicyVersion) -> Later<'_, Result<(), SetWeightsError>> {
        Box::pin(SetWeights::set_weights(self, snapshot, version))
    }
}

trait AnySequence: Send {
    fn advance(&mut self, observation: Chunk, max_tokens: usize) -> Later<'_, Result<Sampled, GenerateError>>;

    fn executed(&mut self, round: &Round);
}

impl<S: Sequence> AnySequence for S {
    fn advance(&mut self, observation: Chunk, max_tokens: usize) -> Later<'_, Result<Sampled, GenerateError>> {
        Box::pin(Sequence::advance(self, observation, max_tokens))
    }

    fn executed(&mut self, round: &Round) {
        Sequence::executed(self, round);
    }
}

impl Generate for Engine {
    type Sequence = EngineSequence;

    async fn start(&self, prompt: Chunk, seeds: Vec<u64>, sampling: Sampling) -> Result<Vec<EngineSequence>, GenerateError> {
        self.any.start(prompt, seeds, sampling).await
    }

    fn most_siblings(&self) -> usize {
        self.any.most_siblings()
    }
}

impl SetWeights<Snapshot> for Engine {
    async fn set_weights(&self, snapshot: Snapshot, version: PolicyVersion) -> Result<(), SetWeightsError> {
        self.any.set_weights(snapshot, version).await
    }
}

impl Sequence for EngineSequence {
    async fn advance(&mut self, observation: Chunk, max_tokens: usize) -> Result<Sampled, GenerateError> {
        self.0.advance(observation, max_tokens).await
    }

    fn executed(&mut self, round: &Round) {
        self.0.executed(round);
    }
}
