//! The reinforcement-learning loop.
//!
//! Consumes taught groups from the [`intake`](crate::intake); produces policy versions, references committed at epoch
//! ends, metrics and checkpoints. Waits for a full batch; is unblocked by the service's bell. The model lives on one
//! thread; the async side only moves batches to it and versions back.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use hypereyes_chassis::ready::announce;
use hypereyes_chassis::{Announcement, BadInput, Security, Server, Shutdown, telemetry};
use hypereyes_collective::Hub;
use hypereyes_domain::{PictureId, PolicyVersion, Reference, Task, TaskId, TaughtGroup};
use hypereyes_objective::Options;
use hypereyes_pictures::{Limits, Processor, Store};
use hypereyes_policy::checkpoint::{self as model_files, StoredDtype};
use hypereyes_policy::config::ModelConfig;
use hypereyes_proto::orders::Order;
use hypereyes_weights::{Publisher, Snapshot};
use serde::{Deserialize, Serialize};
use tonic::service::Routes;

use crate::checkpoint::{self, State};
use crate::config::Config;
use crate::intake::{Bounds, Intake};
use crate::ledger::{Event, Ledger};
use crate::lora::Lora;
use crate::pace::Pace;
use crate::ranks::Meeting;
use crate::service::{GroupPlan, KeptReferences, ReferenceKeeper, Service, Shared};
use crate::start::Start;
use crate::step::{self, Measured, Pictures};
use crate::tasks::Tasks;
use crate::trainer::{Moments, Trainer};

/// How long the service outlives training: above an actor's pause between heartbeats.
const LINGER: Duration = Duration::from_millis(2500);

/// What a step needs that stays on the training thread.
struct Bench {
    trainer: Trainer,
    processor: Processor,
    options: Options,
    temperature: f64,
}

/// Trains until the steps or the time are used up, or until `shutdown`, and leaves a checkpoint either way. A signal in mid-run is
/// an error in the end, so that an orchestrator does not take the run for done.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<()> {
    let telemetry = telemetry::init(&config.telemetry)?;
    crate::metrics::describe();
    config.start_pool();
    config.device.admits_folder(&config.policy).map_err(refusal)?;
    let security = Security::new(config.tls.as_ref())?;
    let server = Server::bind(config.listen).await?.describe(hypereyes_proto::FILE_DESCRIPTOR_SET);
    let server = server.secure(&security, hypereyes_proto::roles::callers);
    // The service outlives the loop by a moment, so that actors hear of the end.
    let serving = Shutdown::new();
    let _probes = server.health().listen(config.health_listen, &serving).await?;
    std::fs::create_dir_all(&config.out).with_context(|| format!("cannot make {}", config.out.display()))?;
    let tasks = Tasks::load(&config.tasks)?;
    let bad = |error: hypereyes_policy::Error| BadInput::new(error.to_string());
    let (model, published) = model_files::read(&config.policy).map_err(bad)?;
    let resumed = checkpoint::load(&config.out.join("checkpoint"))?;
    let weights = match &resumed {
        Some(state) => state.weights.clone(),
        None => published,
    };
    let mut ledger = Ledger::open(&config.out.join("groups.jsonl")).context("cannot open groups.jsonl")?;
    let (mut step, mut version, mut before) = (0, PolicyVersion(0), 0.0);
    let mut references: BTreeMap<TaskId, Reference> =
        tasks.all().filter_map(|task| task.reference.map(|reference| (task.id.clone(), reference))).collect();
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
        deterministic: config.deterministic,
    };
    let epoch = cursor.as_ref().map_or(0, |cursor| cursor.epoch);
    let life = rand::random();
    let intake = Intake::new(bounds, tasks.ids(), config.seed, life, cursor, version, ledger);
    let plan = GroupPlan {
        size: config.group_size,
        temperature: config.temperature,
        top_p: config.top_p,
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
        pictures: Store::new(config.pictures_bytes, Limits::default()),
        publisher: Publisher::new(Snapshot::stored(&whole, version, config.publish.into()), 3, life),
        plan,
        open: AtomicBool::new(false),
        meeting: Mutex::new(open.as_ref().map(|(_, meeting)| *meeting)),
        world: config.ranks.world,
        shutdown: shutdown.clone(),
    });
    let metrics_at = match config.metrics_listen {
        Some(addr) => Some(telemetry.metrics_listener(addr, serving.clone()).await?),
        None => None,
    };
    if let Some(path) = &config.announce {
        announce(path, &Announcement::new(server.addr(), metrics_at))?;
    }
    let routes = Routes::new(hypereyes_proto::server::learner(Service::new(shared.clone())));
    let limits = config.server.clone();
    let stop_serving = serving.clone();
    let served = tokio::spawn(async move { server.serve(routes, stop_serving, &limits).await });
    let start = Start { weights, moments };
    let settings = config.clone();
    let gathered = tokio::task::spawn_blocking(move || gather_ranks(&settings, model, start, open));
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
    let bench = Bench {
        trainer,
        processor: Processor::load(&config.policy).map_err(|error| BadInput::new(error.to_string()))?,
        options: config.objective,
        temperature: f64::from(config.temperature),
    };
    let (began, said) = (Instant::now(), Instant::now());
    let (config, shared, keeper) = (&config, &shared, &keeper);
    // What a restore took away: shown before the checkpoint, and not to be shown again after it.
    let lost = restore.map_or_else(BTreeMap::new, |_| candidates.clone());
    let mut run = Loop { config, shared, keeper, bench: Some(bench), step, version, began, before, orders: 0, said, candidates, lost };
    if fresh && config.deterministic {
        // Whoever is killed before the first checkpoint goes back to here.
        run.save(&kept)?;
    }
    shared.open.store(true, Ordering::Release);
    let ended = run.steps(&mut kept, &shutdown).await;
    // Told that the run is over, actors go home. One that broke off or was asked to stop before the end goes on elsewhere or
    // later, and needs them.
    let over = ended.is_ok() && !shutdown.is_triggered();
    // Saved first: one that cannot be saved is not over, and whoever tries again needs the actors.
    let saved = run.save(&kept);
    if over && saved.is_ok() {
        shared.intake().finish();
    }
    let saved = saved.and_then(|()| run.tell(&Order::End));
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
    /// Away while a step runs on its thread.
    bench: Option<Bench>,
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
}

impl Loop<'_> {
    /// Tells the other ranks what comes next.
    fn tell(&mut self, order: &Order) -> Result<()> {
        let Some(bench) = &mut self.bench else { return Ok(()) };
        if bench.trainer.place().world > 1 {
            (self.orders, self.said) = (self.orders + 1, Instant::now());
            bench.trainer.ranks().broadcast(self.orders, order.to_bytes())?;
        }
        Ok(())
    }

    /// Lets the other ranks know, every now and then, that this one is there.
    fn beat(&mut self) -> Result<()> {
        if self.said.elapsed() > self.config.ranks.timeout() / 4 { self.tell(&Order::Wait) } else { Ok(()) }
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
        let path = self.config.out.join("metrics.jsonl");
        forget_after(&path, self.step)?;
        let mut metrics = open(&path)?;
        let (mut waiting, mut pace) = (Instant::now(), Pace::new());
        let pass = |limit: u64, seconds: f64| limit > 0 && seconds >= limit as f64;
        while self.step < self.config.steps && !pass(self.config.time_limit_s, self.seconds()) {
            let (batch, over, drained, hungry) = {
                let mut intake = self.shared.intake();
                metrics::gauge!(crate::metrics::QUEUE_FILL).set(intake.fill());
                let batch = intake.take_batch();
                let over = batch.is_none() && intake.epoch_is_over();
                (batch, over, intake.is_finished() && intake.counts().2 == 0, intake.has_tasks())
            };
            if let Some(batch) = batch {
                let starved = waiting.elapsed().as_secs_f64();
                pace.waited(hungry);
                let mut measured = self.train(batch).await?;
                measured.starved_seconds = starved;
                write_line(&mut metrics, &measured)?;
                tracing::info!(step = self.step, accuracy = measured.accuracy, rounds = measured.rounds, "step");
                if self.step.is_multiple_of(self.config.checkpoint_every.max(1)) {
                    self.save(kept)?;
                }
                pace.worked();
                waiting = Instant::now();
            } else if over && !drained {
                self.commit(kept, shutdown).await?;
            } else if drained {
                break;
            } else {
                pace.waited(hungry);
                self.beat()?;
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
        Ok(())
    }

    fn seconds(&self) -> f64 {
        self.before + self.began.elapsed().as_secs_f64()
    }

    async fn train(&mut self, batch: Vec<TaughtGroup>) -> Result<Measured> {
        let (shared, version, lr) = (self.shared.clone(), self.version, self.config.rate(self.step));
        if self.config.ranks.world > 1 {
            let pictures = encoded(&shared, &batch)?;
            self.tell(&Order::Step { lr, version, groups: batch.clone(), pictures })?;
        }
        let mut bench = self.bench.take().expect("one step at a time");
        let step = tokio::task::spawn_blocking(move || {
            let pictures = gather(&shared, &bench.processor, &batch)?;
            let measured = step::train(&mut bench.trainer, &batch, &pictures, &bench.options, bench.temperature, lr, version)
                .map_err(anyhow::Error::from);
            measured.map(|measured| (bench, batch, measured))
        });
        let (bench, batch, mut measured) = step.await.context("the training thread died")??;
        for group in &batch {
            let scored = &group.scored;
            let Some(shown) = hypereyes_scoring::candidate(&scored.scores, &scored.group.rollouts) else { continue };
            let best = self.candidates.entry(scored.group.task.clone()).or_insert(shown.reference);
            *best = (*best).min(shown.reference);
        }
        self.step += 1;
        self.version = self.version.next();
        self.shared.publisher.publish(Snapshot::stored(bench.trainer.weights(), self.version, self.config.publish.into()));
        self.bench = Some(bench);
        {
            let mut intake = self.shared.intake();
            intake.trained(&batch, self.version, self.step);
            (measured.groups_trained, measured.groups_dropped, _, measured.epoch) = intake.counts();
        }
        (measured.step, measured.version, measured.seconds) = (self.step, self.version.0, self.seconds());
        if self.step.is_multiple_of(self.config.record_every.max(1)) || self.step == 1 {
            self.record(&batch)?;
        }
        Ok(measured)
    }

    /// Writes some trajectories of a step with their tasks, for people and for the report.
    fn record(&self, batch: &[TaughtGroup]) -> Result<()> {
        #[derive(Serialize)]
        struct Line<'a> {
            step: u64,
            task: &'a Task,
            group: &'a TaughtGroup,
        }
        let mut file = open(&self.config.out.join("trajectories.jsonl"))?;
        for group in batch {
            let Some(task) = self.shared.tasks.get(&group.scored.group.task) else { continue };
            write_line(&mut file, &Line { step: self.step, task, group })?;
        }
        Ok(())
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

    /// Checkpoint and newest policy.
    fn save(&mut self, kept: &KeptReferences) -> Result<()> {
        self.tell(&Order::Moments)?;
        let seconds = self.seconds();
        let bench = self.bench.as_mut().context("a step died, the last checkpoint stays in force")?;
        let moments = bench.trainer.moments()?;
        let state = State {
            step: self.step,
            version: self.version,
            weights: bench.trainer.state(),
            moments,
            cursor: self.shared.intake().cursor(),
            references: kept.references.clone(),
            snapshot: Some(kept.snapshot),
            candidates: self.candidates.clone(),
            seconds,
        };
        checkpoint::save(&self.config.out.join("checkpoint"), &state, self.config.checkpoint_keep)?;
        let policy = self.config.out.join("policy");
        model_files::save(&policy, bench.trainer.config(), bench.trainer.weights(), StoredDtype::F32)?;
        for file in std::fs::read_dir(&self.config.policy)?.flatten() {
            let name = file.file_name();
            if name != "config.json" && name != "model.safetensors" && file.path().is_file() {
                std::fs::copy(file.path(), policy.join(name)).context("cannot copy the tokenizer files")?;
            }
        }
        Ok(())
    }
}

/// The pictures that a batch mentions, each once.
fn mentioned(batch: &[TaughtGroup]) -> BTreeSet<&PictureId> {
    batch.iter().flat_map(|group| &group.scored.group.rollouts).flat_map(|rollout| &rollout.pictures).collect()
}

/// The pictures of a batch as they came.
fn encoded(shared: &Shared, batch: &[TaughtGroup]) -> Result<Vec<(PictureId, Bytes)>> {
    let bytes = |id: &PictureId| -> Result<(PictureId, Bytes)> {
        let bytes = match shared.pictures.get(id) {
            Some(picture) => picture.bytes.clone(),
            None => shared.tasks.picture(id)?.bytes,
        };
        Ok((id.clone(), bytes))
    };
    mentioned(batch).into_iter().map(bytes).collect()
}

/// The pictures of a batch as patches.
fn gather(shared: &Shared, processor: &Processor, batch: &[TaughtGroup]) -> Result<Pictures> {
    let mut pictures = Pictures::new();
    for id in mentioned(batch) {
        let patches = match shared.pictures.get(id) {
            Some(picture) => processor.patches(&picture.image),
            None => processor.patches(&shared.tasks.picture(id)?.image),
        };
        pictures.insert(id.clone(), Arc::new(patches));
    }
    Ok(pictures)
}

/// Takes the steps after `step` out of a file of metrics: they will be taken again.
fn forget_after(path: &Path, step: u64) -> Result<()> {
    #[derive(Deserialize)]
    struct Line {
        step: u64,
    }
    let Ok(text) = std::fs::read_to_string(path) else { return Ok(()) };
    let stands = |line: &&str| serde_json::from_str::<Line>(line).is_ok_and(|line| line.step <= step);
    let kept: String = text.lines().filter(stands).flat_map(|line| [line, "\n"]).collect();
    if kept.len() < text.len() {
        hypereyes_chassis::atomic::write(path, kept.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn open(path: &Path) -> Result<File> {
    File::options().create(true).append(true).open(path).with_context(|| format!("cannot open {}", path.display()))
}

fn write_line<T: Serialize>(file: &mut File, value: &T) -> Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(file.write_all(&line)?)
}
