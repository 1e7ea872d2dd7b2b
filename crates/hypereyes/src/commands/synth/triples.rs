//! `hypereyes synth --triples`: textual tasks from a file of triples. In: the file, settings; with `--reword` a model that words questions
//! better. Out: a task folder. Which questions are asked is settled before a model sees them.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, bail};
use futures::{StreamExt, stream};
use hypereyes_chassis::{BadInput, Findings};
use hypereyes_dataset::{Demonstration, Growing};
use hypereyes_domain::Task;
use hypereyes_synth::author::{Author, Unanswered};
use hypereyes_synth::graph::{self, Drawn, Graph, Query, Read, Refused, reword};
use hypereyes_synth::seeds;
use hypereyes_synth::served::Bill;
use serde::Serialize;

use super::SynthArgs;
use super::writer::{FAILED_IN_A_ROW, Written, author};
use crate::commands::EngineArgs;
use crate::config::Config;
use crate::progress::Bar;
use crate::{output, parts};

/// Refused lines that are shown to people; all are in the JSON.
const LINES_SHOWN: usize = 5;

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    tasks: usize,
    by_kind: BTreeMap<String, usize>,
    /// Triples, and what is linked by them.
    triples: usize,
    entities: usize,
    duplicates: usize,
    refused: &'a [Refused],
    passed_over: &'a BTreeMap<&'static str, usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reworded: Option<&'a Reworded>,
    out: &'a Path,
}

/// What came of rewording.
#[derive(Clone, Debug, Default, Serialize)]
struct Reworded {
    /// Questions in the model's words.
    reworded: usize,
    /// Questions that stay as they were, by reason.
    kept: BTreeMap<&'static str, usize>,
    /// Questions of which the server said nothing, and that stay as they were.
    failed: usize,
    bill: Bill,
    usd: f64,
    model: String,
}

/// Makes the tasks and writes them.
///
/// # Errors
/// [`BadInput`] for settings, and a file that is none of triples; an error where the graph has too few questions.
pub(super) fn run(config: &Config, args: &SynthArgs, file: &Path, json: bool) -> Result<()> {
    let bad = |error: hypereyes_synth::SynthError| BadInput::new(error.to_string());
    config.synth.check().map_err(bad)?;
    if args.reword {
        let mut found = Findings::default();
        found.told("sampling.train", config.sampling.train.check());
        found.result()?;
    }
    if !args.reword && args.engine != EngineArgs::default() {
        return Err(BadInput::new("--engine and --url say who words questions for --reword: add it, or leave them out").into());
    }
    parts::telemetry()?;
    hypereyes_synth::metrics::describe();
    let runtime = parts::runtime()?;
    let author = if args.reword { Some(runtime.block_on(author(config, "--reword"))?) } else { None };
    let Read { graph, triples, duplicates, refused } = Graph::read(file, &config.synth.graph.alias).map_err(bad)?;
    refused
        .iter()
        .take(LINES_SHOWN)
        .for_each(|one| output::note(&format!("warning: {}, line {}: {}", file.display(), one.line, one.reason)));
    if refused.len() > LINES_SHOWN {
        output::note(&format!("warning: {} lines are refused; --json lists all", refused.len()));
    }
    let bar = Bar::new("synth", "tasks");
    let drawn = graph::draw(&graph, &config.synth, config.seed, |made| bar.at(made, config.synth.tasks, ""));
    bar.done();
    let Drawn { mut tasks, passed_over } =
        drawn.map_err(|error| BadInput::new(format!("{error}; the triples hold too few fair questions: lower synth.tasks")))?;
    let growing = Growing::new(&args.out).map_err(|error| BadInput::new(error.to_string()))?;
    let reworded = match author {
        Some(author) => Some(runtime.block_on(words(config, &author, &graph, &mut tasks, &args.out))?),
        None => None,
    };
    let tasks: Vec<Task> = tasks.into_iter().map(|(task, _)| task).collect();
    growing.finish(&tasks, std::iter::empty::<Result<Demonstration>>(), None)?;
    let mut by_kind: BTreeMap<String, usize> = BTreeMap::new();
    tasks.iter().for_each(|task| *by_kind.entry(task.kind.to_string()).or_default() += 1);
    if json {
        let (entities, out, reworded) = (graph.len(), args.out.as_path(), reworded.as_ref());
        output::json(&Report {
            tasks: tasks.len(),
            by_kind,
            triples,
            entities,
            duplicates,
            refused: &refused,
            passed_over: &passed_over,
            reworded,
            out,
        });
    } else {
        let listed = |counts: &mut dyn Iterator<Item = (String, usize)>| {
            counts.map(|(what, count)| format!("{count} {what}")).collect::<Vec<_>>().join(", ")
        };
        output::say(&format!(
            "{} tasks ({}) from {triples} triples in {}",
            tasks.len(),
            listed(&mut by_kind.into_iter()),
            args.out.display()
        ));
        output::say(&format!("passed over: {}", listed(&mut passed_over.iter().map(|(reason, count)| ((*reason).to_owned(), *count)))));
        if let Some(Reworded { reworded, kept, failed, model, .. }) = &reworded {
            output::say(&format!("{reworded} questions in the words of {model}, {} as they were", kept.values().sum::<usize>() + failed));
        }
    }
    if let Some(one) = reworded.filter(|one| one.failed > 0) {
        bail!(
            "{} questions stay in the template's words, because {} did not answer: the same command asks again for all",
            one.failed,
            one.model
        );
    }
    Ok(())
}

/// Has the model word every question.
async fn words(config: &Config, author: &Author, graph: &Graph, tasks: &mut [(Task, Query)], out: &Path) -> Result<Reworded> {
    let mut written = Written::open(out)?;
    let mut result = Reworded { model: author.model(), ..Reworded::default() };
    let bar = Bar::new("reword", "questions");
    let of = tasks.len();
    let ask = |(at, (task, query)): (usize, &(Task, Query))| {
        let (task, query) = (task.clone(), query.clone());
        async move {
            let seed = seeds::of_try(config.seed, task.id.as_str(), 0, 0);
            (at, reword::reword(author, graph, &query, &task.question, &task.answers, seed).await)
        }
    };
    let asked: Vec<_> = tasks.iter().enumerate().map(ask).collect();
    let at_once = config.synth.served.concurrency;
    let mut running = stream::iter(asked).buffer_unordered(at_once);
    let (mut done, mut in_a_row, mut said) = (0, 0, vec![]);
    while let Some((at, wrote)) = running.next().await {
        done += 1;
        match wrote {
            Ok(wrote) => {
                in_a_row = 0;
                wrote.written.iter().try_for_each(|one| written.keep(one)).map_err(anyhow::Error::msg)?;
                result.bill += wrote.bill;
                match wrote.value {
                    Ok(question) => said.push((at, question)),
                    Err(why) => *result.kept.entry(why).or_default() += 1,
                }
            }
            Err(Unanswered { missed, written: replies, bill }) => {
                tracing::warn!(%missed, "a question was not worded");
                replies.iter().try_for_each(|one| written.keep(one)).map_err(anyhow::Error::msg)?;
                result.bill += bill;
                result.failed += 1;
                in_a_row += 1;
            }
        }
        if in_a_row >= at_once.max(FAILED_IN_A_ROW) {
            // Nobody is there: the others stay as they are, too.
            result.failed += of - done;
            break;
        }
        bar.at(done, of, &format!("{} worded", said.len()));
    }
    drop(running);
    bar.done();
    result.reworded = said.len();
    said.into_iter().for_each(|(at, question)| tasks[at].0.question = question);
    result.usd = result.bill.usd(config.synth.served.prices());
    Ok(result)
}
