//! `hypereyes synth --entities`: visual tasks from a folder of named pictures, whose questions a model writes. In: the folder, settings, a
//! chat endpoint. Out: a task folder, and beside it what came of every number (`questions.jsonl`) and everything that the model wrote
//! (`written.jsonl`). The same command goes on where it was cut.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use futures::{StreamExt, stream};
use hypereyes_chassis::{BadInput, Findings, Shutdown};
use hypereyes_dataset::{Demonstration, Growing};
use hypereyes_domain::Task;
use hypereyes_run::write_json;
use hypereyes_synth::Durable;
use hypereyes_synth::entities::{Line, QUESTIONS, Refused, Workshop, known};
use hypereyes_synth::served::Bill;
use hypereyes_trainer::sft::checkpoint::Terms;
use serde::Serialize;

use super::SynthArgs;
use super::terms::{SETTINGS, agree};
use super::writer::{FAILED_IN_A_ROW, Written, author};
use crate::config::Config;
use crate::progress::Bar;
use crate::{output, parts};

/// Refused files that are shown to people; all are in the JSON.
const FILES_SHOWN: usize = 5;

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    /// Tasks that were made.
    tasks: usize,
    /// Numbers that were tried.
    tried: usize,
    /// Numbers that came to no task, by reason.
    dropped: &'a BTreeMap<String, usize>,
    failed: usize,
    by_kind: BTreeMap<String, usize>,
    entities: usize,
    refused: &'a [Refused],
    bill: Bill,
    usd: f64,
    model: &'a str,
    out: &'a Path,
}

/// Makes the tasks and writes them.
///
/// # Errors
/// [`BadInput`] for what cannot work; an error where numbers are left that the same command takes up again.
pub(super) fn run(config: &Config, args: &SynthArgs, folder: &Path, json: bool) -> Result<()> {
    let bad = |error: hypereyes_synth::SynthError| BadInput::new(error.to_string());
    let mut found = Findings::default();
    found.told("", config.synth.check());
    found.told("sampling.train", config.sampling.train.check());
    found.under("reward_service", config.reward_service.judge.findings(&config.reward_service.judge_model));
    found.result()?;
    parts::telemetry()?;
    hypereyes_synth::metrics::describe();
    let runtime = parts::runtime()?;
    let shutdown = runtime.block_on(async { Shutdown::on_signal() }).context("cannot listen for signals")?;
    let author = runtime.block_on(author(config, "--entities"))?;
    let (known, refused) = known::read(folder, config.synth.entities.document_chars).map_err(bad)?;
    refused.iter().take(FILES_SHOWN).for_each(|one| output::note(&format!("warning: {}{}: {}", one.file, line(one), one.reason)));
    if refused.len() > FILES_SHOWN {
        output::note(&format!("warning: {} files and rows make no entity; --json lists all", refused.len()));
    }
    let growing = Growing::new(&args.out).map_err(|error| BadInput::new(error.to_string()))?;
    let (model, entities) = (author.model(), known.len());
    let judge = config.reward_service.judge.build(&config.reward_service.judge_model)?;
    let terms = terms(config, &known, author.client.model());
    agree(&args.out, QUESTIONS, &terms)?;
    let mut lines: BTreeMap<usize, Line> = BTreeMap::new();
    let mut durable = Durable::open(&args.out, QUESTIONS, |line: Line, _| drop(lines.insert(line.index, line))).map_err(bad)?;
    write_json(&args.out.join(SETTINGS), &terms)?;
    let workshop = Workshop { known, author, judge, config: config.synth.clone(), seed: config.seed };
    let mut written = Written::open(&args.out)?;
    let (of, bar) = (config.synth.tasks, Bar::new("synth", "tasks"));
    let open: Vec<usize> = (0..of).filter(|index| !lines.contains_key(index)).collect();
    let (mut failed, mut bill): (Vec<String>, Bill) = (vec![], Bill::default());
    let made = runtime.block_on(async {
        let at_once = config.synth.served.concurrency;
        let mut running = stream::iter(open).map(|index| workshop.make(index)).buffer_unordered(at_once);
        let mut in_a_row = 0;
        loop {
            let next = tokio::select! {
                biased;
                () = shutdown.cancelled() => None,
                next = running.next() => next,
            };
            let Some(next) = next else { return anyhow::Ok(()) };
            let kept = match &next {
                Ok(made) => &made.written,
                Err(outside) => &outside.written,
            };
            kept.iter().try_for_each(|one| written.keep(one)).map_err(anyhow::Error::msg)?;
            match next {
                Ok(made) => {
                    if let Some(picture) = &made.picture {
                        growing.picture(picture).and_then(|()| growing.sync())?;
                    }
                    durable.append(&made.line)?;
                    lines.insert(made.line.index, made.line);
                    in_a_row = 0;
                }
                Err(outside) => {
                    failed.push(outside.reason);
                    bill += outside.bill;
                    in_a_row += 1;
                    if in_a_row >= at_once.max(FAILED_IN_A_ROW) {
                        return Ok(());
                    }
                }
            }
            let tasks = lines.values().filter(|line| line.task.is_some()).count();
            bar.at(lines.len() + failed.len(), of, &format!("{tasks} made"));
        }
    });
    bar.done();
    made?;
    let tasks: Vec<Task> = lines.range(..of).filter_map(|(_, line)| line.task.clone()).collect();
    growing.finish(&tasks, std::iter::empty::<Result<Demonstration>>(), None)?;
    let (mut by_kind, mut dropped) = (BTreeMap::<String, usize>::new(), BTreeMap::<String, usize>::new());
    let tried = lines.range(..of).count();
    for (_, line) in lines.range(..of) {
        bill += line.bill;
        match &line.task {
            Some(task) => *by_kind.entry(task.kind.to_string()).or_default() += 1,
            None => *dropped.entry(line.dropped.clone()).or_default() += 1,
        }
    }
    let usd = bill.usd(config.synth.served.prices());
    if json {
        let (failed, out) = (failed.len(), args.out.as_path());
        output::json(&Report {
            tasks: tasks.len(),
            tried,
            dropped: &dropped,
            failed,
            by_kind,
            entities,
            refused: &refused,
            bill,
            usd,
            model: &model,
            out,
        });
    } else {
        let listed: Vec<String> = dropped.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        output::say(&format!("{} tasks of {tried} questions by {model} about {entities} entities in {}", tasks.len(), args.out.display()));
        if !listed.is_empty() {
            output::say(&format!("dropped: {}", listed.join(", ")));
        }
    }
    if tried < of {
        let why = failed.first().map(|why| format!(" ({why})")).unwrap_or_default();
        bail!("{} of {of} questions were not written{why}: the same command goes on, and asks for none again that was", of - tried);
    }
    Ok(())
}

fn line(refused: &Refused) -> String {
    refused.line.map(|line| format!(", line {line}")).unwrap_or_default()
}

/// What questions depend on. Their number is not among them: more of them are made with a larger one.
fn terms(config: &Config, known: &[known::Known], model: &str) -> Terms {
    let mut hasher = blake3::Hasher::new();
    for one in known {
        for part in [&one.name, &one.class, &one.text].into_iter().chain(&one.aliases) {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
    }
    let synth = &config.synth;
    Terms::default()
        .with("seed", &config.seed)
        .with("the entities", &hasher.finalize().to_hex().to_string())
        .with("the model", &model)
        .with("synth.entities", &synth.entities)
        .with("synth.pictures", &synth.pictures.to_vec())
        .with("synth.canvas", &synth.canvas.to_vec())
        .with("synth.level", &synth.level)
        .with("sampling.train", &config.sampling.train)
        .with("reward_service.judge", &config.reward_service.judge.about(&config.reward_service.judge_model))
}
