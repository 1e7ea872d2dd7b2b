//! The engine of this process. In: sizes and a policy. Out: an [`Engine`]. Weights are swapped between two steps of it; an abort is
//! the dropping of a sequence.

use std::sync::Arc;

use hypereyes_domain::{Chunk, Failure, Generate, GenerateError, PolicyVersion, Sampling, SetWeights, SetWeightsError};
use hypereyes_pictures::{PatchCache, PatchSource};
use hypereyes_policy::checkpoint::Snapshot;
use hypereyes_policy::{Error, engine};

use crate::{Engine, EngineConfig, Policy};

/// A handle to the engine's thread.
#[derive(Clone)]
struct Local(engine::Engine);

/// Starts the engine's thread.
pub(crate) fn open(config: &EngineConfig, policy: Policy<'_>) -> Result<Engine, Error> {
    let Policy { model, snapshot, end_tokens, processor, pictures, .. } = policy;
    let (weights, version) = (snapshot.weights()?, snapshot.version);
    // Where nobody else holds it, there is room for the model.
    drop(snapshot);
    let sizes = engine::EngineConfig { end_tokens, ..config.sizes() };
    let cut = Arc::new(PatchCache::new(processor, config.patches_bytes));
    let started = engine::Engine::start_from(model, &weights, sizes, version)?;
    Ok(Engine::new(Local(started.seeing(PatchSource::new(pictures, cut)))))
}

impl Generate for Local {
    type Sequence = engine::EngineSequence;

    async fn start(&self, prompt: Chunk, seeds: Vec<u64>, sampling: Sampling) -> Result<Vec<Self::Sequence>, GenerateError> {
        self.0.start(prompt, seeds, sampling).await
    }

    fn most_siblings(&self) -> usize {
        self.0.most_siblings()
    }
}

impl SetWeights<Snapshot> for Local {
    async fn set_weights(&self, snapshot: Snapshot, version: PolicyVersion) -> Result<(), SetWeightsError> {
        let refused = |error: &dyn std::fmt::Display| SetWeightsError { failure: Failure::Infrastructure, message: error.to_string() };
        let converted = tokio::task::spawn_blocking(move || snapshot.weights()).await.map_err(|error| refused(&error))?;
        let weights = converted.map_err(|error| refused(&error))?;
        self.0.swap(weights, version).await.map_err(|error| refused(&error))
    }
}
