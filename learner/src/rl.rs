//! The reinforcement-learning loop.
//!
//! Consumes taught groups from the [`intake`](crate::intake); produces policy versions, references committed at epoch
//! ends, metrics and checkpoints. Waits for a full batch; is unblocked by the service's bell. Whatever passes over weights (steps,
//! copies of a version, checkpoints) runs on threads of its own; the async side only moves batches to them and versions back.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hypereyes_chassis::{BadInput, Shutdown, Work};
use hypereyes_collective::Hub;
use hypereyes_domain::{DistilledGroup, PolicyVersion, Reference, TaskId};
use hypereyes_pictures::{PatchCache, Processor, Shelf};
use hypereyes_policy::checkpoint::{self as model_files, Saver, Snapshot, StoredDtype};
use hypereyes_policy::config::ModelConfig;
use hypereyes_proto::orders::Order;
use hypereyes_run::{
    LearnerFolder, Lines, Recorded, SavedPolicy, Step, follow, format,
    ledger::{Event, Ledger},
};
use hypereyes_trainer::lora::Lora;
use hypereyes_trainer::{Moments, StepOptions, TrainError, Trainer, step};
use hypereyes_weights::Publisher;
use tonic::service::Routes;

use crate::admission::Admission;
use crate::batch;
use crate::checkpoint::{self, State};
use crate::config::Config;
use crate::intake::{Bounds, Intake};
use crate::keeper::{KeptReferences, ReferenceKeeper};
use crate::metrics::{CHECKPOINTS_FAILED, STEPS_BROKEN_OFF};
use crate::pace::Pace;
use crate::ranks::Meeting;
use crate::service::{GroupPlan, Service, Shared};
use crate::spread::Skips;
use crate::start::Start;
use crate::tasks::Tasks;

/// How long the service outlives training: above an actor's pause between heartbeats.
const LINGER: Duration = Duration::from_millis(2500);
/// How often the last checkpoint is tried, and the pause between tries: a disk may be full for a moment.
const LAST_TRIES: (u32, Duration) = (20, Duration::from_secs(1));

/// What a step needs that stays on the training thread.
struct TrainContext {
    trainer: Trainer,
    options: StepOptions,
}

/// Trains until the steps or the time are used up, or until `shutdown`, and leaves a checkpoint either way. A signal in mid-run is
/// an error in the end, so that an orchestrator does not take the run for done.
pub fn run(config: Config, shutdown: Shutdown) -> Work {
    Box::pin(work(config, shutdown))
}

async fn work(config: Config, shutdown: Shutdown) -> Result<()> {
    let process = config.process.start(&config.findings())?;
    crate::metrics::describe();
    config.start_pool();
    config.device.admits_folder(&config.policy).map_err(refusal)?;
    let server = process.bind(config.listen, hypereyes_proto::FILE_DESCRIPTOR_SET, hypereyes_proto::roles::callers).await?;
    let security = process.security().clone();
    // The service outlives the loop by a moment, so that actors hear of the end.
    let serving = Shutdown::new();
    let watched = process.watched(&server.health(), &serving).await?;
    let tasks = Tasks::load(&config.tasks)?;
    let out = LearnerFolder::new(&config.out);
    let bad = |error: hypereyes_policy::Error| BadInput::new(error.to_string());
    let (model, published) = model_files::read(&config.policy).map_err(bad)?;
    config.of_model(&published).result()?;
    let saver = Saver::new(&out.policy(), Some(&config.policy)).map_err(bad)?;
    saver.check_free(&model, StoredDtype::F32, 12 * model.parameters()).map_err(bad)?;
    for left in saver.left_out() {
        tracing::warn!(policy = %config.policy.display(), "does not go along with what is trained: {left}");
    }
    std::fs::create_dir_all(&config.out).with_context(|| format!("cannot make {}", config.out.display()))?;
    format::admit(out.root())?;
    format::mark(out.root()).with_context(|| format!("cannot write into {}", config.out.display()))?;
    let resumed = checkpoint::load(&out.checkpoint())?;
    let weights = match &resumed {
        Some(state) => state.weights.clone(),
        None => published,
    };
    let mut ledger = Ledger::open(&out.ledger()).context("cannot open groups.jsonl")?;
    let (mut step, mut version, mut before) = (0, PolicyVersion(0), 0.0);
    let mut references: BTreeMap<TaskId, Reference> = BTreeMap::new();
    for task in tasks.all() {
        let task = task.map_err(|error| BadInput::new(error.to_string()))?;
        references.extend(task.reference.map(|reference| (task.id, reference)));
    }
    let (mut cursor, mut restore, mut moments, mut candidates) = (None, None, Moments::default(), BTreeMap::new());
    let fresh = resumed.is_none();
    if let Some(state) = resumed {
        (step, version, before) = (state.step, state.version, state.seconds);
        moments = state.moments;
        // A reference only ever tightens: the checkpoint's joins the task set's.
        for (task, reference) in state.references {
            references.entry(task).and_modify(|known| *known = (*known).min(reference)).or_insert(reference);
        }
        restore = state.snapshot.filter(|_| config.restore_references || config.deterministic);
        candidates = state.candidates;
        cursor = Some(state.cursor);
        tracing::info!(step, %version, "resumed");
    }
    ledger.write(&Event::Started { step });
    let bounds = Bounds {
        groups_per_step: config.groups_per_step,
        max_staleness: config.max_staleness,
        lease: Duration::from_secs(config.lease_s),
        lease_most: Duration::from_secs(config.lease_most_s.max(config.lease_s)),
        tries: config.task_tries,
        deterministic: config.deterministic,
        skips: config.skip_zero_variance.then_some(Skips { most: config.skip_zero_variance_most, objective: config.objective }),
    };
    let processor = Processor::load(&config.policy).map_err(|error| BadInput::new(error.to_string()))?;
    let model = Arc::new(model);
    let epoch = cursor.as_ref().map_or(0, |cursor| cursor.epoch);
    let incarnation = rand::random();
    let intake = Intake::new(bounds, tasks.ids(), config.seed, incarnation, cursor, version, ledger);
    let plan = GroupPlan {
        size: config.group_size,
        temperature: config.sampling.temperature,
        top_p: config.sampling.top_p,
        lease: Duration::from_secs(config.lease_s),
    };
    let open = config.ranks.open()?;
    // Actors get whole matrices, whatever is trained.
    let mut whole = weights.clone();
    Lora::split(&mut whole, &config.optim.lora).map_err(|reason| BadInput::new(format!("optim: {reason}")))?;
    let shared = Arc::new(Shared {
        intake: Mutex::new(intake),
        bell: tokio::sync::Notify::new(),
        tasks,
        patches: PatchCache::new(processor.clone(), config.patches_bytes),
        admission: Admission::new(&config, &model, processor),
        pictures: Arc::new(Shelf::new(config.pictures_bytes)),
        waiting: Mutex::default(),
        speakers: Mutex::default(),
        publisher: Publisher::new(Snapshot::stored(&whole, version, config.publish.into()), 3, incarnation),
        plan,
        open: AtomicBool::new(false),
        meeting: Mutex::new(open.as_ref().map(|(_, meeting)| *meeting)),
        world: config.ranks.world,
        shutdown: shutdown.clone(),
    });
    watched.announce(Some(server.addr()))?;
    let routes = Routes::new(hypereyes_proto::server::learner(Service::new(shared.clone())));
    let limits = config.server.clone();
    let stop_serving = serving.clone();
    let served = tokio::spawn(async move { server.serve(routes, stop_serving, &limits).await });
    let start = Start { weights, moments };
    let (settings, shape) = (config.clone(), model.clone());
    let gathered = on_thread("gather", move || gather_ranks(&settings, (*shape).clone(), start, open))?;
    let Some(trainer) = shutdown.race(gathered).await else { return unfinished(&shutdown) };
    let trainer = trainer.context("the ranks' thread died")??;
    shared.meeting.lock().expect("never held over a panic").take();
    let keeper = ReferenceKeeper::new(&security, &config.reward)?;
    let agree = async {
        if let Some(snapshot) = restore {
            keeper.restore(snapshot).await?;
        }
        keeper.import(&references, epoch).await
    };
    let mut kept = match shutdown.race(agree).await {
        Some(kept) => kept?,
        None => KeptReferences { references: references.clone(), ..KeptReferences::default() },
    };
    let context = TrainContext { trainer, options: config.step_options() };
    let (began, said) = (Instant::now(), Instant::now());
    let (config, shared, keeper) = (&config, &shared, &keeper);
    // What a restore took away: shown before the checkpoint, and not to be shown again after it.
    let lost = restore.map_or_else(BTreeMap::new, |_| candidates.clone());
    let trajectories = Lines::new(&out.trajectories(), "trajectories");
    let mut run = Loop {
        config,
        shared,
        keeper,
        saver,
        model,
        context: Some(context),
        step,
        version,
        began,
        before,
        orders: 0,
        said,
        candidates,
        lost,
        trajectories,
        unsaved: false,
    };
    if fresh && config.deterministic {
        // Whoever is killed before the first checkpoint goes back to here.
        let state = run.state(&kept).await?;
        run.write(&state).await?;
    }
    shared.open.store(true, Ordering::Release);
    let ended = run.steps(&mut kept, &shutdown).await;
    // Told that the run is over, actors go home. One that broke off or was asked to stop before the end goes on elsewhere or
    // later, and needs them.
    let over = ended.is_ok() && !shutdown.is_triggered();
    // Saved first: one that cannot be saved is not over, and whoever tries again needs the actors.
    let saved = run.save_at_last(&kept).await;
    if over && saved.is_ok() {
        shared.intake().finish();
    }
    let saved = saved.and_then(|()| run.tell(Order::End));
    if over && saved.is_ok() {
        // Idle actors hear of the end with their next request for a lease, busy ones with their next heartbeat.
        tokio::time::sleep(LINGER).await;
    }
    serving.trigger();
    served.await.context("the server died")??;
    ended.and(saved)?;
    if over { Ok(()) } else { unfinished(&shutdown) }
}

/// How a process ends that was told to stop before the run was over. A signal comes from who will start it again, and must not
/// take it for a run that is done.
///
/// # Errors
/// After a signal.
pub(crate) fn unfinished(shutdown: &Shutdown) -> Result<()> {
    anyhow::ensure!(!shutdown.is_signalled(), "stopped by a signal before the run was over; started again, it goes on from its checkpoint");
    Ok(())
}

/// What a model could not be placed for: wrong input, unless the device itself has failed.
pub(crate) fn refusal(error: hypereyes_policy::Error) -> anyhow::Error {
    match error {
        hypereyes_policy::Error::Device(_) => error.into(),
        error => BadInput::new(error.to_string()).into(),
    }
}

/// Meets the other ranks and gives them what this one starts from.
fn gather_ranks(config: &Config, model: ModelConfig, start: Start, open: Option<(Hub, Meeting)>) -> Result<Trainer> {
    let bad = |error: hypereyes_policy::Error| BadInput::new(error.to_string());
    let mut ranks = config.ranks.lead(open)?;
    if ranks.place().world > 1 {
        ranks.broadcast(0, start.to_bytes().map_err(bad)?)?;
    }
    let optim = config.optim.clone();
    let mut trainer = Trainer::among(ranks, config.ranks.sharded, model, start.weights, optim, config.placement()).map_err(refusal)?;
    trainer.resume(&start.moments);
    Ok(trainer)
}

struct Loop<'a> {
    config: &'a Config,
    shared: &'a Arc<Shared>,
    keeper: &'a ReferenceKeeper,
    /// Of the newest policy.
    saver: Saver,
    model: Arc<ModelConfig>,
    /// Away while a step runs on its thread.
    context: Option<TrainContext>,
    step: u64,
    version: PolicyVersion,
    began: Instant,
    before: f64,
    /// Orders given to other ranks, and when the last one was.
    orders: u64,
    said: Instant,
    /// The cheapest successes of the pass under way, and those of them that the keeper has forgotten.
    candidates: BTreeMap<TaskId, Reference>,
    lost: BTreeMap<TaskId, Reference>,
    trajectories: Lines,
    /// The last checkpoint could not be written.
    unsaved: bool,
}

impl Loop<'_> {
    /// The number of an order that is about to be given.
    fn next_order(&mut self) -> u64 {
        (self.orders, self.said) = (self.orders + 1, Instant::now());
        self.orders
    }

    /// Tells the other ranks what comes next.
    fn tell(&mut self, order: Order) -> Result<()> {
        if self.config.ranks.world > 1 && self.context.is_some() {
            let number = self.next_order();
            let context = self.context.as_mut().context("it was just there")?;
            context.trainer.ranks().broadcast(number, order.into_bytes())?;
        }
        Ok(())
    }

    /// Work on the model on a thread of its own; the model is away meanwhile.
    async fn with_model<T: Send + 'static>(&mut self, name: &str, work: impl FnOnce(&mut Trainer) -> T + Send + 'static) -> Result<T> {
        let mut context = self.context.take().context("a step died, the last checkpoint stays in force")?;
        let working = on_thread(name, move || {
            let done = work(&mut context.trainer);
            (context, done)
        })?;
        let (context, done) = working.await.with_context(|| format!("the {name} thread died"))?;
        self.context = Some(context);
        Ok(done)
    }

    /// Lets the other ranks know, every now and then, that this one is there.
    fn beat(&mut self) -> Result<()> {
        if self.said.elapsed() > self.config.ranks.timeout() / 4 { self.tell(Order::Wait) } else { Ok(()) }
    }

    /// Waits for something slow while the other ranks wait too.
    async fn beating<T>(&mut self, work: impl Future<Output = T>) -> Result<T> {
        let mut work = std::pin::pin!(work);
        loop {
            match tokio::time::timeout(self.config.ranks.timeout() / 8, &mut work).await {
                Ok(done) => return Ok(done),
                Err(_) => self.beat()?,
            }
        }
    }

    async fn steps(&mut self, kept: &mut KeptReferences, shutdown: &Shutdown) -> Result<()> {
        let path = LearnerFolder::new(&self.config.out).metrics();
        if let Err(error) = follow::forget_after(&path, self.step) {
            // Who reads it takes the later of two lines of one step.
            tracing::warn!(file = %path.display(), %error, "steps that will be taken again stay in the file");
        }
        let mut metrics = Lines::new(&path, "metrics");
        let (mut waiting, mut pace) = (Instant::now(), Pace::new());
        let pass = |limit: u64, seconds: f64| limit > 0 && seconds >= limit as f64;
        while self.step < self.config.steps && !pass(self.config.time_limit_s, self.seconds()) {
            let (batch, skipped, over, drained, hungry, nothing_left) = {
                let mut intake = self.shared.intake();
                metrics::gauge!(crate::metrics::QUEUE_FILL).set(intake.fill());
                let batch = intake.take_batch();
                let skipped = intake.take_skipped();
                let over = batch.is_none() && intake.epoch_is_over();
                let nothing_left = if over { intake.nothing_left() } else { None };
                (batch, skipped, over, intake.is_finished() && intake.counts().2 == 0, intake.has_tasks(), nothing_left)
            };
            self.note_successes(&skipped);
            self.shared.let_go();
            if let Some(batch) = batch {
                let starved = waiting.elapsed().as_secs_f64();
                pace.waited(hungry);
                if let Some(mut measured) = self.train(batch, shutdown).await? {
                    measured.starved_seconds = Some(starved);
                    measured.publish();
                    metrics.append(&measured);
                    tracing::info!(step = self.step, accuracy = measured.accuracy, rounds = measured.rounds, "step");
                    if self.unsaved || self.step.is_multiple_of(self.config.checkpoint_every.max(1)) {
                        self.keep(kept).await?;
                    }
                }
                self.shared.let_go();
                pace.worked();
                waiting = Instant::now();
            } else if let Some(reason) = nothing_left.filter(|_| !drained) {
                return Err(BadInput::new(reason).into());
            } else if over && !drained {
                self.commit(kept, shutdown).await?;
            } else if drained {
                break;
            } else {
                pace.waited(hungry);
                self.beat()?;
                metrics.flush();
                self.trajectories.flush();
                self.shared.intake().flush();
                // The bell rings for groups; the timeout is for leases that expire in silence and for the time limit.
                let bell = tokio::time::timeout(Duration::from_millis(500), self.shared.bell.notified());
                if shutdown.race(bell).await.is_none() {
                    break;
                }
            }
            if shutdown.is_triggered() {
                break;
            }
        }
        for _ in 0..LAST_TRIES.0 {
            self.shared.intake().flush();
            if metrics.flush() & self.trajectories.flush() {
                break;
            }
            tokio::time::sleep(LAST_TRIES.1).await;
        }
        Ok(())
    }

    fn seconds(&self) -> f64 {
        self.before + self.began.elapsed().as_secs_f64()
    }

    /// Takes a step with what of the batch can be trained; nothing where nothing can, or where it was told to stop.
    async fn train(&mut self, batch: Vec<DistilledGroup>, shutdown: &Shutdown) -> Result<Option<Step>> {
        let (shared, model, version, lr) = (self.shared.clone(), self.model.clone(), self.version, self.config.rate(self.step));
        let prepared = tokio::task::spawn_blocking(move || batch::prepare(&shared, &model, batch)).await;
        let batch::Prepared { groups, pictures, encoded, dropped } = prepared.context("the thread that reads pictures died")?;
        for (group, label, reason) in dropped {
            tracing::warn!(group = %group.scored.group.id, reason, "a group cannot be trained; the others are");
            self.shared.intake().discard(&group, label, &reason, Instant::now());
        }
        if groups.is_empty() || shutdown.is_triggered() {
            self.shared.intake().put_back(groups);
            return Ok(None);
        }
        let order = (self.config.ranks.world > 1).then(|| self.next_order());
        let mut context = self.context.take().expect("one step at a time");
        let (stop, publish) = (context.trainer.stop(), self.config.publish);
        let span = tracing::info_span!("step", step = self.step + 1, version = version.0, groups = groups.len());
        self.shared.link(&span, groups.iter().map(|group| &group.scored.group.id));
        let step = on_thread("step", move || {
            let _within = span.entered();
            if let Some(number) = order {
                let order = Order::Step { lr, version, groups: groups.clone(), pictures: encoded };
                if let Err(error) = context.trainer.ranks().broadcast(number, order.into_bytes()) {
                    return (context, groups, Err(error.into()));
                }
            }
            let trained = step::train(&mut context.trainer, &groups, &pictures, &context.options, lr, version);
            let trained = trained.map(|measured| (measured, Snapshot::stored(context.trainer.weights(), version.next(), publish.into())));
            (context, groups, trained)
        })?;
        let waiting = self.shared.clone();
        // Nobody waits for it; the next batch finds in the cache what was done by then.
        drop(tokio::task::spawn_blocking(move || batch::prefetch(&waiting)));
        let (patience, alone) = (Duration::from_secs(self.config.stop_s), self.config.ranks.world == 1);
        let late = async {
            shutdown.cancelled().await;
            // Other ranks would wait for one that breaks off.
            stop.store(alone, Ordering::Release);
            tokio::time::sleep(patience).await;
        };
        let ended = tokio::select! {
            ended = step => ended,
            () = late => anyhow::bail!(
                "the step under way did not end within stop_s = {} s of the order to stop; the last checkpoint stays in force",
                self.config.stop_s
            ),
        };
        let (context, batch, trained) = ended.context("the training thread died")?;
        let (mut measured, snapshot) = match trained {
            Ok(trained) => trained,
            Err(TrainError::BrokenOff) => {
                tracing::info!(step = self.step, groups = batch.len(), "the step under way is broken off; its groups go back");
                metrics::counter!(STEPS_BROKEN_OFF).increment(1);
                self.context = Some(context);
                self.shared.intake().put_back(batch);
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        self.note_successes(&batch);
        self.step += 1;
        self.version = self.version.next();
        self.shared.publisher.publish(snapshot);
        self.context = Some(context);
        {
            let mut intake = self.shared.intake();
            measured.skipped_groups = Some(intake.skipped() as u64);
            intake.trained(&batch, self.version, self.step);
            let (trained, dropped, _, epoch) = intake.counts();
            (measured.groups_trained, measured.groups_dropped, measured.epoch) = (Some(trained), Some(dropped), Some(epoch));
            measured.tasks_set_aside = Some(intake.set_aside().len() as u64);
        }
        (measured.step, measured.version, measured.seconds) = (self.step, Some(self.version.0), Some(self.seconds()));
        if self.step.is_multiple_of(self.config.record_every.max(1)) || self.step == 1 {
            self.record(&batch);
        }
        Ok(Some(measured))
    }

    /// Keeps the cheapest success of each task, to become a reference at the end of the pass.
    fn note_successes(&mut self, groups: &[DistilledGroup]) {
        for scored in groups.iter().map(|group| &group.scored) {
            let Some(shown) = hypereyes_scoring::candidate(&scored.scores, &scored.group.rollouts) else { continue };
            let best = self.candidates.entry(scored.group.task.clone()).or_insert(shown.reference);
            *best = (*best).min(shown.reference);
        }
    }

    /// Writes some trajectories of a step with their tasks, for people and for the report.
    fn record(&mut self, batch: &[DistilledGroup]) {
        for group in batch {
            match self.shared.tasks.get(&group.scored.group.task) {
                Ok(Some(task)) => {
                    self.trajectories.append(&Recorded { step: self.step, task: Cow::Owned(task), group: Cow::Borrowed(group) });
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "trajectories are not written"),
            }
        }
    }

    /// The epoch is over: references are tightened, the next epoch begins.
    async fn commit(&mut self, kept: &mut KeptReferences, shutdown: &Shutdown) -> Result<()> {
        let epoch = self.shared.intake().counts().3;
        let (keeper, known) = (self.keeper, kept.references.clone());
        let Some(committed) = self.beating(shutdown.race(keeper.commit(epoch, &known))).await? else { return Ok(()) };
        *kept = committed?;
        if !self.lost.is_empty() {
            let tightened = kept.tightened;
            *kept = KeptReferences { tightened, ..self.beating(keeper.import(&self.lost.clone(), epoch + 1)).await?? };
        }
        self.candidates.clear();
        self.lost.clear();
        let tightened = kept.tightened;
        tracing::info!(epoch, tightened, snapshot = kept.snapshot, "references committed");
        let mut intake = self.shared.intake();
        intake.next_epoch();
        intake.note(&Event::Committed { epoch, tightened });
        Ok(())
    }

    /// A checkpoint in mid-run: one that cannot be written is tried again after the next step, and the one before stays in force.
    async fn keep(&mut self, kept: &KeptReferences) -> Result<()> {
        let state = self.state(kept).await?;
        let written = self.write(&state).await;
        if let Err(error) = &written {
            metrics::counter!(CHECKPOINTS_FAILED).increment(1);
            if !self.unsaved {
                tracing::warn!(
                    step = self.step,
                    error = format!("{error:#}"),
                    "no checkpoint could be written: it is tried again after every step"
                );
            }
        }
        self.unsaved = written.is_err();
        // Whoever wrote may have taken the model along: without it there is no next step.
        if self.context.is_none() { written } else { Ok(()) }
    }

    /// Checkpoint and newest policy at the end, which may have to wait for a disk.
    async fn save_at_last(&mut self, kept: &KeptReferences) -> Result<()> {
        let state = self.state(kept).await?;
        let mut tries = 1;
        loop {
            let Err(error) = self.write(&state).await else { return Ok(()) };
            metrics::counter!(CHECKPOINTS_FAILED).increment(1);
            if tries >= LAST_TRIES.0 {
                return Err(error);
            }
            tries += 1;
            tokio::time::sleep(LAST_TRIES.1).await;
        }
    }

    /// All that a checkpoint keeps, from all ranks.
    async fn state(&mut self, kept: &KeptReferences) -> Result<Arc<State>> {
        anyhow::ensure!(self.context.is_some(), "a step died, the last checkpoint stays in force");
        self.tell(Order::Moments)?;
        let seconds = self.seconds();
        let (weights, moments) = self.with_model("moments", |trainer| (trainer.state(), trainer.moments())).await?;
        Ok(Arc::new(State {
            step: self.step,
            version: self.version,
            weights,
            moments: moments?,
            cursor: self.shared.intake().cursor(),
            references: kept.references.clone(),
            snapshot: Some(kept.snapshot),
            candidates: self.candidates.clone(),
            seconds,
        }))
    }

    /// Checkpoint and newest policy.
    async fn write(&mut self, state: &Arc<State>) -> Result<()> {
        let (state, saver, keep) = (state.clone(), self.saver.clone(), self.config.checkpoint_keep);
        let out = LearnerFolder::new(&self.config.out);
        let write = move |trainer: &mut Trainer| -> Result<()> {
            checkpoint::save(&out.checkpoint(), &state, keep)?;
            let saved = saver.save(trainer.config(), trainer.weights(), StoredDtype::F32)?;
            SavedPolicy { step: state.step, digest: saved.digest }.write(out.root()).context("cannot write policy.json")
        };
        self.with_model("checkpoint", write).await?
    }
}

/// Work on a thread that ends with the process: nobody waits for one that hangs when the process was told to stop.
fn on_thread<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<tokio::sync::oneshot::Receiver<T>> {
    let (done, ended) = tokio::sync::oneshot::channel();
    let body = move || drop(done.send(work()));
    std::thread::Builder::new().name(name.into()).spawn(body).context("cannot start a thread")?;
    Ok(ended)
}
