//! `hypereyes up`: the main job. The whole loop on this machine: tasks, the start policy measured, all services as processes,
//! the trained policy measured on the same tasks with the same seeds, a table and a report.
//!
//! In: settings. Out: a run folder. Everything is checked before the first file is written; everything that is done is
//! found again by `--resume`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use hypereyes_chassis::service_process::Sources;
use hypereyes_chassis::{BadInput, Findings, Shutdown, config, exit};
use hypereyes_policy::checkpoint::save::keep_apart;
use hypereyes_run::{Change, RUNS, RunFolder, State, attempts};
use hypereyes_world::World;
use serde::Serialize;

use crate::check::models::Folders;
use crate::check::world::Names;
use crate::config::{Config, ENV_PREFIX};
use crate::job::{Job, cores, ports_asked};
use crate::output::Console;
use crate::resume::Done;
use crate::services::absolute;
use crate::{check, output, parts, ports, resume, task_sets};

/// Arguments of `up`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  hypereyes up\n  hypereyes up --set seed=1 --set run_dir=runs/mine\n  \
    hypereyes up --set learner.steps=40 --set synth.held_out=400\n  \
    hypereyes up --set reward_service.trace.enabled=false      without the efficiency bonus\n  \
    hypereyes up --set up.distill=false                        without the teacher\n  \
    hypereyes up --resume                                      go on with the newest run that was interrupted\n\n\
    Ctrl-C stops the services in order and leaves a checkpoint.")]
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
    #[serde(skip_serializing_if = "Option::is_none")]
    evaluated_every: Option<u64>,
    trace: bool,
    seed: u64,
    cores: usize,
}

/// Runs the whole job.
pub fn run(sources: &Sources, args: &UpArgs, json: bool) -> Result<()> {
    let (config, folder, changes) = resolve(sources, args)?;
    check_places(&config, &folder)?;
    let (world, warnings, names) = check(&config, &folder)?;
    warnings.warned().iter().for_each(|warning| output::note(&format!("warning: {warning}")));
    let runtime = parts::runtime()?;
    runtime.block_on(async { ports::resolve(&ports_asked(&config)).await })?;
    if args.dry_run {
        return dry_run(&config, &folder, &(world, names), &changes, args.resume, json);
    }
    // First thing: who must answer later answers now.
    let servers = runtime.block_on(check::servers::findings(&config));
    servers.warned().iter().for_each(|warning| output::note(&format!("warning: {warning}")));
    servers.result()?;
    parts::telemetry()?;
    let held = folder.hold()?;
    let console = Console { json };
    let result = runtime.block_on(async {
        let shutdown = Shutdown::on_signal().context("cannot listen for signals")?;
        let mut job = Job::begin(config, folder, world, console, held, &changes)?;
        let done = job.all(&shutdown).await;
        job.note_progress(output::note);
        done.map_err(|error| if job.can_resume() { with_advice(error, &job.resume_command()) } else { error })
    });
    // Threads of the engine may still be at work on a step that nobody waits for.
    runtime.shutdown_timeout(Duration::from_secs(2));
    let outcome = result?;
    if json {
        output::json(&outcome.summary);
    }
    Ok(())
}

/// The error with the way to go on; what was bad input stays it.
fn with_advice(error: anyhow::Error, command: &str) -> anyhow::Error {
    let line = exit::line_of(error.as_ref());
    match exit::code_of(error.as_ref()) {
        // As it is, it would end the same way.
        exit::BAD_INPUT => BadInput::new(format!("{line}; when that is mended, go on with: {command}")).into(),
        _ => anyhow!("{line}; go on with: {command}"),
    }
}

/// Settings and folder of the run, and what a resumed one is told anew.
fn resolve(sources: &Sources, args: &UpArgs) -> Result<(Config, RunFolder, Vec<Change>)> {
    let mut config = Config::load(sources)?;
    if !args.resume {
        // Kept with the run, which may be gone on with from elsewhere.
        config = absolute_paths(config);
        config = task_sets::placed(config)?;
        let folder = if config.run_dir.as_os_str().is_empty() { RunFolder::fresh(config.seed) } else { RunFolder::new(&config.run_dir) };
        folder.admit(false)?;
        config.run_dir = folder.root().to_owned();
        return Ok((config, RunFolder::new(absolute(folder.root())?), vec![]));
    }
    let folder = if config.run_dir.as_os_str().is_empty() {
        RunFolder::newest(Path::new(RUNS), |folder| folder.state() == State::Unfinished)
            .ok_or_else(|| BadInput::new(format!("no unfinished run under {RUNS}/: name one with --set run_dir=FOLDER")))?
    } else {
        RunFolder::new(&config.run_dir)
    };
    folder.admit(true)?;
    if sources.file.is_some() {
        return Err(BadInput::new("a resumed run keeps its own settings: leave --config out; --set still changes single ones").into());
    }
    // Its own settings, and what is said now on top.
    let mut kept = kept(&folder)?;
    kept = absolute_paths(kept);
    config = config::load(kept.clone().unplaced(), None, ENV_PREFIX, &sources.sets)?;
    config.check_places()?;
    config = task_sets::placed(config.placed())?;
    config = absolute_paths(config);
    config.run_dir = folder.root().to_owned();
    let (changes, found) = resume::compare(&kept, &config, Done::of(&folder));
    found.result()?;
    found.warned().iter().for_each(|warning| output::note(&format!("warning: {warning}")));
    Ok((config, RunFolder::new(absolute(folder.root())?), changes))
}

/// Settings whose paths mean the same wherever the run is gone on with.
fn absolute_paths(mut config: Config) -> Config {
    config.search = config.search.absolute();
    config.reward_service.judge_model = config.reward_service.judge_model.absolute();
    config
}

/// The settings that a run keeps.
///
/// # Errors
/// [`BadInput`] when this version of the program cannot read them.
fn kept(folder: &RunFolder) -> Result<Config> {
    let read = config::load_from(Config::default(), Some(&folder.config()), ENV_PREFIX, [], &[]);
    Ok(read.map_err(|error| {
        let by = attempts::read(folder)
            .last()
            .map_or_else(|| "another version of hypereyes".to_owned(), |last| format!("version {}", last.version));
        let (root, ours) = (folder.root().display(), env!("CARGO_PKG_VERSION"));
        BadInput::new(format!(
            "{root} cannot be resumed: it is no run, or one of {by}, whose settings version {ours} cannot read ({error}); go on with the \
             version that began it, or begin a new run"
        ))
    })?)
}

/// What is trained from and with must not lie where the trained policy will: it replaces its folder as a whole.
fn check_places(config: &Config, folder: &RunFolder) -> Result<()> {
    let best = (config.eval.every > 0).then(|| folder.best());
    for (key, path) in [("policy", &config.policy), ("teacher", &config.teacher), ("world", &config.world)] {
        for target in [Some(folder.policy()), best.clone()].into_iter().flatten().filter(|_| !path.as_os_str().is_empty()) {
            keep_apart(&target, key, path).map_err(|error| BadInput::new(error.to_string()))?;
        }
    }
    Ok(())
}

/// Everything that can be wrong with the settings, before anything is written: the world, what is to be warned of, and what a name of the
/// world takes in the policy's tokens.
fn check(config: &Config, folder: &RunFolder) -> Result<(Arc<World>, Findings, Names)> {
    let mut found = check::run(config, folder)?;
    found.result()?;
    let world = parts::world(config)?;
    let folders = Folders::of(config)?;
    found.extend(check::models::run(config, folder, &world, &folders)?);
    found.result()?;
    let names = check::world::names(&world, &*parts::chat(&folders.policy)?);
    Ok((world, found, names))
}

fn dry_run(
    config: &Config,
    folder: &RunFolder,
    (world, names): &(Arc<World>, Names),
    changes: &[Change],
    resume: bool,
    json: bool,
) -> Result<()> {
    let named = |path: &Path| if path.as_os_str().is_empty() { "shipped".to_owned() } else { path.display().to_string() };
    let [train_tasks, held_out_tasks] = task_sets::counts(config);
    let intent = Intent {
        run_dir: folder.root().to_owned(),
        resume,
        policy: named(&config.policy),
        teacher: config.up.distill.then(|| named(&config.teacher)),
        world: format!("{} ({} entities)", world.name(), world.entities().len()),
        train_tasks,
        held_out_tasks,
        steps: config.learner.steps,
        groups_per_step: config.learner.groups_per_step,
        group_size: config.learner.group_size,
        actors: config.actors(),
        evaluated_every: Some(config.eval.every).filter(|every| *every > 0),
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
    changes.iter().for_each(|change| output::say(&format!("new         {change}")));
    output::say(&format!("world       {}; in the policy's tokens {names}", intent.world));
    output::say(&format!("policy      {}", intent.policy));
    output::say(&format!("teacher     {}", intent.teacher.as_deref().unwrap_or("none")));
    output::say(&format!("tasks       {} to train on, {} held out", intent.train_tasks, intent.held_out_tasks));
    let shape = format!("{} groups of {}", intent.groups_per_step, intent.group_size);
    output::say(&format!("training    {} steps of {shape}: {rollouts} rollouts", intent.steps));
    if let Some(every) = intent.evaluated_every {
        output::say(&format!("measured    every {every} steps on held-out tasks; the best version is kept in best/"));
    }
    let trace = if intent.trace { "on" } else { "off" };
    output::say(&format!(
        "services    reward (TRACE {trace}), {}learner, {} actors on {} cores",
        if intent.teacher.is_some() { "teacher, " } else { "" },
        intent.actors,
        intent.cores
    ));
    output::say(&format!("nothing was started; every setting:\n\n{}", config::to_toml(config)?.trim_end()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parsed(arguments: &[&str]) -> (Cli, bool) {
        let cli = Cli::parse_from([&["hypereyes", "up"], arguments].concat());
        let Command::Up(args) = &cli.command else { panic!("it is up") };
        let resume = args.resume;
        (cli, resume)
    }

    fn resolved(arguments: &[&str]) -> Result<(Config, RunFolder, Vec<Change>)> {
        let (cli, resume) = parsed(arguments);
        resolve(&cli.sources(), &UpArgs { resume, dry_run: false })
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
        let (config, found, changes) = resolved(&["--resume", "--set", &run_dir, "--set", "learner.steps=60"]).expect("resumable");
        assert_eq!((config.seed, config.learner.steps, found.root()), (9, 60, folder.root()));
        assert_eq!(changes.iter().map(ToString::to_string).collect::<Vec<_>>(), ["learner.steps = 60 (was 40)"]);
        std::fs::create_dir_all(folder.train()).expect("made");
        std::fs::write(folder.train().join(hypereyes_dataset::TASKS), "").expect("written");
        let error = resolved(&["--resume", "--set", &run_dir, "--set", "synth.tasks=8"]).expect_err("they are made").to_string();
        assert!(error.starts_with("synth.tasks is 192 in this run and cannot become 8"), "{error}");
        let error = resolved(&["--set", &run_dir]).expect_err("unfinished");
        assert!(error.is::<BadInput>() && error.to_string().contains("--resume"), "{error}");
        std::fs::write(folder.result(), "{}").expect("written");
        assert!(resolved(&["--resume", "--set", &run_dir]).expect_err("finished").to_string().contains("finished"));
    }

    #[test]
    fn a_run_knows_its_cache_from_any_folder() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let run_dir = format!("run_dir={}", root.path().join("run").display());
        let (config, ..) = resolved(&["--set", &run_dir, "--set", "search.cache.path=search.redb"]).expect("fresh");
        assert_eq!(config.search.cache.path, Some(std::env::current_dir().expect("a folder").join("search.redb")));
    }

    #[test]
    fn where_both_sets_are_named_the_world_needs_none_of_what_tasks_are_made_of() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let row = r#"{"id": "a", "kind": "k", "question": "q", "answers": ["1"]}"#;
        std::fs::write(root.path().join(hypereyes_dataset::TASKS), row).expect("written");
        let mut config = Config::default();
        config.synth.relations = vec!["favourite colour".into()];
        let folder = RunFolder::new(root.path().join("run"));
        config.up.tasks = root.path().to_owned();
        let Err(error) = check(&config, &folder) else { panic!("held-out tasks are made") };
        assert!(error.to_string().contains("favourite colour"), "{error}");
        config.up.held_out = root.path().to_owned();
        assert!(check(&config, &folder).is_ok());
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
            let folder = RunFolder::new(root.path().join("run"));
            let Err(error) = check(&config, &folder) else { panic!("case {number} is spoiled") };
            assert_eq!(hypereyes_chassis::exit::code_of(error.as_ref()), hypereyes_chassis::exit::BAD_INPUT, "case {number}: {error:#}");
        }
        assert_eq!(std::fs::read_dir(root.path()).expect("there").count(), 0);
    }
}
