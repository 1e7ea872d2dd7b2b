//! Arms with seeds as processes. In: those that have no line yet. Out: their lines, one by one as they come to their end.
//!
//! Each is an `up` on a leash: it ends with this process, however that ends, and goes on from its run folder the next time.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use hypereyes_bench::Machine as Here;
use hypereyes_chassis::backoff::BackoffConfig;
use hypereyes_chassis::supervise::{Event, OnExit, Plan as Process, RestartConfig, Supervisor};
use hypereyes_chassis::{BadInput, Shutdown};
use hypereyes_miniature::shipped::Shipped;
use hypereyes_outside::atomic;
use hypereyes_policy::checkpoint;
use hypereyes_run::{State, follow, read_json};
use hypereyes_study::line::{Machine, Terms};
use hypereyes_study::{Arm, Line, Plan};

use super::{StudyFolder, name, settings};
use crate::again::{GRACE, command};
use crate::progress::Bar;

/// How often the runs are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A run that fails is tried again this often within a minute, from where it was.
const RESTARTS: RestartConfig =
    RestartConfig { per_minute: 2, backoff: BackoffConfig { first_ms: 1000, max_ms: 5000, factor: 2.0, seed: None } };

/// An arm with a seed.
pub type Cell<'a> = (&'a Arm, u64);

/// Checks what can be known of a cell before it runs, and prepares its settings.
///
/// # Errors
/// [`BadInput`] for settings that are wrong, and for a run folder that is another's.
pub fn prepare(plan: &Plan, (arm, seed): Cell<'_>, folder: &StudyFolder) -> Result<()> {
    let (terms, kept) = (Terms::of(plan, arm), folder.terms(&arm.name, seed));
    let run = folder.run(&arm.name, seed);
    match run.state() {
        State::Fresh => {
            settings::write(&settings::of_arm(arm, seed, folder)?, &folder.settings(&arm.name, seed))?;
            atomic::write(&kept, &serde_json::to_vec(&terms).expect("plain data"))?;
            Ok(())
        }
        State::Foreign => Err(BadInput::new(format!("{} holds files that are no run", run.root().display())).into()),
        State::Unfinished | State::Finished => {
            let begun: Terms = read_json(&kept)?;
            match begun.differs(&terms) {
                None => Ok(()),
                Some((key, was, is)) => Err(BadInput::new(format!(
                    "{} was begun with {key} = {was}, and the study now has {is}: take the folder away to run {} anew",
                    run.root().display(),
                    name(arm, seed)
                ))
                .into()),
            }
        }
    }
}

/// What became of the cells.
#[derive(Debug, Default)]
pub struct Done {
    /// Those that could not be run, with the reason.
    pub failed: Vec<String>,
    /// It was told to stop before all of them were done.
    pub stopped: bool,
}

/// Runs cells, so many at a time, in order. `keep` is given the line of each that is done.
///
/// # Errors
/// Those of `keep`; a process that cannot be started.
pub async fn run(
    plan: &Plan,
    cells: &[Cell<'_>],
    folder: &StudyFolder,
    at_once: usize,
    shutdown: &Shutdown,
    mut keep: impl FnMut(Line) -> Result<()>,
) -> Result<Done> {
    let (mut supervisor, mut events) = Supervisor::new(RESTARTS);
    let mut waiting = cells.iter();
    let mut running: BTreeMap<String, Cell<'_>> = BTreeMap::new();
    let (mut done, mut count) = (Done::default(), 0);
    let bar = Bar::new("study", "runs");
    let mut tick = tokio::time::interval(LOOK_EVERY);
    loop {
        while running.len() < at_once
            && let Some(cell) = waiting.next()
        {
            let name = name(cell.0, cell.1);
            supervisor.start(process(*cell, folder))?;
            running.insert(name, *cell);
        }
        if running.is_empty() {
            break;
        }
        tokio::select! {
            event = events.recv() => match event.context("the supervisor is gone")? {
                Event::Done { name } => {
                    if let Some((arm, seed)) = running.remove(&name) {
                        let Here { cpu, cores, .. } = Here::here();
                        let start = checkpoint::digest(&start(arm, seed, folder))?;
                        let line = Line::of_run(&arm.name, seed, Terms::of(plan, arm), &folder.run(&arm.name, seed), start, Machine { cpu, cores })?;
                        bar.note(&told(&line));
                        keep(line)?;
                        count += 1;
                    }
                }
                Event::Died { name, how, .. } => bar.note(&format!("{name} died ({how}); it goes on from where it was")),
                Event::GaveUp { name, reason, .. } => {
                    running.remove(&name);
                    let text = format!("{name} could not be run: {reason}; its log is {}", folder.log(&name).display());
                    bar.note(&text);
                    done.failed.push(text);
                }
                Event::Started { .. } | Event::Stopped { .. } => {}
            },
            _ = tick.tick() => bar.at(count, cells.len(), &where_they_are(&running, folder)),
            () = shutdown.cancelled() => {
                bar.note("stopping; the same command goes on");
                supervisor.stop(&running.keys().cloned().collect::<Vec<_>>()).await;
                done.stopped = true;
                break;
            }
        }
    }
    bar.done();
    Ok(done)
}

/// The policy that a run began with.
fn start(arm: &Arm, seed: u64, folder: &StudyFolder) -> PathBuf {
    let shipped = || folder.run(&arm.name, seed).models().join(Shipped::Policy.label());
    arm.policy.as_ref().map_or_else(shipped, |name| folder.model(name))
}

/// One line on a run that is done.
fn told(line: &Line) -> String {
    let of = |before: bool| {
        let sums = line.sums(before, None).into_iter().flatten().fold(hypereyes_eval::sums::Sums::default(), |sum, one| sum + one);
        (sums.accuracy() * 100.0, sums.mean_rounds())
    };
    let ((accuracy, rounds), (was, were)) = (of(false), of(true));
    format!(
        "{} with seed {}: {was:.1} -> {accuracy:.1} % right, {were:.2} -> {rounds:.2} rounds, in {:.0} s",
        line.arm, line.seed, line.wall_seconds
    )
}

/// The step that each run is at.
fn where_they_are(running: &BTreeMap<String, Cell<'_>>, folder: &StudyFolder) -> String {
    let at = |(name, (arm, seed)): (&String, &Cell<'_>)| {
        let steps = follow::read_all(&folder.run(&arm.name, *seed).metrics()).unwrap_or_default();
        steps.last().map_or_else(|| name.clone(), |step| format!("{name} step {}", step.step))
    };
    running.iter().map(at).collect::<Vec<_>>().join(", ")
}

fn process((arm, seed): Cell<'_>, folder: &StudyFolder) -> Process {
    let (run, told): (_, PathBuf) = (folder.run(&arm.name, seed), folder.settings(&arm.name, seed));
    let name = name(arm, seed);
    let log = folder.log(&name);
    let make = move |_| {
        let place = format!("run_dir={}", run.root().display());
        let told = told.display().to_string();
        match run.state() {
            // It has ended, and its line could not be kept then.
            State::Finished => command(&["report", &run.root().display().to_string()]),
            State::Unfinished => command(&["up", "--resume", "--json", "--set", &place]),
            State::Fresh | State::Foreign => command(&["up", "--json", "--config", &told]),
        }
    };
    Process { name, command: Box::new(make), on_exit: OnExit::DoneOnSuccess, grace: GRACE + Duration::from_secs(10), log }
}
