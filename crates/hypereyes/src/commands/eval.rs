//! `hypereyes eval`: what a policy is worth on held-out tasks, with and without tools.

use hypereyes_miniature::shipped::Shipped;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use hypereyes_domain::PolicyVersion;
use hypereyes_eval::Report;
use hypereyes_run::write_played;
use hypereyes_synth::Split;
use serde::Serialize;

use crate::commands::synth;
use crate::config::Config;
use crate::{check, held_out, output, parts};

/// Arguments of `eval`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  hypereyes eval                                        the shipped policy on fresh held-out tasks\n  \
    hypereyes eval --model runs/my-run/learner/policy --tasks runs/my-run/tasks/held_out\n  \
    hypereyes eval --model policies/cold --set synth.held_out=500 --set eval.samples=4 --json")]
pub struct EvalArgs {
    /// Policy folder (Hugging Face layout). Default: `policy` of the settings, else the shipped one.
    #[arg(long)]
    pub model: Option<PathBuf>,
    /// Task set folder. Default: held-out tasks made on the spot from the settings' world and seed.
    #[arg(long)]
    pub tasks: Option<PathBuf>,
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
}

/// Measures and prints.
pub fn run(config: &Config, args: &EvalArgs, json: bool) -> Result<()> {
    parts::telemetry()?;
    let mut found = check::evaluation(config);
    found.result()?;
    let world = parts::world(config)?;
    let scratch = tempfile::tempdir()?;
    let configured = args.model.clone().or_else(|| Some(config.policy.clone()).filter(|path| !path.as_os_str().is_empty()));
    let (model, name) = match configured {
        Some(model) => (model.clone(), model.display().to_string()),
        None => {
            parts::unpack(Shipped::Policy, scratch.path())?;
            (scratch.path().to_owned(), "shipped".to_owned())
        }
    };
    // The policy first: what is wrong with it is said before tasks are made.
    let shape = check::models::shape(&mut found, "policy", &model)?;
    found.extend(check::pairs::of_engine(config, Some(&shape.text)));
    if args.tasks.is_none() {
        found.extend(check::world::findings(config, &world, &*parts::chat(&model)?, config.rollout.max_context_tokens));
    }
    found.result()?;
    found.warned().iter().for_each(|warning| output::note(&format!("warning: {warning}")));
    let runtime = parts::runtime()?;
    // Who must answer later answers now.
    let servers = runtime.block_on(check::servers::findings(config));
    servers.warned().iter().for_each(|warning| output::note(&format!("warning: {warning}")));
    servers.result()?;
    let (setup, engine) = parts::engine(config, &world, &model, PolicyVersion(0))?;
    let measured = runtime.block_on(async {
        let set = match &args.tasks {
            Some(folder) => held_out::load(folder)?,
            None => held_out::of(synth::make(config, Split::HeldOut).await?),
        };
        held_out::measure_loaded(config, &setup, &engine, &set, "eval").await
    })?;
    if let Some(path) = &args.rollouts {
        write_played(path, &measured.played)?;
    }
    if json {
        let closed_book_accuracy = measured.closed_book_accuracy;
        let judge = config.reward_service.judge.label();
        output::json(&Answer { report: &measured.report, closed_book_accuracy, judge, model: name, seed: config.eval.seed });
    } else {
        output::say(Report::table(&[("all", &measured.report)]).trim_end());
        output::say(&format!(
            "without tools {:.1} % right; brackets are 95 % intervals; policy {name}",
            measured.closed_book_accuracy * 100.0
        ));
    }
    Ok(())
}
