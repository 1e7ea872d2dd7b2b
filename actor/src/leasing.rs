//! Pulls leases while there are free slots. In: the learner's leases. Out: groups in flight, at most so many at once; at the end,
//! time for them to finish. Asking again for ever, with pauses, is all that is done about a learner that is away.

use std::sync::Arc;
use std::time::Duration;

use hypereyes_chassis::backoff::Backoff;
use hypereyes_chassis::shutdown::drain;
use hypereyes_chassis::{BadInput, Shutdown};
use hypereyes_domain::{Failure, Lease, Leased};
use metrics::counter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;

use crate::leases::Leases;
use crate::metrics::{LEASES, RECONNECTS, WAITS};
use crate::worker::Worker;

/// Shortest and longest pause before asking again, whatever the learner says.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(10));
/// Time to give leases back once grace is over.
const LAST: Duration = Duration::from_secs(3);

/// Leases until `over` is triggered: by the learner's word, or as a child of `shutdown`. Groups in flight then go on while they
/// are ours and the learner lives; after a shutdown they get `grace` to finish, and the rest is given back.
///
/// # Errors
/// [`BadInput`] for a lease that this actor can never roll out, and for a learner of another release: another try would fail alike,
/// here or in its next process.
pub async fn lease(
    worker: &Arc<Worker>,
    leases: &Leases,
    slots: usize,
    grace: Duration,
    over: &Shutdown,
    shutdown: &Shutdown,
) -> Result<(), BadInput> {
    let groups = TaskTracker::new();
    let slots = Arc::new(Semaphore::new(slots.clamp(1, Semaphore::MAX_PERMITS)));
    let mut backoff = Backoff::new(&worker.backoff);
    // Tokens of weights that are not the learner's would be stamped with a version that never was.
    let mut installed = worker.installed.clone();
    let _ = over.race(installed.wait_for(Option::is_some)).await;
    while let Some(slot) = over.race(slots.clone().acquire_owned()).await {
        let slot = slot.expect("the semaphore is never closed");
        // A slot may become free at the very end.
        if over.is_triggered() {
            break;
        }
        let known = worker.installed.borrow().map(|held| held.version);
        // Not raced: a lease that was granted must be known, or it would block the learner until it expires.
        let pause = match worker.peers.lease(known).await {
            Ok(Leased::Lease(lease)) if over.is_triggered() => {
                let _ = worker.peers.abandon(&lease.group, Failure::Cancelled, "the actor is stopping").await; // It expires otherwise.
                break;
            }
            Ok(Leased::Lease(lease)) => {
                backoff.reset();
                if let Err(reason) = worker.engine_holds(&lease) {
                    let _ = worker.peers.abandon(&lease.group, Failure::Cancelled, &reason).await; // It expires otherwise; no fault of the task.
                    return Err(BadInput::new(reason));
                }
                begin(worker, leases, &groups, *lease, slot);
                continue;
            }
            Ok(Leased::Wait { after, reason }) => {
                backoff.reset();
                counter!(WAITS, "reason" => reason.label()).increment(1);
                after.clamp(PAUSES.0, PAUSES.1)
            }
            Ok(Leased::Finished) => {
                tracing::info!("the learner has no more tasks: the run is over");
                over.trigger();
                break;
            }
            Err(error) if error.other_release => return Err(BadInput::new(error.message)),
            Err(error) => {
                counter!(RECONNECTS, "op" => "lease").increment(1);
                tracing::debug!(%error, "no lease");
                backoff.next_delay()
            }
        };
        drop(slot);
        if over.race(tokio::time::sleep(pause)).await.is_none() {
            break;
        }
    }
    groups.close();
    if shutdown.race(groups.wait()).await.is_some() {
        return Ok(());
    }
    if drain(&groups, grace).await > 0 {
        worker.stop_now.cancel();
        drain(&groups, LAST).await;
    }
    Ok(())
}

fn begin(worker: &Arc<Worker>, leases: &Leases, groups: &TaskTracker, lease: Lease, slot: OwnedSemaphorePermit) {
    counter!(LEASES).increment(1);
    tracing::debug!(group = %lease.group, task = %lease.task.id, size = lease.size, min_version = lease.min_version.0, "leased");
    let held = leases.hold(lease.group.clone());
    let worker = worker.clone();
    groups.spawn(async move {
        worker.live(lease, held).await;
        drop(slot);
    });
}
