//! Measures one version after the other. In: what the learner says, an engine, tasks. Out: evaluations in the journal; what is due and
//! cannot be measured is counted with its reason. It holds no lease, so that the learner never waits for it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use hypereyes_chassis::backoff::Backoff;
use hypereyes_chassis::{BadInput, Shutdown};
use hypereyes_domain::{PolicyVersion, Sampling, SetWeights};
use hypereyes_eval::{EvalConfig, Evaluation, Report, TaskSet, evaluate};
use hypereyes_judge::Verdicts;
use hypereyes_policy::checkpoint::{HostWeights, Snapshot};
use hypereyes_rollout::Player;
use hypereyes_weights::{Held, HoldError, Published};
use metrics::counter;
use tokio::sync::watch::Receiver;

use crate::following::Said;
use crate::journal::Journal;
use crate::metrics::{self as own, RECONNECTS};
use crate::schedule::{Due, Schedule, StandsIn};

/// What every version is measured with: the same each time, seeds included, so that two of them differ in nothing else.
pub struct Measure {
    /// Plays with whatever the engine holds.
    pub player: Arc<dyn Player>,
    /// Says what is right.
    pub judge: Arc<dyn Verdicts>,
    /// The tasks.
    pub set: TaskSet,
    /// Samples, seeds, how many at once.
    pub config: EvalConfig,
    /// How turns are sampled.
    pub sampling: Sampling,
}

/// The loop.
pub struct Measuring<E> {
    /// The engine, and what is in it.
    pub held: Held<E>,
    /// With what.
    pub measure: Measure,
    /// When.
    pub schedule: Schedule,
    /// What came of it.
    pub journal: Journal,
    /// Pauses while the learner is away.
    pub backoff: Backoff,
    /// Whether no step has had its turn in this process.
    pub fresh: bool,
}

impl<E: SetWeights<Snapshot>> Measuring<E> {
    /// Measures what is due until the run is over and nothing is, or until `shutdown`, which cuts a measurement off.
    ///
    /// # Errors
    /// [`BadInput`] when the learner trains another model, or is of another release.
    pub async fn run(&mut self, mut said: Receiver<Said>, shutdown: &Shutdown) -> Result<()> {
        loop {
            let now = *said.borrow_and_update();
            let due = now.newest.and_then(|newest| self.schedule.due(newest.version.0, newest.incarnation).map(|due| (due, newest)));
            match due {
                Some((due, newest)) => {
                    let done = shutdown.race(self.take(due, newest, &said)).await;
                    let Some(done) = done else { return Ok(()) };
                    done?;
                }
                None if now.over => {
                    tracing::info!("the run is over");
                    return Ok(());
                }
                None => match shutdown.race(said.changed()).await {
                    Some(changed) => changed.context("nobody follows the learner any more")?,
                    None => return Ok(()),
                },
            }
        }
    }

    /// A step has its turn.
    async fn take(&mut self, Due { step, passed }: Due, newest: Published, said: &Receiver<Said>) -> Result<()> {
        own::skipped(passed, step, if std::mem::take(&mut self.fresh) { "down" } else { "overtaken" });
        let mut held = self.hold(step, newest).await;
        if held.as_ref().is_err_and(|error| error.is_final().is_none()) && newest.version.0 != step {
            // It is published no more.
            let newest = said.borrow().newest.unwrap_or(newest);
            match self.schedule.stands_in(newest.version.0, step) {
                StandsIn::Newest => held = self.held.hold(newest).await,
                StandsIn::Another => {
                    self.schedule.put_back(step);
                    return Ok(());
                }
                StandsIn::Nobody => {
                    own::skipped(1, step, "gone");
                    return Ok(());
                }
            }
        }
        if let Err(error) = held {
            let over = said.borrow().over;
            return self.failed(step, &error, over).await;
        }
        self.backoff.reset();
        let now = self.held.now();
        if now.version.0 != step {
            own::skipped(1, step, "gone");
        }
        let weights = self.weights().await?;
        let digest = tokio::task::block_in_place(|| self.journal.digest_of(&weights))?;
        if self.journal.has(now.version.0, &digest) {
            // A learner that took the same step again.
            return Ok(());
        }
        tracing::info!(step = now.version.0, due = step, tasks = self.measure.set.tasks.len(), "measuring");
        let (report, seconds) = self.measure.report().await;
        if report.rollouts == 0 {
            own::skipped(1, step, "failed");
            return Ok(());
        }
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let version = now.version.0;
        let evaluation = Evaluation { step: version, version, due: step, digest, seconds: Some(seconds), time, report };
        own::count(&evaluation, seconds);
        let (accuracy, rounds, cas) = (evaluation.report.accuracy, evaluation.report.rounds, evaluation.report.cas);
        let is_best = tokio::task::block_in_place(|| self.journal.keep(evaluation, &weights));
        tracing::info!(step = version, accuracy, rounds, cas, seconds, is_best, "measured");
        Ok(())
    }

    /// Puts the version of a step into the engine.
    async fn hold(&mut self, step: u64, newest: Published) -> Result<(), HoldError> {
        if newest.version.0 == step { self.held.hold(newest).await } else { self.held.hold_older(PolicyVersion(step), newest).await }
    }

    /// What was not held is due again, while there is somebody to ask.
    async fn failed(&mut self, step: u64, error: &HoldError, over: bool) -> Result<()> {
        counter!(RECONNECTS, "op" => error.label()).increment(1);
        if let Some(reason) = error.is_final() {
            return Err(BadInput::new(reason).into());
        }
        if over {
            own::skipped(1, step, "ended");
            return Ok(());
        }
        tracing::debug!(step, %error, "a version could not be had: it is tried again");
        self.schedule.put_back(step);
        tokio::time::sleep(self.backoff.next_delay().max(LEAST_PAUSE)).await;
        Ok(())
    }

    /// What is in the engine, as it is kept.
    async fn weights(&self) -> Result<HostWeights> {
        let snapshot = self.held.weights().context("the engine holds what nobody has")?.clone();
        Ok(tokio::task::spawn_blocking(move || snapshot.weights()).await.context("weights could not be read")??)
    }
}

/// Shortest pause before a version is asked for again.
const LEAST_PAUSE: Duration = Duration::from_millis(50);

impl Measure {
    /// The numbers of what the engine holds, and how long they took.
    async fn report(&self) -> (Report, f64) {
        let began = Instant::now();
        let report = evaluate(&*self.player, &*self.judge, &self.set, &self.config, self.sampling, |_| {}, |_, _, _| {}).await;
        (report, began.elapsed().as_secs_f64())
    }
}
