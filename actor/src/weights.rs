//! Keeps the engine's weights the newest. In: the learner's announcements. Out: swapped weights, and a watch on the version that
//! the engine holds, which is empty until the engine is known to hold what the learner published. Runs for ever; who drops it
//! stops it.

use std::convert::Infallible;

use hypereyes_chassis::BadInput;
use hypereyes_domain::SetWeights;
use hypereyes_policy::checkpoint::Snapshot;
use hypereyes_weights::{Announcements, Held, Published, WeightsError};
use metrics::{counter, gauge};
use tokio::sync::watch::Sender;

use crate::metrics::{RECONNECTS, VERSION};

/// What the engine holds, and how to get more.
pub struct Follower<E> {
    /// What the learner says.
    pub announcements: Announcements,
    /// The engine, and what is in it.
    pub held: Held<E>,
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
        loop {
            match self.announcements.next().await {
                Ok(published) => self.install(published).await?,
                Err(WeightsError::OtherRelease(message)) => return Err(BadInput::new(message)),
                Err(error) => {
                    counter!(RECONNECTS, "op" => "watch").increment(1);
                    tracing::debug!(%error, "the learner announces nothing");
                }
            }
        }
    }

    async fn install(&mut self, published: Published) -> Result<(), BadInput> {
        if let Err(error) = self.held.hold(published).await {
            counter!(RECONNECTS, "op" => error.label()).increment(1);
            tracing::warn!(version = published.version.0, %error, "weights were not installed");
            self.announcements.again();
            return error.is_final().map_or(Ok(()), |reason| Err(BadInput::new(reason)));
        }
        self.announcements.served();
        gauge!(VERSION).set(self.held.now().version.0 as f64);
        self.installed.send_replace(Some(self.held.now()));
        Ok(())
    }
}
