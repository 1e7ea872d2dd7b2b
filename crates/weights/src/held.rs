//! What an engine holds of a learner's versions. In: a version by name. Out: its weights in the engine, fetched as a difference to what
//! is held, or why not, and then the engine is as it was. It knows nobody who samples, and no order of versions.

use std::time::Duration;

use hypereyes_domain::{PolicyVersion, SetWeights, SetWeightsError};
use hypereyes_policy::checkpoint::{Snapshot, StoredDtype};
use hypereyes_proto::client::LearnerClient;
use tokio::time::Instant;

use crate::{Fetched, Published, Shapes, WeightsError, fetch};

/// An engine and what is in it.
#[derive(Debug)]
pub struct Held<E> {
    learner: LearnerClient,
    engine: E,
    /// The policy's tensors; nothing else is installed.
    shapes: Shapes,
    now: Published,
    /// What the next version may come as a difference to: the weights last fetched, at first those that the engine began with.
    base: Option<Snapshot>,
    /// Longest time for one fetch.
    patience: Duration,
}

/// Why an engine does not hold a version.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum HoldError {
    /// The weights did not arrive.
    #[error(transparent)]
    Fetch(#[from] WeightsError),
    /// The engine does not take them.
    #[error("the engine refuses the weights of {version}: {reason}")]
    Refused {
        /// The version.
        version: PolicyVersion,
        /// What it says.
        reason: SetWeightsError,
    },
}

impl HoldError {
    /// A sentence for whoever can never hold what this learner publishes; `None` where another try may end better.
    pub fn is_final(&self) -> Option<String> {
        match self {
            Self::Fetch(WeightsError::OtherRelease(message)) => Some(message.clone()),
            Self::Fetch(error) if error.is_misfit() => {
                Some(format!("policy: the learner trains another model than the one in this folder: {error}"))
            }
            Self::Fetch(_) | Self::Refused { .. } => None,
        }
    }

    /// The `op` label of counters.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Fetch(_) => "fetch",
            Self::Refused { .. } => "swap",
        }
    }
}

impl<E: SetWeights<Snapshot>> Held<E> {
    /// An engine that began with `base`, and whose next versions come from this learner, each within `patience`.
    pub fn new(learner: LearnerClient, engine: E, base: Snapshot, patience: Duration) -> Self {
        let (shapes, now) = (Shapes::of(&base), Published::of(&base, 0));
        Self { learner, engine, shapes, now, base: Some(base), patience }
    }

    /// What the engine holds.
    pub fn now(&self) -> Published {
        self.now
    }

    /// Its weights, unless nothing is known of them.
    pub fn weights(&self) -> Option<&Snapshot> {
        self.base.as_ref()
    }

    /// Puts a version into the engine, unless it is there. A learner that went back to a checkpoint publishes old numbers again: what
    /// counts is what it says now.
    ///
    /// # Errors
    /// [`HoldError`]; the engine then holds what it held.
    pub async fn hold(&mut self, published: Published) -> Result<(), HoldError> {
        if !self.is(published) {
            self.compare_in(published.dtype).await;
        }
        if !self.is(published) {
            self.fetch(published.version, published.incarnation).await?;
        }
        self.now.incarnation = published.incarnation;
        Ok(())
    }

    /// The same for a version before the newest, of which only the number is known; which weights came is told by [`Held::now`].
    ///
    /// # Errors
    /// As [`Held::hold`]: among others, the learner has it no more.
    pub async fn hold_older(&mut self, version: PolicyVersion, newest: Published) -> Result<(), HoldError> {
        if (self.now.version, self.now.incarnation) != (version, newest.incarnation) {
            self.compare_in(newest.dtype).await;
            self.fetch(version, newest.incarnation).await?;
        }
        Ok(())
    }

    fn is(&self, published: Published) -> bool {
        (published.version, published.digest) == (self.now.version, self.now.digest)
    }

    /// Writes what is held in the type in which the learner publishes, so that differences to it can come.
    async fn compare_in(&mut self, published: Option<StoredDtype>) {
        let was = self.base.as_ref().map(Snapshot::dtype);
        self.base = written_as(self.base.take(), published).await;
        // What is held in bf16 is, written in f32, the same policy: nothing of it has to come, or to be installed.
        if let Some(same) = self.base.as_ref().filter(|base| was == Some(StoredDtype::Bf16) && base.dtype() == StoredDtype::F32) {
            self.now = Published::of(same, self.now.incarnation);
        }
    }

    async fn fetch(&mut self, version: PolicyVersion, incarnation: u32) -> Result<(), HoldError> {
        let until = Instant::now() + self.patience;
        let Fetched { snapshot, wire_bytes } = fetch(&mut self.learner, version, Some(&self.shapes), self.base.as_ref(), until).await?;
        let arrived = Published::of(&snapshot, incarnation);
        let (version, bytes) = (arrived.version, snapshot.payload.len());
        self.engine.set_weights(snapshot.clone(), version).await.map_err(|reason| HoldError::Refused { version, reason })?;
        tracing::info!(version = version.0, wire_bytes, bytes, "new weights");
        self.base = Some(snapshot);
        self.now = arrived;
        Ok(())
    }
}

/// The base in the type in which the learner publishes. The first one is made of the policy's folder before anything is known of it.
async fn written_as(base: Option<Snapshot>, published: Option<StoredDtype>) -> Option<Snapshot> {
    match (base, published) {
        (Some(base), Some(dtype)) if base.dtype() != dtype => {
            // Without a base all of it comes, which is right as well.
            tokio::task::spawn_blocking(move || base.written_as(dtype).ok()).await.unwrap_or(None)
        }
        (base, _) => base,
    }
}
