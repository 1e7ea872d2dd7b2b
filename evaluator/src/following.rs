//! Follows a learner. In: its announcements, and its word on whether the run is over. Out: a watch on both, which is never late for long
//! however long a measurement takes. Runs for ever; who drops it stops it.

use std::convert::Infallible;
use std::time::Duration;

use hypereyes_chassis::BadInput;
use hypereyes_proto::client::LearnerClient;
use hypereyes_weights::{Announcements, Published, WeightsError, newest};
use metrics::counter;
use tokio::sync::watch::Sender;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::metrics::RECONNECTS;
use crate::service;

/// How often the learner is asked whether the run is over: several times while it lingers for those who work for it.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// Longest wait for the number of the newest version.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a learner has said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The newest version.
    pub newest: Option<Published>,
    /// No other will follow.
    pub over: bool,
}

/// Follows a learner. `last` is the step from which on nobody needs to be told: a learner that reached it and is gone will say no more.
///
/// # Errors
/// [`BadInput`] when the learner is of another release.
pub async fn follow(
    announcements: Announcements,
    learner: LearnerClient,
    last: Option<u64>,
    said: &Sender<Said>,
) -> Result<Infallible, BadInput> {
    tokio::select! {
        ended = listen(announcements, last, said) => ended,
        never = ask(learner, said) => match never {},
    }
}

/// Passes on what is announced.
async fn listen(mut announcements: Announcements, last: Option<u64>, said: &Sender<Said>) -> Result<Infallible, BadInput> {
    loop {
        match announcements.next().await {
            Ok(published) => {
                announcements.served();
                said.send_modify(|said| said.newest = Some(published));
            }
            Err(WeightsError::OtherRelease(message)) => return Err(BadInput::new(message)),
            Err(error) => {
                counter!(RECONNECTS, "op" => "watch").increment(1);
                tracing::debug!(%error, "the learner announces nothing");
                let is_last = |published: Published| last.is_some_and(|last| published.version.0 >= last);
                said.send_if_modified(|said| {
                    let ends = !said.over && said.newest.is_some_and(is_last);
                    said.over |= ends;
                    ends
                });
            }
        }
    }
}

/// Asks whether the run is over.
async fn ask(mut learner: LearnerClient, said: &Sender<Said>) -> Infallible {
    let mut asks = interval(ASK_EVERY);
    asks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        asks.tick().await;
        let over = service::is_over(&learner).await.unwrap_or(false);
        if !over || said.borrow().over {
            continue;
        }
        // The last announcement may still be on its way.
        let newest = newest(&mut learner, Instant::now() + PATIENCE).await.ok();
        said.send_modify(|said| *said = Said { newest: newest.or(said.newest), over });
    }
}
