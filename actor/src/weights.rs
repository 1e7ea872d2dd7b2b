//! Keeps the engine's weights the newest. In: the learner's announcements. Out: swapped weights, and a watch on the version that
//! the engine holds, which is empty until the engine is known to hold what the learner published. Runs for ever; who drops it
//! stops it.

use std::convert::Infallible;
use std::time::Duration;

use hypereyes_chassis::backoff::Backoff;
use hypereyes_chassis::{BackoffConfig, BadInput};
use hypereyes_domain::SetWeights;
use hypereyes_policy::checkpoint::{Snapshot, StoredDtype};
use hypereyes_proto::client::LearnerClient;
use hypereyes_weights::{Fetched, Published, Shapes, Versions, WeightsError, fetch, watch};
use metrics::{counter, gauge};
use tokio::sync::watch::Sender;
use tokio::time::Instant;

use crate::metrics::{RECONNECTS, VERSION};

/// Longest wait for the announcements to begin.
const OPENING: Duration = Duration::from_secs(10);

/// What the engine holds, and how to get more.
pub struct Follower<E> {
    /// The learner.
    pub learner: LearnerClient,
    /// The engine.
    pub engine: E,
    /// The policy's tensors; nothing else is installed.
    pub shapes: Shapes,
    /// What the engine holds.
    pub held: Published,
    /// What the next version may come as a difference to: the weights last fetched, at first those that the engine began with.
    pub base: Option<Snapshot>,
    /// Longest time for one fetch.
    pub patience: Duration,
    /// Pauses after errors.
    pub backoff: BackoffConfig,
    /// Told what the engine holds.
    pub installed: Sender<Option<Published>>,
}

impl<E: SetWeights<Snapshot>> Follower<E> {
    /// Follows the learner; while it is away, the engine goes on with what it has.
    ///
    /// # Errors
    /// [`BadInput`] when the learner trains another model than the one that this actor has, or is of another release: no other try
    /// would end better.
    pub async fn follow(mut self) -> Result<Infallible, BadInput> {
        let mut backoff = Backoff::new(&self.backoff);
        loop {
            match watch(&mut self.learner, Instant::now() + OPENING).await {
                Ok(mut versions) => self.listen(&mut versions, &mut backoff).await?,
                Err(WeightsError::OtherRelease(message)) => return Err(BadInput::new(message)),
                Err(error) => {
                    counter!(RECONNECTS, "op" => "watch").increment(1);
                    tracing::debug!(%error, "the learner announces nothing");
                }
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }

    /// Installs what is announced until the stream ends or something fails; a new stream begins with the newest version.
    async fn listen(&mut self, versions: &mut Versions, backoff: &mut Backoff) -> Result<(), BadInput> {
        loop {
            let published = match versions.next().await {
                Ok(Some(published)) => published,
                Ok(None) => return Ok(()),
                Err(error) => {
                    counter!(RECONNECTS, "op" => "watch").increment(1);
                    tracing::debug!(%error, "the announcements broke off");
                    return Ok(());
                }
            };
            if !self.install(published).await? {
                return Ok(());
            }
            backoff.reset();
        }
    }

    /// Puts a version into the engine, unless it is there. A learner that went back to a checkpoint publishes old numbers again:
    /// what counts is what it says now.
    async fn install(&mut self, published: Published) -> Result<bool, BadInput> {
        if (published.version, published.digest) != (self.held.version, self.held.digest) {
            let was = self.base.as_ref().map(Snapshot::dtype);
            self.base = written_as(self.base.take(), published.dtype).await;
            // What is held in bf16 is, written in f32, the same policy: nothing of it has to come, or to be installed.
            if let Some(same) = self.base.as_ref().filter(|base| was == Some(StoredDtype::Bf16) && base.dtype() == StoredDtype::F32) {
                self.held = Published::of(same, self.held.incarnation);
            }
        }
        if (published.version, published.digest) != (self.held.version, self.held.digest) {
            let until = Instant::now() + self.patience;
            let fetched = match fetch(&mut self.learner, published.version, Some(&self.shapes), self.base.as_ref(), until).await {
                Ok(fetched) => fetched,
                Err(WeightsError::OtherRelease(message)) => return Err(BadInput::new(message)),
                Err(error) => {
                    counter!(RECONNECTS, "op" => "fetch").increment(1);
                    tracing::warn!(version = published.version.0, %error, "weights did not arrive");
                    if error.is_misfit() {
                        return Err(BadInput::new(format!(
                            "policy: the learner trains another model than the one in this folder: {error}"
                        )));
                    }
                    return Ok(false);
                }
            };
            let Fetched { snapshot, wire_bytes } = fetched;
            let arrived = Published::of(&snapshot, published.incarnation);
            let bytes = snapshot.payload.len();
            if let Err(error) = self.engine.set_weights(snapshot.clone(), arrived.version).await {
                counter!(RECONNECTS, "op" => "swap").increment(1);
                tracing::error!(version = arrived.version.0, %error, "the engine refuses weights");
                return Ok(false);
            }
            tracing::info!(version = arrived.version.0, wire_bytes, bytes, "new weights");
            self.base = Some(snapshot);
            self.held = arrived;
        }
        self.held.incarnation = published.incarnation;
        gauge!(VERSION).set(self.held.version.0 as f64);
        self.installed.send_replace(Some(self.held));
        Ok(true)
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
