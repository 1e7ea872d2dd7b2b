//! The job of `hypereyes up` while it is under way: phase after phase, services started, followed and stopped.
//!
//! In: checked settings, a held run folder. Out: everything in the folder, and the outcome. Every phase that is done leaves
//! its files, so that a resumed job goes on behind it.

use hypereyes_miniature::shipped::Shipped;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use hypereyes_chassis::supervise::{Event, Supervisor};
use hypereyes_chassis::{BadInput, Shutdown, config, ready};
use hypereyes_eval::{Evaluation, Report, TaskSet};
use hypereyes_policy::checkpoint;
use hypereyes_report::{
    outcome::{Before, Best, Details, Numbers, Outcome, Summary},
    page::duration,
};
use hypereyes_run::{
    Addresses, Follower, Held, Progress, RunFolder, SavedPolicy, State, Step, audit, follow, read_json, stalled, step, write_json,
    write_played,
};
use hypereyes_run::{Change, attempts};
use hypereyes_synth::Split;
use hypereyes_world::World;
use tokio::sync::mpsc;

use crate::commands::synth;
use crate::config::Config;
use crate::curve::{self, End};
use crate::held_out::{self, Measured};
use crate::output::Console;
use crate::progress::Bar;
use crate::services::{EVALUATOR, LEARNER, Services, absolute, ask_learner};
use crate::shared_search::{self, SEARCH, SharedSearch};
use crate::troubles::Troubles;
use crate::{output, parts, ports, task_sets};

/// How often the metrics file is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// The ports that the settings ask for.
pub fn ports_asked(config: &Config) -> [u16; 3] {
    [config.up.ports.learner, config.up.ports.reward, config.up.ports.teacher]
}

/// Processor cores that this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The job while it is under way.
pub struct Job {
    config: Config,
    folder: RunFolder,
    world: Arc<World>,
    console: Console,
    progress: Progress,
    /// Files for people that could not be written or read, and were said to be so.
    troubles: Troubles,
    /// Restarts of the search server that are not in `progress` yet.
    search_restarts: Arc<AtomicU32>,
    began: Instant,
    /// The evaluator measures no more.
    evaluator_ended: bool,
    /// Nobody else writes into the folder meanwhile.
    _held: Held,
}

impl Job {
    /// Takes up the job, or takes it up again.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn begin(config: Config, folder: RunFolder, world: Arc<World>, console: Console, held: Held, changes: &[Change]) -> Result<Self> {
        let mut troubles = Troubles::default();
        let known = if folder.progress().exists() { read_json(&folder.progress()) } else { Ok(Progress::default()) };
        let mut progress = troubles.pass("progress", known, output::note).unwrap_or_default();
        let step = follow::read_all(&folder.metrics()).unwrap_or_default().last().map_or(0, |step| step.step);
        let before = attempts::read(&folder).last().map_or(progress.attempts, |last| last.attempt.max(progress.attempts));
        troubles.pass("attempts", crate::attempts::keep(&folder, &config, before + 1, step, changes), output::note);
        config::dump(&config, &folder.config())?;
        progress.attempts += 1;
        troubles.pass("progress", write_json(&folder.progress(), &progress), output::note);
        console.say(&format!("run folder {}", folder.root().display()));
        for change in changes {
            console.say(&format!("from step {step} on: {change}"));
        }
        Ok(Self {
            config,
            folder,
            world,
            console,
            progress,
            troubles,
            search_restarts: Arc::default(),
            began: Instant::now(),
            evaluator_ended: false,
            _held: held,
        })
    }

    /// Everything, with one search server for all of it where the settings want one. It is stopped last, whatever happens.
    ///
    /// # Errors
    /// What went wrong, or where it was when it was told to stop.
    pub async fn all(&mut self, shutdown: &Shutdown) -> Result<Outcome> {
        let mut search = SharedSearch::start(&self.config, &self.folder, shutdown).await?;
        if let Some(search) = &search {
            self.config.search = search.settings.clone();
            self.search_restarts = search.restarts.clone();
        }
        let stop = shutdown.child();
        let done = {
            let phases = self.phases(&stop);
            tokio::pin!(phases);
            tokio::select! {
                done = &mut phases => done,
                // Nothing goes on without it; what ends first says why.
                why = shared_search::ended(search.as_mut()) => {
                    stop.trigger();
                    phases.await.map_or_else(|_| Err(why), Ok)
                }
            }
        };
        if let Some(mut search) = search {
            search.stop().await;
            self.note_search_restarts();
        }
        done
    }

    /// Every phase; each one that is done is not done again by a resumed run. The services are stopped whatever happens.
    async fn phases(&mut self, shutdown: &Shutdown) -> Result<Outcome> {
        let stopped = || anyhow!("stopped before training began");
        let (policy, teacher) = self.models()?;
        let held_out = shutdown.race(self.tasks()).await.ok_or_else(stopped)??;
        let before = shutdown.race(self.before(&policy, &held_out)).await.ok_or_else(stopped)??;
        self.note_on_curve(
            &policy,
            &held_out,
            &End { step: 0, policy: &policy, report: &before.report, played: &self.folder.held_out_before() },
        );
        self.train(policy.clone(), teacher, shutdown).await?;
        let stopped = || anyhow!("stopped while the trained policy was measured");
        let (learner, trained) = (self.folder.learner(), self.folder.policy());
        let saved = SavedPolicy::read(&learner).with_context(|| format!("{} is not what the learner saved", trained.display()))?;
        saved.check(&learner, &checkpoint::digest(&trained)?).map_err(anyhow::Error::msg)?;
        let after =
            shutdown.race(held_out::measure(&self.config, &self.world, &trained, &held_out, "after")).await.ok_or_else(stopped)??;
        write_played(&self.folder.held_out_after(), &after.played)?;
        let played = self.folder.held_out_after();
        self.note_on_curve(&policy, &held_out, &End { step: saved.step, policy: &trained, report: &after.report, played: &played });
        self.finish(before, after)
    }

    /// Puts a measurement beside those of the evaluator, if there is one. Like every file for people, it ends nothing.
    fn note_on_curve(&mut self, start: &Path, set: &TaskSet, end: &End<'_>) {
        if self.config.eval.every > 0 {
            let noted = curve::note(&self.config.eval, &self.folder, start, set, end).context("cannot note an evaluation");
            self.troubles.pass("evaluations", noted, output::note);
        }
    }

    /// Policy and teacher as folders.
    fn models(&self) -> Result<(PathBuf, Option<PathBuf>)> {
        let place = |configured: &Path, shipped: Shipped| -> Result<PathBuf> {
            if !configured.as_os_str().is_empty() {
                return absolute(configured);
            }
            let folder = self.folder.models().join(shipped.label());
            parts::unpack(shipped, &folder)?;
            Ok(folder)
        };
        let teacher = self.config.up.distill.then(|| place(&self.config.teacher, Shipped::Teacher)).transpose()?;
        Ok((place(&self.config.policy, Shipped::Policy)?, teacher))
    }

    /// Both task sets on disk; the held-out one in memory.
    async fn tasks(&self) -> Result<TaskSet> {
        let named = &self.config.up;
        let sets = [(Split::Train, &named.tasks, self.folder.train()), (Split::HeldOut, &named.held_out, self.folder.held_out())];
        for (split, named, folder) in sets {
            // The tasks' file is written last, so a set that has it is whole.
            if folder.join(hypereyes_dataset::TASKS).exists() {
                continue;
            }
            if named.as_os_str().is_empty() {
                synth::make(&self.config, split).await?.write(&folder)?;
            } else {
                task_sets::link(named, &folder)?;
            }
        }
        held_out::load(&self.folder.held_out())
    }

    /// The start policy on the held-out tasks, with every core: the services are not started yet.
    async fn before(&self, policy: &Path, set: &TaskSet) -> Result<Before> {
        let path = self.folder.before();
        if path.exists() && self.folder.held_out_before().exists() {
            return read_json(&path);
        }
        let measured = held_out::measure(&self.config, &self.world, policy, set, "before").await?;
        write_played(&self.folder.held_out_before(), &measured.played)?;
        let before = Before { report: measured.report, closed_book_accuracy: measured.closed_book_accuracy };
        write_json(&path, &before)?;
        let report = &before.report;
        let (accuracy, closed_book) = (report.accuracy * 100.0, before.closed_book_accuracy * 100.0);
        self.console.say(&format!("start policy: {accuracy:.1} % right in {:.2} rounds; {closed_book:.1} % without tools", report.rounds));
        Ok(before)
    }

    /// Starts the services, follows them to the end and stops them, whatever happens.
    async fn train(&mut self, policy: PathBuf, teacher: Option<PathBuf>, shutdown: &Shutdown) -> Result<()> {
        if self.is_trained() {
            return Ok(());
        }
        let [learner, reward, teacher_at] = ports::resolve(&ports_asked(&self.config)).await?[..] else {
            bail!("three ports were asked for")
        };
        let addresses = Addresses { learner, reward, teacher: teacher.as_ref().map(|_| teacher_at) };
        write_json(&self.folder.addresses(), &addresses)?;
        let program = std::env::current_exe().context("cannot find this program, to start it again")?;
        let services = Services { config: self.config.clone(), folder: self.folder.clone(), addresses, policy, teacher, program };
        let (mut supervisor, mut events) = Supervisor::new(self.config.up.restarts.clone());
        let bar = Bar::new("train", "steps");
        let trained = async {
            self.start(&services, &mut supervisor, &mut events, shutdown).await?;
            self.follow(learner, &mut events, &bar, shutdown).await?;
            self.await_evaluator(&services, &mut events, &bar, shutdown).await
        };
        let trained = trained.await;
        bar.done();
        if trained.is_err() {
            self.console.say("stopping the services: actors, reward, teacher, learner");
        }
        for names in services.stop_order() {
            supervisor.stop(&names).await;
        }
        while let Ok(event) = events.try_recv() {
            if let Event::Stopped { name, killed: true } = event {
                self.console.say(&format!("{name} did not stop in time and was killed; see {}", self.folder.log(&name).display()));
            }
        }
        let _ = std::fs::remove_file(self.folder.addresses()); // Status then knows that nobody listens; a stale file only confuses it.
        trained?;
        if !self.is_trained() {
            bail!(
                "the learner ended at step {} of {}; its log is {}",
                self.last_step(),
                self.config.learner.steps,
                self.folder.log(LEARNER).display()
            );
        }
        Ok(())
    }

    /// Whether a policy of the last step is there.
    fn is_trained(&self) -> bool {
        let enough = self.last_step() >= self.config.learner.steps || (self.config.learner.time_limit_s > 0 && self.timed_out());
        // A policy of an earlier checkpoint is not the trained one.
        enough && SavedPolicy::read(&self.folder.learner()).is_some_and(|saved| saved.step >= self.last_step())
    }

    fn steps(&self) -> Vec<Step> {
        follow::read_all(&self.folder.metrics()).unwrap_or_default()
    }

    /// The last step, as the metrics say or, where lines of them are missing, the checkpoint.
    fn last_step(&self) -> u64 {
        let told = self.steps().last().map_or(0, |step| step.step);
        told.max(self.folder.checkpoint_step().unwrap_or(0))
    }

    fn timed_out(&self) -> bool {
        // A step that began in time may end the run a little early or late.
        let limit = self.config.learner.time_limit_s as f64;
        self.steps().last().and_then(|step| step.seconds).is_some_and(|seconds| seconds >= limit * 0.9)
    }

    /// Starts services and learner, waits until they are up, starts the actors.
    async fn start(
        &mut self,
        services: &Services,
        supervisor: &mut Supervisor,
        events: &mut mpsc::UnboundedReceiver<Event>,
        shutdown: &Shutdown,
    ) -> Result<()> {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(self.config.up.start_timeout_s);
        for name in services.names() {
            supervisor.start(services.plan(&name))?;
        }
        for name in services.names().into_iter().filter(|name| !services.followers().contains(name) && name != EVALUATOR) {
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
                    () = shutdown.cancelled() => bail!("stopped while the services were starting"),
                };
            }
        }
        Ok(())
    }

    /// Shows steps until the learner is done.
    async fn follow(
        &mut self,
        address: SocketAddr,
        events: &mut mpsc::UnboundedReceiver<Event>,
        bar: &Bar,
        shutdown: &Shutdown,
    ) -> Result<()> {
        let mut follower = Follower::new(self.folder.metrics());
        let mut tick = tokio::time::interval(LOOK_EVERY);
        let stall = Duration::from_secs(self.config.up.stall_timeout_s);
        let steps = self.config.learner.steps;
        let (mut last, mut furthest) = (Instant::now(), 0);
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
                    // These files are for people: one that cannot be read or written for a while ends nothing.
                    let look = follower.look().context("cannot read the metrics of the learner");
                    let new = self.troubles.pass("metrics", look, |text| bar.note(text)).unwrap_or_default();
                    if let Some(step) = new.last() {
                        bar.at(usize::try_from(step.step).unwrap_or(usize::MAX), usize::try_from(steps).unwrap_or(usize::MAX), &step.line());
                        (last, furthest) = (Instant::now(), furthest.max(step.step));
                    }
                    // Now and not only at the end: a killed run shall not forget its time and its restarts.
                    if !new.is_empty() || self.troubles.has("progress") {
                        self.note_progress(|text| bar.note(text));
                    }
                    if last.elapsed() > stall {
                        // What the file does not say, the learner does.
                        match ask_learner(address).await {
                            Ok(learner) if learner.step > furthest => (last, furthest) = (Instant::now(), learner.step),
                            _ => {
                                let why = match stalled::why(&self.folder.ledger()) {
                                    why if why.is_empty() => String::new(),
                                    why => format!(": {why}"),
                                };
                                bail!(
                                    "no optimiser step for {} s (up.stall_timeout_s){why}; the logs are in {}",
                                    stall.as_secs(),
                                    self.folder.logs().display()
                                );
                            }
                        }
                    }
                }
                () = shutdown.cancelled() => bail!("stopped at step {} of {steps}", self.last_step()),
            }
        }
    }

    /// Lets an evaluator that is at a last version come to its end. One that is only starting has none.
    async fn await_evaluator(
        &mut self,
        services: &Services,
        events: &mut mpsc::UnboundedReceiver<Event>,
        bar: &Bar,
        shutdown: &Shutdown,
    ) -> Result<()> {
        let is_up = services.evaluator().is_some() && self.folder.announcement(EVALUATOR).exists();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(self.config.up.stall_timeout_s);
        while is_up && !self.evaluator_ended {
            tokio::select! {
                event = events.recv() => {
                    let event = event.context("the supervisor is gone")?;
                    // There is nobody left to get a version from.
                    self.evaluator_ended |= matches!(&event, Event::Died { name, .. } if name == EVALUATOR);
                    self.heard(event, Some(bar))?;
                }
                () = tokio::time::sleep_until(deadline) => {
                    let log = self.folder.log(EVALUATOR);
                    bar.note(&format!("the evaluator is not done yet and is stopped (up.stall_timeout_s); its log is {}", log.display()));
                    return Ok(());
                }
                () = shutdown.cancelled() => bail!("stopped while the evaluator measured a last version"),
            }
        }
        Ok(())
    }

    /// Counts and says what happened to a service; an error when the run cannot go on.
    fn heard(&mut self, event: Event, bar: Option<&Bar>) -> Result<()> {
        let say = |text: &str| match bar {
            Some(bar) => bar.note(text),
            None => output::note(text),
        };
        match event {
            Event::Died { name, how, pause } => {
                metrics::counter!(crate::metrics::RESTARTS, "service" => name.clone()).increment(1);
                *self.progress.restarts.entry(name.clone()).or_default() += 1;
                say(&format!("{name} died ({how}); starting it again in {:.1} s", pause.as_secs_f64()));
            }
            Event::Started { name, pid, restart } if restart > 0 => say(&format!("{name} is back (process {pid}, restart {restart})")),
            // Training goes on without it.
            Event::GaveUp { name, reason, .. } if name == EVALUATOR => {
                self.evaluator_ended = true;
                let log = self.folder.log(&name);
                say(&format!("{name} cannot run: {reason}; the run goes on and is not measured any more; its log is {}", log.display()));
            }
            Event::Done { name } if name == EVALUATOR => self.evaluator_ended = true,
            Event::GaveUp { name, reason, bad_input } => {
                let text = format!("{name} cannot run: {reason}; its log is {}", self.folder.log(&name).display());
                return Err(if bad_input { BadInput::new(text).into() } else { anyhow!(text) });
            }
            Event::Started { .. } | Event::Done { .. } | Event::Stopped { .. } => {}
        }
        Ok(())
    }

    fn note_search_restarts(&mut self) {
        let restarts = self.search_restarts.swap(0, Ordering::Relaxed);
        if restarts > 0 {
            *self.progress.restarts.entry(SEARCH.into()).or_default() += restarts;
        }
    }

    /// Result, report, table.
    fn finish(&mut self, before: Before, after: Measured) -> Result<Outcome> {
        self.note_search_restarts();
        let steps = self.steps();
        let (learner_idle_share, groups_per_second) = pace(&steps);
        let learned_nothing = step::learned_nothing(&steps);
        let last = steps.into_iter().next_back().unwrap_or_default();
        let best = self.best();
        let ledger = audit::audit(&self.folder.ledger()).context("cannot read the ledger")?.summary;
        let summary = Summary {
            before: Numbers::from(&before.report),
            after: Numbers::from(&after.report),
            closed_book_accuracy: before.closed_book_accuracy,
            steps: last.step,
            groups_trained: last.groups_trained.unwrap_or(ledger.trained),
            groups_dropped: last.groups_dropped.unwrap_or(0),
            wall_seconds: self.wall_seconds(),
            seed: self.config.seed,
            learned_nothing,
            best: best.as_ref().map(|best| Best::new(best, self.folder.best())),
        };
        let details = Details {
            before: before.report,
            after: after.report,
            closed_book_after: after.closed_book_accuracy,
            restarts: self.progress.restarts.clone(),
            ledger,
            learner_idle_share,
            groups_per_second,
            attempts: self.progress.attempts,
            policy: self.folder.policy(),
            cores: cores(),
            told: attempts::told(&attempts::read(&self.folder)),
        };
        let outcome = Outcome { summary, details };
        write_json(&self.folder.result(), &outcome)?;
        // The result stands even when the report cannot be made.
        if let Err(error) = hypereyes_report::write(&self.folder) {
            self.console.say(&format!(
                "the report could not be made: {error:#}; try again with `hypereyes report {}`",
                self.folder.root().display()
            ));
        }
        self.tell(&outcome, best.as_ref());
        Ok(outcome)
    }

    /// The best version of a run that was measured while it was trained.
    fn best(&self) -> Option<Evaluation> {
        (self.config.eval.every > 0).then(|| read_json(&self.folder.best_json()).ok()).flatten()
    }

    fn tell(&self, outcome: &Outcome, best: Option<&Evaluation>) {
        let (summary, details) = (&outcome.summary, &outcome.details);
        let name = best.map(|best| format!("best, step {}", best.step)).unwrap_or_default();
        let rows = [Some(("before", &details.before)), Some(("after", &details.after)), best.map(|best| (name.as_str(), &best.report))];
        self.console.say(Report::table(&rows.into_iter().flatten().collect::<Vec<_>>()).trim_end());
        let (before, after) = (&summary.before, &summary.after);
        let share = |was: f64, is: f64| if was.abs() > 1e-12 { (is - was) / was * 100.0 } else { 0.0 };
        self.console.say(&format!(
            "accuracy {:+.1} points, rounds {:+.0} %, CAS {:+.2}; brackets are 95 % intervals; without tools {:.1} % before, {:.1} % after",
            (after.accuracy - before.accuracy) * 100.0,
            share(before.rounds, after.rounds),
            after.cas - before.cas,
            summary.closed_book_accuracy * 100.0,
            details.closed_book_after * 100.0
        ));
        if let (Some(idle), Some(pace)) = (details.learner_idle_share, details.groups_per_second) {
            self.console.say(&format!("the learner waited for groups {:.0} % of its time and took in {pace:.1} groups/s", idle * 100.0));
        }
        if details.ledger.set_aside > 0 {
            let (count, ledger) = (details.ledger.set_aside, self.folder.ledger());
            self.console.say(&format!("tasks set aside because they failed again and again: {count}; why is in {}", ledger.display()));
        }
        let restarts: u32 = details.restarts.values().sum();
        self.console.say(&format!(
            "{} steps, {} groups trained, {} dropped, {restarts} restarts, {}, seed {}",
            summary.steps,
            summary.groups_trained,
            summary.groups_dropped,
            duration(summary.wall_seconds),
            summary.seed
        ));
        details.told.iter().for_each(|told| self.console.say(&format!("other settings {told}")));
        if let Some(nothing) = &summary.learned_nothing {
            self.console.say(nothing);
        }
        self.console.say(&format!("report  {}", self.folder.report().display()));
        self.console.say(&format!("policy  {}", self.folder.policy().display()));
        if let Some(best) = best {
            let (by, folder) = (self.config.eval.best.label(), self.folder.best());
            self.console.say(&format!("best    {}, of step {} by {by} on held-out tasks", folder.display(), best.step));
        }
    }

    fn wall_seconds(&self) -> f64 {
        self.progress.wall_seconds + self.began.elapsed().as_secs_f64()
    }

    /// Leaves what a resumed run counts on from.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn keep_progress(&mut self) -> Result<()> {
        self.progress.wall_seconds = self.wall_seconds();
        self.began = Instant::now();
        write_json(&self.folder.progress(), &self.progress)
    }

    /// The same, where a file that cannot be written is no reason to end anything: it is counted, said once, and tried again.
    pub fn note_progress(&mut self, say: impl FnMut(&str)) {
        let kept = self.keep_progress();
        self.troubles.pass("progress", kept, say);
    }

    /// Whether there is something to go on from.
    pub fn can_resume(&self) -> bool {
        self.folder.state() == State::Unfinished
    }

    /// What to type to go on.
    pub fn resume_command(&self) -> String {
        format!("hypereyes up --resume --set run_dir={}", self.config.run_dir.display())
    }
}

/// Share of the learner's time that it waited for groups, and groups trained per second.
fn pace(steps: &[Step]) -> (Option<f64>, Option<f64>) {
    let sum = |of: &dyn Fn(&Step) -> Option<f64>| steps.iter().filter_map(of).sum::<f64>();
    let (starved, busy) = (sum(&|step| step.starved_seconds), sum(&|step| step.step_seconds));
    let whole = starved + busy;
    let groups = steps.last().and_then(|step| step.groups_trained);
    if whole > 0.0 { (Some(starved / whole), groups.map(|groups| groups as f64 / whole)) } else { (None, None) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_pace_is_of_the_learners_own_time() {
        let step = |starved, busy, groups| Step {
            starved_seconds: Some(starved),
            step_seconds: Some(busy),
            groups_trained: Some(groups),
            ..Step::default()
        };
        assert_eq!(pace(&[step(1.0, 2.0, 8), step(0.5, 4.5, 16)]), (Some(1.5 / 8.0), Some(2.0)));
        assert_eq!(pace(&[]), (None, None));
    }

    #[test]
    fn deaths_are_counted_and_a_service_that_is_given_up_ends_the_run() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let folder = RunFolder::new(root.path());
        let held = folder.hold().expect("made");
        let world = Arc::new(World::embedded().expect("the embedded pack is sound"));
        let mut job = Job::begin(Config::default(), folder, world, Console { json: true }, held, &[]).expect("begins");
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
        let event = Event::GaveUp { name: EVALUATOR.into(), reason: "it ended with exit code 42".into(), bad_input: true };
        job.heard(event, None).expect("training goes on without it");
        assert!(job.evaluator_ended);
        job.keep_progress().expect("written");
        let kept: Progress = read_json(&job.folder.progress()).expect("written");
        assert_eq!((kept.attempts, kept.restarts["reward"]), (1, 2));
    }
}
