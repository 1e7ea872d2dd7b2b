//! `hypereyes up`: the main job. The whole loop on this machine: tasks, the start policy measured, all rooms as processes,
//! the trained policy measured on the same tasks with the same seeds, a table and a report.
//!
//! In: settings. Out: a run folder. Everything is checked before the first file is written; everything that is done is
//! found again by `--resume`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use hypereyes_chassis::{BadInput, Shutdown, config, exit, ready};
use hypereyes_eval::{Report, TaskSet};
use hypereyes_search::World;
use hypereyes_synth::Split;
use serde::Serialize;
use tokio::sync::mpsc;

use crate::cli::{Cli, ENV_PREFIX};
use crate::commands::synth;
use crate::config::Config;
use crate::follow::{self, Follower};
use crate::held_out::{self, Measured};
use crate::outcome::{Before, Details, Numbers, Outcome, Summary};
use crate::output::Voice;
use crate::progress::Bar;
use crate::report::page::duration;
use crate::rooms::{LEARNER, Rooms, absolute};
use crate::run_folder::{Addresses, Held, Progress, RUNS, RunFolder, State, read_json, write_json};
use crate::shipped::Shipped;
use crate::supervise::{Event, Supervisor};
use crate::{ledger, output, parts, ports, report};

/// How often the metrics file is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// Arguments of `up`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  hypereyes up\n  hypereyes up --set seed=1 --set run_dir=runs/mine\n  \
    hypereyes up --set learner.steps=40 --set synth.held_out=400\n  \
    hypereyes up --set reward_service.trace.enabled=false      without the efficiency bonus\n  \
    hypereyes up --set up.distill=false                        without the teacher\n  \
    hypereyes up --resume                                      go on with the newest run that was interrupted\n\n\
    Ctrl-C stops the rooms in order and leaves a checkpoint.")]
pub struct UpArgs {
    /// Go on with an interrupted run: the one in `run_dir`, else the newest under `runs/`.
    #[arg(long)]
    pub resume: bool,
    /// Check everything, print what would be done and every resolved setting, and stop.
    #[arg(long)]
    pub dry_run: bool,
}

/// What a run would do.
#[derive(Debug, Serialize)]
struct Intent {
    run_dir: PathBuf,
    resume: bool,
    policy: String,
    teacher: Option<String>,
    world: String,
    train_tasks: usize,
    held_out_tasks: usize,
    steps: u64,
    groups_per_step: usize,
    group_size: u32,
    actors: usize,
    trace: bool,
    seed: u64,
    cores: usize,
}

/// Runs the whole job.
pub fn run(cli: &Cli, args: &UpArgs) -> Result<()> {
    let (config, folder) = resolve(cli, args)?;
    let world = check(&config)?;
    let runtime = parts::runtime()?;
    runtime.block_on(async { ports::resolve(&wishes(&config)).await })?;
    if args.dry_run {
        return dry_run(&config, &folder, &world, args.resume, cli.json);
    }
    parts::telemetry()?;
    let held = folder.hold()?;
    let voice = Voice { json: cli.json };
    let result = runtime.block_on(async {
        let shutdown = Shutdown::on_signal().context("cannot listen for signals")?;
        let mut job = Job::begin(config, folder, world, voice, held)?;
        let done = job.all(&shutdown).await;
        job.end_sitting()?;
        done.map_err(|error| if job.can_resume() { with_advice(error, &job.resume_command()) } else { error })
    });
    // Threads of the engine may still be at work on a step that nobody waits for.
    runtime.shutdown_timeout(Duration::from_secs(2));
    let outcome = result?;
    if cli.json {
        output::json(&outcome.summary);
    }
    Ok(())
}

/// The error with the way to go on; what was bad input stays it.
fn with_advice(error: anyhow::Error, command: &str) -> anyhow::Error {
    let text = format!("{}; go on with: {command}", exit::line_of(error.as_ref()));
    match exit::code_of(error.as_ref()) {
        exit::BAD_INPUT => BadInput::new(text).into(),
        _ => anyhow!(text),
    }
}

/// Settings and folder of the run.
fn resolve(cli: &Cli, args: &UpArgs) -> Result<(Config, RunFolder)> {
    let mut config = cli.settings()?;
    if !args.resume {
        let folder = if config.run_dir.as_os_str().is_empty() { RunFolder::fresh(config.seed) } else { RunFolder::new(&config.run_dir) };
        folder.admit(false)?;
        config.run_dir = folder.root().to_owned();
        return Ok((config, RunFolder::new(absolute(folder.root())?)));
    }
    let folder = if config.run_dir.as_os_str().is_empty() {
        RunFolder::newest(Path::new(RUNS), |folder| folder.state() == State::Unfinished)
            .ok_or_else(|| BadInput::new(format!("no unfinished run under {RUNS}/: name one with --set run_dir=FOLDER")))?
    } else {
        RunFolder::new(&config.run_dir)
    };
    folder.admit(true)?;
    if cli.config.is_some() {
        return Err(BadInput::new("a resumed run keeps its own settings: leave --config out; --set still changes single ones").into());
    }
    // Its own settings, and what is said now on top.
    config = config::load(Config::default(), Some(&folder.config()), ENV_PREFIX, &cli.sets)?;
    config.run_dir = folder.root().to_owned();
    Ok((config, RunFolder::new(absolute(folder.root())?)))
}

/// Everything that can be wrong with the settings, before anything is written.
fn check(config: &Config) -> Result<Arc<World>> {
    let bad = |text: String| -> anyhow::Error { BadInput::new(text).into() };
    config.synth.check().map_err(|error| bad(error.to_string()))?;
    config.reward_service.trace.check().map_err(|error| bad(error.to_string()))?;
    if config.up.actors == 0 || config.synth.tasks == 0 || config.synth.held_out == 0 {
        return Err(bad("up.actors, synth.tasks and synth.held_out must be at least 1".into()));
    }
    if config.rollout.max_context_tokens > config.engine.max_context {
        let (wants, has) = (config.rollout.max_context_tokens, config.engine.max_context);
        return Err(bad(format!("rollout.max_context_tokens is {wants}, but engine.max_context holds {has} tokens: raise the second")));
    }
    let world = parts::world(config)?;
    let vocabulary = |folder: &Path, shipped: Shipped| -> Result<Option<usize>> {
        if folder.as_os_str().is_empty() {
            // Its digests were taken when it was compiled in.
            shipped.check()?;
            return Ok(None);
        }
        Ok(Some(parts::check_model(folder)?.text.vocab_size))
    };
    let policy = vocabulary(&config.policy, Shipped::Policy)?;
    let teacher = if config.up.distill { vocabulary(&config.teacher, Shipped::Teacher)? } else { None };
    if let (Some(policy), Some(teacher)) = (policy, teacher)
        && policy != teacher
    {
        return Err(bad(format!("the teacher has {teacher} tokens and the policy {policy}: a teacher must be of the policy's family")));
    }
    Ok(world)
}

fn wishes(config: &Config) -> [u16; 3] {
    [config.up.ports.learner, config.up.ports.reward, config.up.ports.teacher]
}

fn dry_run(config: &Config, folder: &RunFolder, world: &World, resume: bool, json: bool) -> Result<()> {
    let named = |path: &Path| if path.as_os_str().is_empty() { "shipped".to_owned() } else { path.display().to_string() };
    let intent = Intent {
        run_dir: folder.root().to_owned(),
        resume,
        policy: named(&config.policy),
        teacher: config.up.distill.then(|| named(&config.teacher)),
        world: format!("{} ({} entities)", world.name(), world.entities().len()),
        train_tasks: config.synth.tasks,
        held_out_tasks: config.synth.held_out,
        steps: config.learner.steps,
        groups_per_step: config.learner.groups_per_step,
        group_size: config.learner.group_size,
        actors: config.up.actors,
        trace: config.reward_service.trace.enabled,
        seed: config.seed,
        cores: cores(),
    };
    if json {
        output::json(&intent);
        return Ok(());
    }
    let rollouts = intent.steps as usize * intent.groups_per_step * intent.group_size as usize;
    output::say(&format!("run folder  {}{}", intent.run_dir.display(), if resume { " (resumed)" } else { "" }));
    output::say(&format!("world       {}", intent.world));
    output::say(&format!("policy      {}", intent.policy));
    output::say(&format!("teacher     {}", intent.teacher.as_deref().unwrap_or("none")));
    output::say(&format!("tasks       {} to train on, {} held out", intent.train_tasks, intent.held_out_tasks));
    let shape = format!("{} groups of {}", intent.groups_per_step, intent.group_size);
    output::say(&format!("training    {} steps of {shape}: {rollouts} rollouts", intent.steps));
    let trace = if intent.trace { "on" } else { "off" };
    output::say(&format!("rooms       reward (TRACE {trace}), {}learner, {} actors on {} cores", if intent.teacher.is_some() { "teacher, " } else { "" }, intent.actors, intent.cores));
    output::say(&format!("nothing was started; every setting:\n\n{}", config::to_toml(config)?.trim_end()));
    Ok(())
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The job while it is under way.
struct Job {
    config: Config,
    folder: RunFolder,
    world: Arc<World>,
    voice: Voice,
    progress: Progress,
    began: Instant,
    /// Nobody else writes into the folder meanwhile.
    _held: Held,
}

impl Job {
    fn begin(config: Config, folder: RunFolder, world: Arc<World>, voice: Voice, held: Held) -> Result<Self> {
        config::dump(&config, &folder.config())?;
        let mut progress: Progress = if folder.progress().exists() { read_json(&folder.progress())? } else { Progress::default() };
        progress.sittings += 1;
        write_json(&folder.progress(), &progress)?;
        voice.say(&format!("run folder {}", folder.root().display()));
        Ok(Self { config, folder, world, voice, progress, began: Instant::now(), _held: held })
    }

    /// Every phase; each one that is done is not done again by a resumed run.
    async fn all(&mut self, shutdown: &Shutdown) -> Result<Outcome> {
        let stopped = || anyhow!("stopped before training began");
        let (policy, teacher) = self.models()?;
        let held_out = shutdown.race(self.tasks()).await.ok_or_else(stopped)??;
        let before = shutdown.race(self.before(&policy, &held_out)).await.ok_or_else(stopped)??;
        self.train(policy, teacher, shutdown).await?;
        let stopped = || anyhow!("stopped while the trained policy was measured");
        let trained = self.folder.policy();
        let after = shutdown.race(held_out::measure(&self.config, &self.world, &trained, &held_out, "after")).await.ok_or_else(stopped)??;
        self.finish(before, after)
    }

    /// Policy and teacher as folders.
    fn models(&self) -> Result<(PathBuf, Option<PathBuf>)> {
        let place = |configured: &Path, shipped: Shipped| -> Result<PathBuf> {
            if !configured.as_os_str().is_empty() {
                return absolute(configured);
            }
            let folder = self.folder.models().join(shipped.label());
            shipped.unpack(&folder)?;
            Ok(folder)
        };
        let teacher = self.config.up.distill.then(|| place(&self.config.teacher, Shipped::Teacher)).transpose()?;
        Ok((place(&self.config.policy, Shipped::Policy)?, teacher))
    }

    /// Both task sets on disk; the held-out one in memory.
    async fn tasks(&self) -> Result<TaskSet> {
        for (split, folder) in [(Split::Train, self.folder.train()), (Split::HeldOut, self.folder.held_out())] {
            // The tasks' file is written last, so a set that has it is whole.
            if !folder.join(hypereyes_synth::dataset::TASKS).exists() {
                synth::make_here(&self.config, split).await?.write(&folder)?;
            }
        }
        held_out::load(&self.folder.held_out())
    }

    /// The start policy on the held-out tasks, with every core: the rooms are not started yet.
    async fn before(&self, policy: &Path, set: &TaskSet) -> Result<Before> {
        let path = self.folder.before();
        if path.exists() && self.folder.held_out_before().exists() {
            return read_json(&path);
        }
        let measured = held_out::measure(&self.config, &self.world, policy, set, "before").await?;
        report::write_played(&self.folder.held_out_before(), &measured.played)?;
        let before = Before { report: measured.report, closed_book_accuracy: measured.closed_book_accuracy };
        write_json(&path, &before)?;
        let report = &before.report;
        let (accuracy, closed_book) = (report.accuracy * 100.0, before.closed_book_accuracy * 100.0);
        self.voice.say(&format!("start policy: {accuracy:.1} % right in {:.2} rounds; {closed_book:.1} % without tools", report.rounds));
        Ok(before)
    }

    /// Starts the rooms, follows them to the end and stops them, whatever happens.
    async fn train(&mut self, policy: PathBuf, teacher: Option<PathBuf>, shutdown: &Shutdown) -> Result<()> {
        if self.is_trained() {
            return Ok(());
        }
        let [learner, reward, teacher_at] = ports::resolve(&wishes(&self.config)).await?[..] else { bail!("three ports were asked for") };
        let addresses = Addresses { learner, reward, teacher: teacher.as_ref().map(|_| teacher_at) };
        write_json(&self.folder.addresses(), &addresses)?;
        let program = std::env::current_exe().context("cannot find this program, to start it again")?;
        let rooms = Rooms { config: self.config.clone(), folder: self.folder.clone(), addresses, policy, teacher, program };
        let (mut supervisor, mut events) = Supervisor::new(self.config.up.restarts.clone());
        let bar = Bar::new("train", "steps");
        let trained = async {
            self.start(&rooms, &mut supervisor, &mut events, shutdown).await?;
            self.follow(&mut events, &bar, shutdown).await
        };
        let trained = trained.await;
        bar.done();
        if trained.is_err() {
            self.voice.say("stopping the rooms: actors, reward, teacher, learner");
        }
        for names in rooms.stop_order() {
            supervisor.stop(&names).await;
        }
        while let Ok(event) = events.try_recv() {
            if let Event::Stopped { name, killed: true } = event {
                self.voice.say(&format!("{name} did not stop in time and was killed; see {}", self.folder.log(&name).display()));
            }
        }
        let _ = std::fs::remove_file(self.folder.addresses()); // Status then knows that nobody listens; a stale file only confuses it.
        trained?;
        if !self.is_trained() {
            bail!("the learner ended at step {} of {}; its log is {}", self.last_step(), self.config.learner.steps, self.folder.log(LEARNER).display());
        }
        Ok(())
    }

    /// Whether a policy of the last step is there.
    fn is_trained(&self) -> bool {
        let enough = self.last_step() >= self.config.learner.steps || (self.config.learner.time_limit_s > 0 && self.timed_out());
        enough && self.folder.policy().join("model.safetensors").exists()
    }

    fn steps(&self) -> Vec<follow::Step> {
        follow::read_all(&self.folder.metrics()).unwrap_or_default()
    }

    fn last_step(&self) -> u64 {
        self.steps().last().map_or(0, |step| step.step)
    }

    fn timed_out(&self) -> bool {
        // A step that began in time may end the run a little early or late.
        let limit = self.config.learner.time_limit_s as f64;
        self.steps().last().and_then(|step| step.seconds).is_some_and(|seconds| seconds >= limit * 0.9)
    }

    /// Starts services and learner, waits until they are up, starts the actors.
    async fn start(
        &mut self,
        rooms: &Rooms,
        supervisor: &mut Supervisor,
        events: &mut mpsc::UnboundedReceiver<Event>,
        shutdown: &Shutdown,
    ) -> Result<()> {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(self.config.up.start_timeout_s);
        for name in rooms.names() {
            supervisor.start(rooms.plan(&name))?;
        }
        for name in rooms.names() {
            let path = self.folder.announcement(&name);
            let up = ready::await_announcement(&path, deadline);
            tokio::pin!(up);
            loop {
                tokio::select! {
                    announced = &mut up => {
                        announced.with_context(|| format!("{name} did not come up; its log is {}", self.folder.log(&name).display()))?;
                        break;
                    }
                    event = events.recv() => self.heard(event.context("the supervisor is gone")?, None)?,
                    () = shutdown.cancelled() => bail!("stopped while the rooms were starting"),
                };
            }
        }
        Ok(())
    }

    /// Shows steps until the learner is done.
    async fn follow(&mut self, events: &mut mpsc::UnboundedReceiver<Event>, bar: &Bar, shutdown: &Shutdown) -> Result<()> {
        let mut follower = Follower::new(self.folder.metrics());
        let mut tick = tokio::time::interval(LOOK_EVERY);
        let stall = Duration::from_secs(self.config.up.stall_timeout_s);
        let steps = self.config.learner.steps;
        let mut last = Instant::now();
        loop {
            tokio::select! {
                event = events.recv() => {
                    let event = event.context("the supervisor is gone")?;
                    let done = matches!(&event, Event::Done { name } if name == LEARNER);
                    self.heard(event, Some(bar))?;
                    if done {
                        return Ok(());
                    }
                }
                _ = tick.tick() => {
                    for step in follower.look().context("cannot read the metrics of the learner")? {
                        bar.at(usize::try_from(step.step).unwrap_or(usize::MAX), usize::try_from(steps).unwrap_or(usize::MAX), &step.line());
                        last = Instant::now();
                    }
                    if last.elapsed() > stall {
                        bail!("no optimiser step for {} s; the logs are in {}", stall.as_secs(), self.folder.logs().display());
                    }
                }
                () = shutdown.cancelled() => bail!("stopped at step {} of {steps}", self.last_step()),
            }
        }
    }

    /// Counts and says what happened to a room; an error when the run cannot go on.
    fn heard(&mut self, event: Event, bar: Option<&Bar>) -> Result<()> {
        let say = |text: &str| match bar {
            Some(bar) => bar.note(text),
            None => output::note(text),
        };
        match event {
            Event::Died { name, how, pause } => {
                *self.progress.restarts.entry(name.clone()).or_default() += 1;
                say(&format!("{name} died ({how}); starting it again in {:.1} s", pause.as_secs_f64()));
            }
            Event::Started { name, pid, restart } if restart > 0 => say(&format!("{name} is back (process {pid}, restart {restart})")),
            Event::GaveUp { name, reason, bad_input } => {
                let text = format!("{name} cannot run: {reason}; its log is {}", self.folder.log(&name).display());
                return Err(if bad_input { BadInput::new(text).into() } else { anyhow!(text) });
            }
            Event::Started { .. } | Event::Done { .. } | Event::Stopped { .. } => {}
        }
        Ok(())
    }

    /// Result, report, table.
    fn finish(&mut self, before: Before, after: Measured) -> Result<Outcome> {
        report::write_played(&self.folder.held_out_after(), &after.played)?;
        let last = self.steps().pop().unwrap_or_default();
        let ledger = ledger::summarise(&self.folder.ledger())?;
        let summary = Summary {
            before: Numbers::from(&before.report),
            after: Numbers::from(&after.report),
            closed_book_accuracy: before.closed_book_accuracy,
            steps: last.step,
            groups_trained: last.groups_trained.unwrap_or(ledger.trained),
            groups_dropped: last.groups_dropped.unwrap_or(0),
            wall_seconds: self.wall_seconds(),
            seed: self.config.seed,
        };
        let details = Details {
            before: before.report,
            after: after.report,
            closed_book_after: after.closed_book_accuracy,
            restarts: self.progress.restarts.clone(),
            ledger,
            sittings: self.progress.sittings,
            policy: self.folder.policy(),
            cores: cores(),
        };
        let outcome = Outcome { summary, details };
        write_json(&self.folder.result(), &outcome)?;
        // The result stands even when the report cannot be made.
        if let Err(error) = report::write(&self.folder) {
            self.voice.say(&format!("the report could not be made: {error:#}; try again with `hypereyes report {}`", self.folder.root().display()));
        }
        self.tell(&outcome);
        Ok(outcome)
    }

    fn tell(&self, outcome: &Outcome) {
        let (summary, details) = (&outcome.summary, &outcome.details);
        self.voice.say(Report::table(&[("before", &details.before), ("after", &details.after)]).trim_end());
        let (before, after) = (&summary.before, &summary.after);
        let share = |was: f64, is: f64| if was.abs() > 1e-12 { (is - was) / was * 100.0 } else { 0.0 };
        self.voice.say(&format!(
            "accuracy {:+.1} points, rounds {:+.0} %, CAS {:+.2}; brackets are 95 % intervals; without tools {:.1} % before, {:.1} % after",
            (after.accuracy - before.accuracy) * 100.0,
            share(before.rounds, after.rounds),
            after.cas - before.cas,
            summary.closed_book_accuracy * 100.0,
            details.closed_book_after * 100.0
        ));
        let restarts: u32 = details.restarts.values().sum();
        self.voice.say(&format!(
            "{} steps, {} groups trained, {} dropped, {restarts} restarts, {}, seed {}",
            summary.steps,
            summary.groups_trained,
            summary.groups_dropped,
            duration(summary.wall_seconds),
            summary.seed
        ));
        self.voice.say(&format!("report  {}", self.folder.report().display()));
        self.voice.say(&format!("policy  {}", self.folder.policy().display()));
    }

    fn wall_seconds(&self) -> f64 {
        self.progress.wall_seconds + self.began.elapsed().as_secs_f64()
    }

    /// Leaves what a resumed run counts on from.
    fn end_sitting(&mut self) -> Result<()> {
        self.progress.wall_seconds = self.wall_seconds();
        self.began = Instant::now();
        write_json(&self.folder.progress(), &self.progress)
    }

    fn can_resume(&self) -> bool {
        self.folder.state() == State::Unfinished
    }

    fn resume_command(&self) -> String {
        format!("hypereyes up --resume --set run_dir={}", self.config.run_dir.display())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::Parser;

    use super::*;
    use crate::cli::Command;

    fn parsed(arguments: &[&str]) -> (Cli, bool) {
        let cli = Cli::parse_from([&["hypereyes", "up"], arguments].concat());
        let Command::Up(args) = &cli.command else { panic!("it is up") };
        let resume = args.resume;
        (cli, resume)
    }

    fn resolved(arguments: &[&str]) -> Result<(Config, RunFolder)> {
        let (cli, resume) = parsed(arguments);
        resolve(&cli, &UpArgs { resume, dry_run: false })
    }

    #[test]
    fn a_resumed_run_keeps_its_settings_and_takes_new_ones_on_top() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let folder = RunFolder::new(root.path().join("run"));
        folder.hold().expect("made");
        let mut config = Config { seed: 9, run_dir: folder.root().to_owned(), ..Config::default() };
        config.learner.steps = 40;
        config::dump(&config, &folder.config()).expect("written");
        let run_dir = format!("run_dir={}", folder.root().display());
        let (config, found) = resolved(&["--resume", "--set", &run_dir, "--set", "learner.steps=60"]).expect("resumable");
        assert_eq!((config.seed, config.learner.steps, found.root()), (9, 60, folder.root()));
        let error = resolved(&["--set", &run_dir]).expect_err("unfinished");
        assert!(error.is::<BadInput>() && error.to_string().contains("--resume"), "{error}");
        std::fs::write(folder.result(), "{}").expect("written");
        assert!(resolved(&["--resume", "--set", &run_dir]).expect_err("finished").to_string().contains("finished"));
    }

    #[test]
    fn what_is_wrong_is_bad_input_before_anything_is_written() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let cases: [fn(&mut Config, &Path); 5] = [
            |config, root| config.world = root.join("no-world"),
            |config, root| config.policy = root.join("no-policy"),
            |config, _| config.up.actors = 0,
            |config, _| config.synth.pictures = [9, 9],
            |config, _| config.rollout.max_context_tokens = 1 << 20,
        ];
        for (number, spoil) in cases.iter().enumerate() {
            let mut config = Config::default();
            spoil(&mut config, root.path());
            let Err(error) = check(&config) else { panic!("case {number} is spoiled") };
            assert_eq!(hypereyes_chassis::exit::code_of(error.as_ref()), hypereyes_chassis::exit::BAD_INPUT, "case {number}: {error:#}");
        }
        assert_eq!(std::fs::read_dir(root.path()).expect("there").count(), 0);
    }

    #[test]
    fn deaths_are_counted_and_a_room_that_is_given_up_ends_the_run() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let folder = RunFolder::new(root.path());
        let held = folder.hold().expect("made");
        let world = Arc::new(World::embedded().expect("the embedded pack is sound"));
        let mut job = Job::begin(Config::default(), folder, world, Voice { json: true }, held).expect("begins");
        for _ in 0..2 {
            let died = Event::Died { name: "reward".into(), how: "signal 9 killed it".into(), pause: Duration::ZERO };
            job.heard(died, None).expect("goes on");
        }
        assert_eq!(job.progress.restarts, BTreeMap::from([("reward".into(), 2)]));
        for bad_input in [false, true] {
            let event = Event::GaveUp { name: "learner".into(), reason: "it ended with exit code 2".into(), bad_input };
            let error = job.heard(event, None).expect_err("cannot go on");
            assert_eq!(error.is::<BadInput>(), bad_input);
            assert!(error.to_string().contains("learner.log"), "{error}");
        }
        job.end_sitting().expect("written");
        let kept: Progress = read_json(&job.folder.progress()).expect("written");
        assert_eq!((kept.sittings, kept.restarts["reward"]), (1, 2));
    }
}
