//! The actor's pulse. In: the leases held. Out: lost leases are marked, and the end of the run is noticed even while every slot
//! is busy. Runs for ever; who drops it stops it.

use std::convert::Infallible;
use std::time::Duration;

use hypereyes_chassis::Shutdown;
use metrics::counter;
use tokio_util::sync::CancellationToken;

use crate::leases::Leases;
use crate::metrics::HEARTBEATS;
use crate::service::Peers;

/// Heartbeats that a learner may miss in a row, after the run was over, until it is taken to be gone.
const MISSED: u32 = 3;
/// Longest pause between heartbeats once the run is over: the learner will not stay for long.
const AT_THE_END: Duration = Duration::from_millis(500);

/// Sends a heartbeat every `every`. When the learner says that the run is over, `over` is triggered; groups that are still ours
/// go on, since the learner may be waiting for them. When it then is gone, `stop_now` is cancelled: nobody is left to hand a
/// group to.
pub async fn beat(peers: &Peers, leases: &Leases, every: Duration, over: &Shutdown, stop_now: &CancellationToken) -> Infallible {
    let mut missed = 0;
    loop {
        let asked = leases.ids();
        match peers.heartbeat(&asked).await {
            Ok(beat) => {
                missed = 0;
                counter!(HEARTBEATS, "outcome" => "ok").increment(1);
                // First, so that a slot that a lost lease frees does not ask for another.
                if beat.finished && !over.is_triggered() {
                    tracing::info!("the learner says that the run is over");
                    over.trigger();
                }
                leases.settle(&asked, &beat.still);
            }
            Err(error) => {
                missed += 1;
                counter!(HEARTBEATS, "outcome" => "failed").increment(1);
                tracing::debug!(%error, "no heartbeat");
                if missed >= MISSED && over.is_triggered() && !stop_now.is_cancelled() {
                    tracing::info!(groups = asked.len(), "the run is over and the learner is gone");
                    stop_now.cancel();
                }
            }
        }
        tokio::time::sleep(if over.is_triggered() { every.min(AT_THE_END) } else { every }).await;
    }
}
