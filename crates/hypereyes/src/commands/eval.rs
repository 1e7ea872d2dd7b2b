//! `hypereyes eval`: what a policy is worth on held-out tasks or a benchmark, with and without tools.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use hypereyes_chassis::BadInput;
use hypereyes_dataset::loaders::{Benchmark, Refused, Rows};
use hypereyes_eval::{Report, TaskSet};
use hypereyes_miniature::shipped::Shipped;
use hypereyes_pictures::Limits;
use hypereyes_run::write_played;
use hypereyes_synth::Split;
use serde::Serialize;

use crate::commands::{EngineArgs, synth};
use crate::config::Config;
use crate::parts::Chosen;
use crate::{check, endpoint, held_out, output, parts};

/// Arguments of `eval`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  hypereyes eval                                        the shipped policy on fresh held-out tasks\n  \
    hypereyes eval --model runs/my-run/learner/policy --tasks runs/my-run/tasks/held_out\n  \
    hypereyes eval --model policies/cold --set synth.held_out=500 --set eval.samples=4 --json\n  \
    hypereyes eval --model Qwen3-VL-8B-Instruct --benchmark browsecomp-vl@level1 --data WebWatcher/browsecomp-vl --json\n  \
    hypereyes eval --engine openai --url http://127.0.0.1:8000/v1 --set rollout.max_turn_tokens=1524 --set rollout.max_context_tokens=38000")]
pub struct EvalArgs {
    /// Policy folder (Hugging Face layout). Default: `policy` of the settings, else the shipped one. None with `--engine openai`.
    #[arg(long)]
    pub model: Option<PathBuf>,
    /// Who samples.
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Task set folder. Default: held-out tasks made on the spot from the settings' world and seed.
    #[arg(long)]
    pub tasks: Option<PathBuf>,
    /// A benchmark instead, or one subset of it, read from the files that its authors publish.
    #[arg(long, value_name = "NAME", requires = "data", conflicts_with = "tasks", help = benchmark_help())]
    pub benchmark: Option<String>,
    /// The folder with the benchmark's files.
    #[arg(long, value_name = "DIR", requires = "benchmark")]
    pub data: Option<PathBuf>,
    /// Also write every rollout to this file, one JSON line each.
    #[arg(long, value_name = "FILE")]
    pub rollouts: Option<PathBuf>,
}

/// What `--json` prints: the keys of a report, then where they come from.
#[derive(Serialize)]
struct Answer<'a> {
    #[serde(flatten)]
    report: &'a Report,
    closed_book_accuracy: f64,
    judge: &'static str,
    model: String,
    seed: u64,
    /// As it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    benchmark: Option<&'a str>,
    /// Rows of the benchmark that are no tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<&'a [Refused]>,
}

/// Refused rows that are shown to people; all are in the JSON.
const ROWS_SHOWN: usize = 5;

/// Measures and prints.
pub fn run(config: &Config, args: &EvalArgs, json: bool) -> Result<()> {
    parts::telemetry()?;
    let mut found = check::evaluation(config);
    found.result()?;
    let benchmark = match args.benchmark.as_deref().zip(args.data.as_deref()) {
        Some((name, data)) => Some((Benchmark::named(name).map_err(|error| BadInput::new(format!("--benchmark: {error}")))?, data)),
        None => None,
    };
    let world = parts::world(config)?;
    let scratch = tempfile::tempdir()?;
    endpoint::needs_no_folder(config, "--model", args.model.as_deref())?;
    // The policy first: what is wrong with it is said before tasks are made.
    let folder = if config.engine.speaks_text() { None } else { Some(folder(config, args, scratch.path())?) };
    if let Some((model, _)) = &folder {
        let shape = check::models::shape(&mut found, "policy", model)?;
        found.extend(check::pairs::of_engine(config, Some(&shape)));
        if args.tasks.is_none() && benchmark.is_none() {
            found.extend(check::world::findings(config, &world, &*parts::chat(model)?, config.rollout.max_context_tokens));
        }
    }
    found.result()?;
    found.warned().iter().for_each(|warning| output::note(&format!("warning: {warning}")));
    let (given, refused) = match (&args.tasks, benchmark) {
        (_, Some((benchmark, data))) => read(&benchmark, data).map(|(set, refused)| (Some(set), Some(refused)))?,
        (Some(folder), None) => (Some(held_out::load(folder)?), None),
        (None, None) => (None, None),
    };
    let runtime = parts::runtime()?;
    // Who must answer later answers now.
    let servers = runtime.block_on(check::servers::findings(config));
    servers.warned().iter().for_each(|warning| output::note(&format!("warning: {warning}")));
    servers.result()?;
    let Chosen { player, name, .. } = match folder {
        Some((model, name)) => runtime.block_on(parts::tokens(config, &world, &model, name))?,
        None => runtime.block_on(endpoint::open(config, &world))?,
    };
    let measured = runtime.block_on(async {
        let set = match given {
            Some(set) => set,
            None => held_out::of(synth::make(config, Split::HeldOut).await?),
        };
        held_out::measure_loaded(config, &*player, &set, "eval").await
    })?;
    if let Some(path) = &args.rollouts {
        write_played(path, &measured.played)?;
    }
    if json {
        output::json(&Answer {
            report: &measured.report,
            closed_book_accuracy: measured.closed_book_accuracy,
            judge: config.reward_service.judge.label(),
            model: name,
            seed: config.eval.seed,
            benchmark: args.benchmark.as_deref(),
            refused: refused.as_deref(),
        });
    } else {
        output::say(Report::table(&[("all", &measured.report)]).trim_end());
        output::say(&format!(
            "without tools {:.1} % right; brackets are 95 % intervals; policy {name}",
            measured.closed_book_accuracy * 100.0
        ));
    }
    Ok(())
}

/// The policy's folder and what it is called.
fn folder(config: &Config, args: &EvalArgs, scratch: &Path) -> Result<(PathBuf, String)> {
    match args.model.clone().or_else(|| Some(config.policy.clone()).filter(|path| !path.as_os_str().is_empty())) {
        Some(model) => Ok((model.clone(), model.display().to_string())),
        None => {
            parts::unpack(Shipped::Policy, scratch)?;
            Ok((scratch.to_owned(), "shipped".to_owned()))
        }
    }
}

fn benchmark_help() -> String {
    format!(
        "A benchmark instead, or one subset of it (NAME@SUBSET), read from the files that its authors publish (docs/benchmarks.md): {}",
        Benchmark::names()
    )
}

/// The tasks of a benchmark, and the rows of it that are none, which are also said.
fn read(benchmark: &Benchmark, data: &Path) -> Result<(TaskSet, Vec<Refused>)> {
    let Rows { tasks, pictures, refused } = benchmark.read(data, &Limits::default()).map_err(|error| BadInput::new(error.to_string()))?;
    let text = |one: &Refused| format!("{}, row {}: {}", one.file, one.row, one.reason);
    if tasks.is_empty() {
        let first = refused.first().map_or_else(|| "there are no rows".to_owned(), text);
        return Err(BadInput::new(format!("{}: none of {} rows is a task: {first}", data.display(), refused.len())).into());
    }
    refused.iter().take(ROWS_SHOWN).for_each(|one| output::note(&format!("warning: {}", text(one))));
    if refused.len() > ROWS_SHOWN {
        output::note(&format!("warning: {} rows of {} are refused; --json lists all", refused.len(), tasks.len() + refused.len()));
    }
    Ok((held_out::of_files(tasks, pictures), refused))
}
