//! `hypereyes eval`: what a policy is worth on held-out tasks or a benchmark, with and without tools.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Result;
use clap::Args;
use hypereyes_chassis::{BadInput, Findings};
use hypereyes_dataset::loaders::{Benchmark, Refused, Rows};
use hypereyes_eval::itemised::Measure;
use hypereyes_eval::summary::More;
use hypereyes_eval::{About, Report, TaskSet};
use hypereyes_miniature::shipped::Shipped;
use hypereyes_pictures::{Limits, Processor};
use hypereyes_run::{EvaluationFolder, HeldEvaluation, day};
use hypereyes_scoring::Metric;
use hypereyes_synth::Split;
use hypereyes_world::World;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::billed::Billed;
use crate::commands::{EngineArgs, synth};
use crate::config::Config;
use crate::evaluation::settings::{self, Policy, Tasks};
use crate::evaluation::store::Store;
use crate::evaluation::{self, Evaluation, Outcome};
use crate::parts::{Chosen, Particulars};
use crate::{check, endpoint, held_out, output, parts, protocol};

/// Arguments of `eval`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  hypereyes eval                                        the shipped policy on fresh held-out tasks\n  \
    hypereyes eval --model runs/my-run/learner/policy --tasks runs/my-run/tasks/held_out --out evals/trained\n  \
    hypereyes eval --model policies/cold --set synth.held_out=500 --set eval.samples=4 --json\n  \
    hypereyes eval --model Qwen3-VL-8B-Instruct --benchmark browsecomp-vl@level1 --data WebWatcher/browsecomp-vl --out evals/qwen-bcvl\n  \
    hypereyes eval --engine openai --url http://127.0.0.1:8000/v1 --set rollout.max_turn_tokens=1524 --set rollout.max_context_tokens=38000\n\n\
    With --out the same command goes on where it was cut; `hypereyes compare` compares such folders. docs/evaluation.md says what is \
    measured, and what it can be compared with.")]
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
    /// A benchmark instead, or one subset of it, read from the files that its authors publish. Limits are
    /// then the published ones, unless you set others.
    #[arg(long, value_name = "NAME", requires = "data", conflicts_with = "tasks", help = benchmark_help())]
    pub benchmark: Option<String>,
    /// The folder with the benchmark's files.
    #[arg(long, value_name = "DIR", requires = "benchmark")]
    pub data: Option<PathBuf>,
    /// Keep everything here: settings, every rollout as it ends, and the report as JSON, Markdown and CSV. The same command again goes on
    /// with what is not finished; other settings are refused.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Also write every rollout to this file, one JSON line each.
    #[arg(long, value_name = "FILE")]
    pub rollouts: Option<PathBuf>,
}

/// What `--json` prints: the keys of a report, then where they come from, then what is behind them.
#[derive(Serialize)]
struct Answer<'a> {
    #[serde(flatten)]
    report: &'a Report,
    closed_book_accuracy: f64,
    judge: &'static str,
    model: &'a str,
    seed: u64,
    /// As it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    benchmark: Option<&'a str>,
    /// Rows of the benchmark that are no tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<&'a [Refused]>,
    #[serde(flatten)]
    more: More,
    /// Where everything is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    out: Option<&'a Path>,
    /// What every rollout depends on.
    #[serde(skip_serializing_if = "Option::is_none")]
    settings: Option<&'a Map<String, Value>>,
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
    // Who else writes there is said before anything takes long.
    let held = args.out.as_ref().map(|out| EvaluationFolder::new(out).hold()).transpose()?;
    let world = parts::world(config)?;
    let scratch = tempfile::tempdir()?;
    endpoint::needs_no_folder(config, "--model", args.model.as_deref())?;
    // The policy first: what is wrong with it is said before tasks are made.
    let folder = if config.engine.speaks_text() { None } else { Some(folder(config, args, scratch.path())?) };
    if let Some((model, name)) = &folder {
        of_model(&mut found, config, args, &world, model)?;
        if benchmark.is_some() && name == SHIPPED {
            output::note(&format!("note: {}", protocol::of_shipped()));
        }
    }
    found.result()?;
    found.warned().iter().for_each(|warning| output::note(&format!("warning: {warning}")));
    // The judge's verdict is the accuracy anyway.
    let metric = benchmark.as_ref().map(|(benchmark, _)| benchmark.metric()).filter(|metric| *metric != Metric::Accuracy);
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
    let billed = Arc::new(Billed::new(parts::searcher(config, &world)?, &config.search));
    let Chosen { player, name, served, .. } = match &folder {
        Some((model, name)) => {
            let particulars = Particulars { search: Some(billed.clone()), max_picture_tokens: config.eval.max_picture_tokens };
            runtime.block_on(parts::tokens_with(config, &world, model, name.clone(), particulars))?
        }
        None => runtime.block_on(endpoint::open_with(config, billed.clone()))?,
    };
    let set = match given {
        Some(set) => set,
        None => held_out::of(runtime.block_on(synth::make(config, Split::HeldOut))?),
    };
    let kept = match (&args.out, held) {
        (Some(out), Some(held)) => {
            let policy = match (&folder, &served) {
                (Some((model, _)), _) => Policy::Folder(model),
                (None, served) => {
                    let url = config.engine.url.first().map(String::as_str).unwrap_or_default();
                    Policy::Served { url, model: served.as_deref().unwrap_or_default() }
                }
            };
            Some(keep(config, (args, metric), &policy, &name, (&set, &*world), (out.as_path(), held))?)
        }
        _ => None,
    };
    let settings = kept.as_ref().map(|(store, _)| store.settings().clone());
    let spent = billed.clone();
    let halted = move || spent.spent().map(str::to_owned);
    let measure = metric.map(|metric| move |question: &str, answer: &str, right: &[String]| metric.value(question, answer, right));
    let evaluation = Evaluation {
        config,
        player: &*player,
        set: &set,
        metric: measure.as_ref().map(|measure| measure as &Measure),
        nothing: billed.nothing(),
        halted: &halted,
        rollouts: args.rollouts.as_deref(),
    };
    let out = kept.as_ref().map(|(_, folder)| folder.clone());
    let outcome = runtime.block_on(async {
        match kept {
            Some((store, folder)) => evaluation.kept(store, &folder).await,
            None => evaluation.unkept().await,
        }
    })?;
    tell(
        config,
        args,
        json,
        &Told {
            outcome: &outcome,
            name: &name,
            refused: refused.as_deref(),
            metric: metric.map(Metric::label),
            out: out.as_ref(),
            settings: settings.as_ref(),
        },
    )
}

/// What the shipped policy is called in results.
const SHIPPED: &str = "shipped";

/// What the model's folder says about the settings.
fn of_model(found: &mut Findings, config: &Config, args: &EvalArgs, world: &Arc<World>, model: &Path) -> Result<()> {
    let shape = check::models::shape(found, "policy", model)?;
    found.extend(check::pairs::of_engine(config, Some(&shape)));
    let processor = Processor::load_from(model).map_err(|error| BadInput::new(error.to_string()))?.processor;
    found.extend(protocol::of_pictures(config, &processor));
    if args.tasks.is_none() && args.benchmark.is_none() {
        found.extend(check::world::findings(config, world, &*parts::chat(model)?, config.rollout.max_context_tokens));
    }
    Ok(())
}

/// Begins in a folder, or goes on there.
fn keep(
    config: &Config,
    (args, metric): (&EvalArgs, Option<Metric>),
    policy: &Policy<'_>,
    name: &str,
    (set, world): (&TaskSet, &World),
    (out, held): (&Path, HeldEvaluation),
) -> Result<(Store, EvaluationFolder)> {
    let of = Tasks { benchmark: args.benchmark.as_deref(), metric: metric.map(Metric::label), tasks: &set.tasks, world: world.digest() };
    let settings = settings::of(config, policy, &of)?;
    let noted = json!({
        "model": name,
        "tasks": tasks_of(args),
        "began": day(SystemTime::now()),
        "search_cache": config.search.cache.path,
    });
    let folder = EvaluationFolder::new(out);
    Ok((Store::open(folder.clone(), held, &settings, noted)?, folder))
}

/// What the tasks are called.
fn tasks_of(args: &EvalArgs) -> String {
    match (&args.benchmark, &args.tasks) {
        (Some(name), _) => name.clone(),
        (None, Some(folder)) => folder.display().to_string(),
        (None, None) => "held-out tasks".to_owned(),
    }
}

/// All that is told.
struct Told<'a> {
    outcome: &'a Outcome,
    name: &'a str,
    refused: Option<&'a [Refused]>,
    /// The benchmark's own, where it is not the accuracy.
    metric: Option<&'a str>,
    out: Option<&'a EvaluationFolder>,
    settings: Option<&'a Map<String, Value>>,
}

fn tell(config: &Config, args: &EvalArgs, json: bool, told: &Told<'_>) -> Result<()> {
    let Outcome { summary, cost } = told.outcome;
    let closed_book_accuracy = summary.closed_book.as_ref().map_or(0.0, |row| row.accuracy);
    let judge = config.reward_service.judge.label();
    let answer = Answer {
        report: &summary.report,
        closed_book_accuracy,
        judge,
        model: told.name,
        seed: config.eval.seed,
        benchmark: args.benchmark.as_deref(),
        refused: told.refused,
        more: summary.more(told.metric, *cost),
        out: args.out.as_deref(),
        settings: told.settings,
    };
    let mut written = None;
    if let Some(folder) = told.out {
        let search = &config.search;
        let mode = serde_json::to_value(search.mode).ok().and_then(|mode| mode.as_str().map(str::to_owned)).unwrap_or_default();
        let about = About {
            model: told.name,
            tasks: &tasks_of(args),
            judge,
            metric: told.metric,
            search: &format!("{} and {} ({mode})", search.text.backend, search.image.backend),
            dates: &dates(folder, told.settings),
        };
        written = Some(evaluation::write_report(folder, &answer, &summary.markdown(&about, cost), &summary.csv())?);
    }
    if json {
        output::json(&answer);
        return Ok(());
    }
    output::say(Report::table(&[("all", &summary.report)]).trim_end());
    output::say(&format!("without tools {:.1} % right; brackets are 95 % intervals; policy {}", closed_book_accuracy * 100.0, told.name));
    let passes = summary.pass_at_k.iter().map(|(k, pass)| format!("pass@{k} {:.1} %", pass.value * 100.0));
    let average = summary.avg_at_k.map(|average| format!("avg@{} {:.1} %", summary.samples, average.value * 100.0));
    let several: Vec<String> = average.into_iter().chain(passes).collect();
    if !several.is_empty() {
        output::say(&several.join(", "));
    }
    if let Some(path) = written {
        output::say(&cost.sentence());
        output::say(&format!("report  {}", path.display()));
    }
    Ok(())
}

/// First and last day of an evaluation.
fn dates(folder: &EvaluationFolder, settings: Option<&Map<String, Value>>) -> String {
    let began = settings.and_then(|settings| settings.get(settings::NOTED)?.get("began")?.as_str()).unwrap_or_default().to_owned();
    let last = std::fs::metadata(folder.items()).and_then(|meta| meta.modified()).map_or_else(|_| began.clone(), day);
    if began == last { began } else { format!("{began} to {last}") }
}

/// The policy's folder and what it is called.
fn folder(config: &Config, args: &EvalArgs, scratch: &Path) -> Result<(PathBuf, String)> {
    match args.model.clone().or_else(|| Some(config.policy.clone()).filter(|path| !path.as_os_str().is_empty())) {
        Some(model) => Ok((model.clone(), model.display().to_string())),
        None => {
            parts::unpack(Shipped::Policy, scratch)?;
            Ok((scratch.to_owned(), SHIPPED.to_owned()))
        }
    }
}

fn benchmark_help() -> String {
    format!(
        "A benchmark instead, or one subset of it (NAME@SUBSET), read from the files that its authors publish (docs/benchmarks.md), within the published limits unless you set others: {}",
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
