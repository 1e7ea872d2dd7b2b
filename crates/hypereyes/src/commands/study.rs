//! `hypereyes study`: an experiment. Arms by seeds of `up`, one after the other or some at a time; a table with intervals, curves, and a
//! verdict on every claim of the file.
//!
//! In: the file of a study, and the lines of what is done. Out: more lines, a folder with the report. Everything that can be wrong with any
//! arm is said before the first one runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use hypereyes_chassis::service_process::Sources;
use hypereyes_chassis::{BadInput, Shutdown};
use hypereyes_eval::aligned::aligned;
use hypereyes_run::RUNS;
use hypereyes_study::{Arm, Lines, Plan, Summary};

use crate::check::{self, models::Folders};
use crate::study::cells::{self, Cell};
use crate::study::{StudyFolder, models, settings};
use crate::{output, parts};

/// Arguments of `study`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  hypereyes study studies/quick.toml                 run it, or go on with it; a table at the end\n  \
    hypereyes study studies/quick.toml --report        what the lines that are there come to; runs nothing\n  \
    hypereyes study mine.toml --arm trace --arm plain  these arms only\n  hypereyes study mine.toml --at-once 4              on a large machine\n\n\
    Every run that is done is a line in FILE.jsonl beside the file: a study goes on from its lines alone, also elsewhere. Ctrl-C stops the \
    runs in order, and the same command goes on with them. docs/studies.md has the form of the file and how claims are judged.")]
pub struct StudyArgs {
    /// The study (TOML).
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Folder of runs, logs and the report. Default: runs/study-NAME.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// File of lines. Default: the study's name with .jsonl, beside it.
    #[arg(long, value_name = "FILE")]
    pub lines: Option<PathBuf>,
    /// Runs at the same time. Their times are then no measure of one run.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub at_once: u16,
    /// Run this arm only. May be repeated.
    #[arg(long = "arm", value_name = "ARM")]
    pub arms: Vec<String>,
    /// Run nothing: make table, page and curves of the lines that are there.
    #[arg(long)]
    pub report: bool,
    /// Check everything, say what would be run, and stop.
    #[arg(long, conflicts_with = "report")]
    pub dry_run: bool,
}

/// Runs a study, or goes on with it.
///
/// # Errors
/// [`BadInput`] for a file, lines or settings that are wrong; runs that failed, or that it was told to stop.
pub fn run(sources: &Sources, args: &StudyArgs, json: bool) -> Result<()> {
    if sources.file.is_some() || !sources.sets.is_empty() {
        return Err(BadInput::new("what a study is told is in its file: put --config and --set into its settings").into());
    }
    let plan = Plan::read(&args.file)?;
    if let Some(name) = args.arms.iter().find(|name| plan.arm(name).is_none()) {
        return Err(BadInput::new(format!("--arm {name} is none of the study's arms: {}", names(&plan))).into());
    }
    let name = args.file.file_stem().map_or_else(|| "study".to_owned(), |stem| stem.to_string_lossy().into_owned());
    let path = args.lines.clone().unwrap_or_else(|| args.file.with_extension("jsonl"));
    let root = args.out.clone().unwrap_or_else(|| Path::new(RUNS).join(format!("study-{name}")));
    // Runs are started from their settings, which name folders.
    let folder = StudyFolder::new(std::path::absolute(&root)?);
    let mut lines = Lines::read(&path, &plan)?;
    let is_wanted = |(arm, seed): &Cell<'_>| {
        (args.arms.is_empty() || args.arms.contains(&arm.name)) && !args.report && lines.get(&arm.name, *seed).is_none()
    };
    let cells: Vec<Cell<'_>> = plan.cells().into_iter().filter(is_wanted).collect();
    check(&plan, &cells, &folder)?;
    if args.dry_run {
        return dry_run(&plan, &cells, &lines, &folder, json);
    }
    folder.make()?;
    let held = std::fs::File::create(folder.root().join("lock")).context("cannot write into the study's folder")?;
    held.try_lock().map_err(|_| BadInput::new(format!("another study is running in {}", folder.root().display())))?;
    let mut failed = vec![];
    let mut stopped = false;
    if !cells.is_empty() {
        parts::telemetry()?;
        let runtime = parts::runtime()?;
        let done = runtime.block_on(async {
            let shutdown = Shutdown::on_signal().context("cannot listen for signals")?;
            for model in needed(&plan, &cells) {
                models::make(model, &folder, &shutdown).await?;
            }
            for cell in &cells {
                cells::prepare(&plan, *cell, &folder)?;
            }
            cells::run(&plan, &cells, &folder, args.at_once.into(), &shutdown, |line| {
                lines.add(&path, &plan, line)?;
                folder.tell(&name, &plan, &lines).map(|_| ())
            })
            .await
        });
        runtime.shutdown_timeout(Duration::from_secs(2));
        let done = done?;
        (failed, stopped) = (done.failed, done.stopped);
    }
    let summary = folder.tell(&name, &plan, &lines)?;
    say(&summary, &folder, json);
    match (stopped, &failed[..]) {
        (true, _) => bail!("stopped; {} runs are missing: the same command goes on", summary.missing.len()),
        (_, []) => Ok(()),
        (_, failed) => bail!("{} of {} runs failed; the first: {}", failed.len(), cells.len(), failed[0]),
    }
}

fn names(plan: &Plan) -> String {
    plan.arms.iter().map(|arm| arm.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// Models that these cells need, in the order in which they can be made.
fn needed<'a>(plan: &'a Plan, cells: &[Cell<'_>]) -> Vec<&'a hypereyes_study::Model> {
    let wanted: Vec<&hypereyes_study::Model> = cells.iter().flat_map(|(arm, _)| plan.models_of(arm)).collect();
    plan.models.iter().filter(|model| wanted.contains(model)).collect()
}

/// What `up` would refuse of any arm, before anything is made.
fn check(plan: &Plan, cells: &[Cell<'_>], folder: &StudyFolder) -> Result<()> {
    let mut checked: Vec<&str> = vec![];
    for (arm, seed) in cells {
        if checked.contains(&arm.name.as_str()) {
            continue;
        }
        checked.push(&arm.name);
        check_arm(arm, *seed, folder)?;
    }
    for model in needed(plan, cells) {
        check::tasks(&settings::of_model(model)?)
            .result()
            .map_err(|error| BadInput::new(format!("models.{}.settings: {error}", model.name)))?;
        models::is_made(model, folder)?;
    }
    Ok(())
}

fn check_arm(arm: &Arm, seed: u64, folder: &StudyFolder) -> Result<()> {
    let named = |error: &dyn std::fmt::Display| BadInput::new(format!("arms.{}: {error}", arm.name));
    let mut config = settings::of_arm(arm, seed, folder)?;
    // Models of the study may not be made yet; they have the shape of those that they go on from.
    for model in [&mut config.policy, &mut config.teacher] {
        if !model.join("config.json").exists() {
            model.clear();
        }
    }
    let run = folder.run(&arm.name, seed);
    let found = check::run(&config, &run).map_err(|error| named(&error))?;
    found.result().map_err(|error| named(&error))?;
    let world = parts::world(&config).map_err(|error| named(&error))?;
    let folders = Folders::of(&config).map_err(|error| named(&error))?;
    let found = check::models::run(&config, &run, &world, &folders).map_err(|error| named(&error))?;
    Ok(found.result().map_err(|error| named(&error))?)
}

fn dry_run(plan: &Plan, cells: &[Cell<'_>], lines: &Lines, folder: &StudyFolder, json: bool) -> Result<()> {
    let to_make: Vec<&str> = needed(plan, cells)
        .into_iter()
        .filter(|model| !models::is_made(model, folder).unwrap_or(false))
        .map(|model| model.name.as_str())
        .collect();
    let mean = lines.iter().map(|line| line.wall_seconds).sum::<f64>() / lines.iter().count().max(1) as f64;
    if json {
        let runs: Vec<_> = cells.iter().map(|(arm, seed)| serde_json::json!({ "arm": arm.name, "seed": seed })).collect();
        output::json(&serde_json::json!({ "runs": runs, "models": to_make, "seconds_a_run": (mean > 0.0).then_some(mean) }));
        return Ok(());
    }
    output::say(&format!("study folder  {}", folder.root().display()));
    output::say(&format!("done          {} of {} runs", plan.cells().len() - Summary::of(plan, lines).missing.len(), plan.cells().len()));
    if !to_make.is_empty() {
        output::say(&format!("models        {}", to_make.join(", ")));
    }
    for (arm, seed) in cells {
        output::say(&format!("to be run     {} with seed {seed}", arm.name));
    }
    if mean > 0.0 {
        let time = hypereyes_report::page::duration(mean * cells.len() as f64);
        output::say(&format!("time          about {time}, one after the other, if they take as long as those that are done"));
    }
    Ok(())
}

fn say(summary: &Summary, folder: &StudyFolder, json: bool) {
    summary.warnings.iter().for_each(|warning| output::note(&format!("warning: {warning}")));
    if json {
        output::json(summary);
        return;
    }
    output::say(aligned(&summary.cells()).trim_end());
    if !summary.claims.is_empty() {
        output::say("");
        output::say(aligned(&summary.claim_cells()).trim_end());
    }
    let missing = summary.missing.len();
    let rest = if missing > 0 { format!("; {missing} runs are missing") } else { String::new() };
    output::say(&format!("\nintervals are of 95 %, over seeds and tasks; report {}{rest}", folder.report().display()));
}
