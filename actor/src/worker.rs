//! One group's life: version, pictures, rollouts, scores, the teacher's log-probs, the learner's receipt.
//!
//! In: a lease. Out: a receipt, or the lease given back, always counted. Until the group is handed in, a lost lease ends it at
//! once; from then on the learner's receipt decides. A peer that is away is waited for; a verdict that does not come is never
//! a wrong answer.

use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use hypereyes_chassis::backoff::retry;
use hypereyes_chassis::{BackoffConfig, RetryError, Retryable, TraceContext};
use hypereyes_domain::{DistilledGroup, Failure, Generate, GroupId, Lease, Receipt, RolloutGroup};
use hypereyes_engines::Engine;
use hypereyes_pictures::Store;
use hypereyes_proto::Parcel;
use hypereyes_rollout::{Setup, run_group};
use hypereyes_weights::Published;
use metrics::{counter, histogram};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span, info_span};

use crate::leases::Held;
use crate::metrics::{ABANDONED, GROUPS, PICTURES, STAGE_SECONDS};
use crate::pictures::{self, GroupPictures};
use crate::service::{CallError, Peers};
use crate::teaching::Teaching;

/// Peers may be away for this long: as good as for ever, but every wait has an end.
const PATIENCE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Longest wait for a task's pictures: a file that the learner cannot read must not hold a slot for ever.
const PICTURES_PATIENCE: Duration = Duration::from_secs(60);
/// Longest time to give a lease back; it would expire anyway.
const ABANDON: Duration = Duration::from_secs(2);
/// Pause of a slot whose group failed, so that a task that always fails does not circle at full speed.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// What every group of an actor needs.
pub struct Worker {
    /// The peers.
    pub peers: Peers,
    /// Chat, search and limits of episodes.
    pub setup: Setup,
    /// Samples.
    pub engine: Engine,
    /// Pictures of tasks; the engine finds them and crops there.
    pub store: Arc<Store>,
    /// What the engine holds.
    pub installed: watch::Receiver<Option<Published>>,
    /// How the teacher is asked.
    pub teacher: Teaching,
    /// Pauses between tries.
    pub backoff: BackoffConfig,
    /// The end of all grace.
    pub stop_now: CancellationToken,
}

/// A group that came to no receipt.
struct Failed {
    failure: Failure,
    outcome: &'static str,
    message: String,
}

impl Failed {
    fn new(failure: Failure, message: impl ToString) -> Self {
        Self { failure, outcome: "failed", message: message.to_string() }
    }
}

impl From<CallError> for Failed {
    fn from(error: CallError) -> Self {
        // Another release is no fault of the task: it is left to whoever runs the same one.
        let failure = if error.other_release { Failure::Cancelled } else { error.failure };
        Self { failure, outcome: if error.refused { "refused" } else { "failed" }, message: error.to_string() }
    }
}

impl Worker {
    /// Whether the engine can ever roll a lease out: it holds a group of its size, and gives the log-probs that are trained on.
    ///
    /// # Errors
    /// A sentence that names the keys on both sides.
    pub fn engine_holds(&self, lease: &Lease) -> Result<(), String> {
        self.engine.gives_logprobs(lease.sampling).map_err(|reason| format!("the learner's sampling does not fit: {reason}"))?;
        let (siblings, most) = (lease.size, self.engine.most_siblings());
        if siblings <= most {
            return Ok(());
        }
        Err(format!(
            "the learner leases groups of {siblings} (its group_size), and this engine holds {most}: raise engine.max_sequences to {} and \
             engine.cache_bytes with it, or lower group_size",
            siblings + 1
        ))
    }

    /// Lives through a group. Returns when nothing is owed any more.
    pub async fn live(&self, lease: Lease, held: Held) {
        let span = info_span!("group", group = %lease.group, task = %lease.task.id, version = lease.min_version.0);
        // The trace began where the lease was granted.
        if let Some(granted) = lease.trace.as_deref().and_then(TraceContext::parse) {
            granted.adopt(&span);
        }
        self.lived(lease, held).instrument(span).await;
    }

    async fn lived(&self, lease: Lease, held: Held) {
        let made = tokio::select! {
            made = self.make(&lease) => made,
            () = held.lost() => return ended("lost", &lease.group),
            () = self.stop_now.cancelled() => Err(stopped()),
        };
        let handed_in = match made {
            Ok((taught, pictures)) => tokio::select! {
                receipt = self.hand_in(taught, &pictures) => receipt,
                () = self.stop_now.cancelled() => Err(stopped()),
            },
            Err(failed) => Err(failed),
        };
        match handed_in {
            Ok(receipt) => ended(receipt.label(), &lease.group),
            Err(failed) => self.give_back(&lease.group, failed).await,
        }
    }

    async fn make(&self, lease: &Lease) -> Result<(DistilledGroup, GroupPictures), Failed> {
        stage("version", info_span!("version"), self.wait_for(lease)).await?;
        let get = || pictures::of_task(&self.peers, &self.store, &lease.task.pictures);
        let until = Instant::now() + PICTURES_PATIENCE;
        let task_pictures = stage("pictures", info_span!("pictures"), retry("get_pictures", until, &self.backoff, get)).await;
        let task_pictures = task_pictures.map_err(|error| Failed::new(Failure::Infrastructure, error))?;
        let (group, pictures) = stage("rollout", info_span!("rollouts", count = lease.size), self.roll_out(lease, &task_pictures)).await?;
        let scores = stage("reward", info_span!("score"), self.persist("score_group", || self.peers.score(&group, &lease.task))).await?;
        let scored = scores.join(group)?;
        let teacher = stage("teacher", info_span!("teach"), self.teacher.teach(&scored, &pictures)).await;
        let taught = DistilledGroup::new(scored, teacher).and_then(|taught| taught.check().map(|()| taught));
        Ok((taught.map_err(|error| Failed::new(Failure::Infrastructure, error))?, pictures))
    }

    /// Waits until the engine holds the lease's version or a newer one of the same incarnation of the learner.
    async fn wait_for(&self, lease: &Lease) -> Result<(), Failed> {
        let mut installed = self.installed.clone();
        let serves = |held: &Option<Published>| held.is_some_and(|held| held.serves(lease.min_version, lease.incarnation));
        let held = timeout(PATIENCE, installed.wait_for(serves)).await;
        held.map_err(|_| Failed::new(Failure::Timeout, format!("{} never came", lease.min_version)))?
            .map(|_| ())
            .map_err(|_| Failed::new(Failure::Cancelled, "nobody follows the versions any more"))
    }

    async fn roll_out(
        &self,
        lease: &Lease,
        task_pictures: &[Arc<hypereyes_pictures::Picture>],
    ) -> Result<(RolloutGroup, GroupPictures), Failed> {
        let seeds = seeds(lease.seed, lease.size);
        let rollouts = run_group(&self.setup, &self.engine, &lease.task, task_pictures, &seeds, lease.sampling).await;
        let rollouts = rollouts.map_err(|error| Failed::new(error.failure, error))?;
        let group = RolloutGroup {
            id: lease.group.clone(),
            task: lease.task.id.clone(),
            actor: self.peers.actor().clone(),
            rollouts: rollouts.trajectories,
        };
        Ok((group, GroupPictures::new(task_pictures, &rollouts.crops)))
    }

    /// Puts what the learner will need, then submits until there is a receipt. The learner may lose pictures in between (it was
    /// restarted): what it names as missing is put again.
    async fn hand_in(&self, taught: DistilledGroup, pictures: &GroupPictures) -> Result<Receipt, Failed> {
        let crops = pictures.crops_of(&taught.scored.group);
        let parcel = Parcel::from(taught);
        stage("submit", info_span!("submit"), async {
            if !crops.is_empty() {
                counter!(PICTURES, "from" => "learner_put").increment(crops.len() as u64);
                self.persist("put_to_learner", || self.peers.put_to_learner(crops.clone())).await?;
            }
            Ok(self.persist("submit", || self.submit(&parcel, pictures)).await?)
        })
        .await
    }

    async fn submit(&self, parcel: &Parcel, pictures: &GroupPictures) -> Result<Receipt, CallError> {
        let error = match self.peers.submit(parcel).await {
            Ok(receipt) => return Ok(receipt),
            Err(error) => error,
        };
        let put = pictures.find(&error.missing);
        if put.is_empty() {
            return Err(error);
        }
        counter!(PICTURES, "from" => "learner_put").increment(put.len() as u64);
        self.peers.put_to_learner(put).await?;
        // At once: what others put meanwhile may drive these out.
        self.peers.submit(parcel).await.map_err(|error| CallError { refused: error.refused && error.missing.is_empty(), ..error })
    }

    async fn give_back(&self, group: &GroupId, failed: Failed) {
        tracing::warn!(%group, failure = failed.failure.label(), message = failed.message, "the group is given back");
        counter!(ABANDONED, "reason" => failed.failure.label()).increment(1);
        ended(failed.outcome, group);
        // Best effort: a lease that nobody gives back expires.
        match timeout(ABANDON, self.peers.abandon(group, failed.failure, &failed.message)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%group, %error, "the lease must expire"),
            Err(_) => tracing::debug!(%group, "the lease must expire: the learner did not answer"),
        }
        let _ = timeout(AFTER_FAILURE, self.stop_now.cancelled()).await;
    }

    /// Calls until there is an answer or a refusal.
    async fn persist<T, E, F>(&self, op: &'static str, call: impl FnMut() -> F) -> Result<T, E>
    where
        E: Retryable + std::fmt::Debug + std::fmt::Display,
        F: Future<Output = Result<T, E>>,
    {
        match retry(op, Instant::now() + PATIENCE, &self.backoff, call).await {
            Ok(value) => Ok(value),
            Err(RetryError::Fatal { error, .. } | RetryError::Deadline { last: Some(error), .. }) => Err(error),
            Err(RetryError::Deadline { last: None, .. }) => panic!("{op}: every call has its own deadline, far shorter than the patience"),
        }
    }
}

fn stopped() -> Failed {
    Failed { failure: Failure::Cancelled, outcome: "stopped", message: "the actor is stopping".into() }
}

fn ended(outcome: &'static str, group: &GroupId) {
    tracing::info!(%group, outcome, "group");
    counter!(GROUPS, "outcome" => outcome).increment(1);
}

async fn stage<T>(name: &'static str, span: Span, work: impl Future<Output = T>) -> T {
    let start = Clock::now();
    let done = work.instrument(span).await;
    histogram!(STAGE_SECONDS, "stage" => name).record(start.elapsed().as_secs_f64());
    done
}

/// One seed per rollout, the same for the same lease: SplitMix64 from the lease's seed.
fn seeds(seed: u64, size: usize) -> Vec<u64> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    (0..size).map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_reproducible_and_differ() {
        assert_eq!(seeds(7, 4), seeds(7, 4));
        assert_eq!(seeds(7, 8)[..4], seeds(7, 4), "a larger group begins like a smaller one");
        let many: std::collections::HashSet<u64> = (0..100).flat_map(|seed| seeds(seed, 8)).collect();
        assert_eq!(many.len(), 800);
        assert_eq!(seeds(0, 1), [0xe220_a839_7b1d_cdaf], "the published first value of SplitMix64");
    }
}
