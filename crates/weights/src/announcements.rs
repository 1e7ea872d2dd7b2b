//! What a learner announces, for whoever follows it for as long as there is one. In: a client. Out: each version by name as it comes,
//! or why none came, after which the next is asked for with a pause. Nobody needs to be told that the learner was away.

use std::time::Duration;

use hypereyes_chassis::BackoffConfig;
use hypereyes_chassis::backoff::Backoff;
use hypereyes_proto::client::LearnerClient;
use tokio::time::Instant;

use crate::{Published, Versions, WeightsError, watch};

/// Longest wait for the announcements to begin.
const OPENING: Duration = Duration::from_secs(10);

/// The announcements of a learner, through all its incarnations.
#[derive(Debug)]
pub struct Announcements {
    learner: LearnerClient,
    versions: Option<Versions>,
    backoff: Backoff,
    /// Whether something failed since the last pause.
    failed: bool,
}

impl Announcements {
    /// Those of this learner; calls that fail are repeated as `backoff` says.
    pub fn new(learner: LearnerClient, backoff: &BackoffConfig) -> Self {
        Self { learner, versions: None, backoff: Backoff::new(backoff), failed: false }
    }

    /// Waits for the next version, however long; the first of a stream is the newest, at once. To be called again after an error, which
    /// it does after a pause.
    ///
    /// # Errors
    /// [`WeightsError`] when there was no stream, or it broke off. [`WeightsError::OtherRelease`] will not pass.
    pub async fn next(&mut self) -> Result<Published, WeightsError> {
        loop {
            if std::mem::take(&mut self.failed) {
                self.versions = None;
                tokio::time::sleep(self.backoff.next_delay()).await;
            }
            let versions = match &mut self.versions {
                Some(versions) => versions,
                None => {
                    let opened = watch(&mut self.learner, Instant::now() + OPENING).await;
                    self.failed = opened.is_err();
                    self.versions.insert(opened?)
                }
            };
            let next = versions.next().await;
            // A learner that ends its stream is about to end, or to be another.
            self.failed = !matches!(next, Ok(Some(_)));
            if let Some(published) = next? {
                return Ok(published);
            }
        }
    }

    /// What was announced was of use: pauses are short again.
    pub fn served(&mut self) {
        self.backoff.reset();
    }

    /// What was announced could not be had: the next call pauses, and begins anew with the newest.
    pub fn again(&mut self) {
        self.failed = true;
    }
}
