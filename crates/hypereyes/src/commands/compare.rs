//! `hypereyes compare`: two evaluations of the same tasks, rollout by rollout; or several in one table.
//!
//! In: folders that `eval --out` made. Out: differences with their intervals and what flipped; or systems by benchmarks, as papers print
//! them. It asks nobody.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use hypereyes_chassis::BadInput;
use hypereyes_eval::aligned::{csv, markdown};
use hypereyes_eval::systems::Measured;
use hypereyes_eval::{Comparison, Row, Systems, compare};
use serde::Serialize;
use serde_json::Value;

use crate::evaluation::loaded::Loaded;
use crate::evaluation::settings::{Differs, differences, short};
use crate::output;

/// Arguments of `compare`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  hypereyes compare evals/cold evals/trained               the second less the first, with intervals\n  \
    hypereyes compare evals/cold evals/trained --json\n  \
    hypereyes compare --table evals/cold-bcvl evals/trained-bcvl evals/trained-imeb > table.md\n  \
    hypereyes compare --table Cold=evals/cold-bcvl \"Our 8B\"=evals/trained-bcvl --csv\n\n\
    Of two, rollouts are paired by task and sample; brackets are 95 % intervals of the differences, and p is McNemar's test on the answers \
    that flipped. Evaluations of other tasks are refused. docs/evaluation.md says what can be compared with what."
)]
pub struct CompareArgs {
    /// Folders of `eval --out`: two of the same tasks; with --table any number, each as DIR or NAME=DIR.
    #[arg(required = true, value_name = "DIR")]
    pub evaluations: Vec<String>,
    /// Systems by benchmarks, `accuracy / rounds` in each cell, as Markdown (or --csv, or --json).
    #[arg(long)]
    pub table: bool,
    /// The table as comma-separated values.
    #[arg(long, requires = "table")]
    pub csv: bool,
}

/// Compares and prints.
///
/// # Errors
/// [`BadInput`] for a folder that holds no evaluation, and for two that are not of the same tasks.
pub fn run(args: &CompareArgs, json: bool) -> Result<()> {
    if args.table {
        return table(args, json);
    }
    let [first, second] = &args.evaluations[..] else {
        let text = format!("{} folders are named: give two to compare, or --table for a table of any number", args.evaluations.len());
        return Err(BadInput::new(text).into());
    };
    two(&Loaded::read(Path::new(first))?, &Loaded::read(Path::new(second))?, json)
}

/// What `--json` prints of two.
#[derive(Serialize)]
struct Answer<'a> {
    #[serde(flatten)]
    comparison: &'a Comparison,
    first: Side<'a>,
    second: Side<'a>,
    benchmark: String,
    /// Settings in which they differ, the policy's apart.
    differs: Vec<Differs>,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct Side<'a> {
    folder: &'a Path,
    model: String,
    /// Rollouts with a verdict, with tools.
    verdicts: usize,
}

impl<'a> Side<'a> {
    fn of(one: &'a Loaded) -> Self {
        let verdicts = one.items.iter().filter(|item| item.is_finished() && !item.closed_book).count();
        Self { folder: &one.folder, model: one.model(), verdicts }
    }
}

fn two(first: &Loaded, second: &Loaded, json: bool) -> Result<()> {
    let differs = differences(&first.settings, &second.settings);
    let of = |table: &str| differs.iter().find(|one| one.key == table || one.key.starts_with(&format!("{table}.")));
    if let Some(other) = of("benchmark").or_else(|| of("tasks")) {
        return Err(BadInput::new(format!(
            "{} and {} are not of the same tasks: {} is {} and {}",
            first.folder.display(),
            second.folder.display(),
            other.key,
            short(&other.first),
            short(&other.second)
        ))
        .into());
    }
    let comparison = compare(&first.of(false), &second.of(false));
    if comparison.items == 0 {
        let text = format!("{} and {} have no rollout on which both have a verdict", first.folder.display(), second.folder.display());
        return Err(BadInput::new(text).into());
    }
    let mut warnings: Vec<String> = vec![];
    if of("judge").is_some() {
        let judge = |one: &Loaded| judge(one).to_string();
        warnings.push(format!("the judges differ, and with them what is right: {} and {}", judge(first), judge(second)));
    }
    for one in [first, second] {
        let (all, finished) = one.progress();
        if finished < all {
            warnings
                .push(format!("{}: {finished} of {all} rollouts have a verdict; `hypereyes eval` goes on with it", one.folder.display()));
        }
    }
    let differs: Vec<Differs> = differs.into_iter().filter(|one| !one.key.starts_with("model.")).collect();
    warnings.iter().for_each(|warning| output::note(&format!("warning: {warning}")));
    let (names, benchmark) = (names(first, second), first.benchmark());
    if json {
        output::json(&Answer { comparison: &comparison, first: Side::of(first), second: Side::of(second), benchmark, differs, warnings });
        return Ok(());
    }
    output::say(&format!("{} tasks of {benchmark}, {} rollouts of both", comparison.tasks, comparison.items));
    output::say(comparison.told(&names[0], &names[1]).trim_end());
    for one in differs.iter().filter(|one| !one.key.starts_with("judge")) {
        output::say(&format!("settings differ: {} is {} and {}", one.key, short(&one.first), short(&one.second)));
    }
    Ok(())
}

/// What two evaluations are called in a table: the last parts of their folders, or first and second where those are the same.
fn names(first: &Loaded, second: &Loaded) -> [String; 2] {
    let last = |one: &Loaded| one.folder.file_name().map(|name| name.to_string_lossy().into_owned());
    match (last(first), last(second)) {
        (Some(first), Some(second)) if first != second => [first, second],
        _ => ["first".to_owned(), "second".to_owned()],
    }
}

fn judge(one: &Loaded) -> &Value {
    one.settings.get("judge").unwrap_or(&Value::Null)
}

/// Systems by benchmarks.
fn table(args: &CompareArgs, json: bool) -> Result<()> {
    let mut measured = vec![];
    let mut loaded: Vec<Loaded> = vec![];
    for text in &args.evaluations {
        let (name, path) = named(text);
        let one = Loaded::read(&path)?;
        let row = |closed_book: bool| Row::of(&one.of(closed_book), one.settings.get("seed").and_then(Value::as_u64).unwrap_or(0));
        measured.push(Measured {
            system: name.unwrap_or_else(|| one.model()),
            benchmark: one.benchmark(),
            with_tools: row(false),
            closed_book: row(true),
        });
        loaded.push(one);
    }
    let twice = |(system, benchmark)| {
        BadInput::new(format!("{system} is there twice on {benchmark}: name evaluations of one policy apart, as NAME=DIR"))
    };
    let table = Systems::of(&measured).map_err(twice)?;
    let warnings = apart(&loaded, &measured);
    warnings.iter().for_each(|warning| output::note(&format!("warning: {warning}")));
    match (json, args.csv) {
        (true, _) => {
            let mut value = serde_json::to_value(&table)?;
            value["warnings"] = warnings.into();
            output::json(&value);
        }
        (false, true) => output::say(csv(&table.cells()).trim_end()),
        (false, false) => output::say(markdown(&table.cells()).trim_end()),
    }
    Ok(())
}

/// A folder, or `NAME=DIR`.
fn named(text: &str) -> (Option<String>, PathBuf) {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !Path::new(text).exists() => (Some(name.to_owned()), path.into()),
        _ => (None, text.into()),
    }
}

/// Why cells of one column are not to be compared: other tasks, other judges, other limits, or unfinished.
fn apart(loaded: &[Loaded], measured: &[Measured]) -> Vec<String> {
    let mut warnings = vec![];
    for (at, one) in loaded.iter().enumerate() {
        let (all, finished) = one.progress();
        if finished < all {
            warnings.push(format!("{}: {finished} of {all} rollouts have a verdict", one.folder.display()));
        }
        let before = (0..at).find(|before| measured[*before].benchmark == measured[at].benchmark);
        let Some(before) = before.map(|before| &loaded[before]) else { continue };
        let differs = differences(&before.settings, &one.settings);
        for table in ["tasks", "judge", "rollout", "max_picture_tokens", "search"] {
            if let Some(other) = differs.iter().find(|other| other.key.split('.').next() == Some(table)) {
                warnings.push(format!(
                    "{} and {} differ in {}: {} and {}",
                    before.folder.display(),
                    one.folder.display(),
                    other.key,
                    short(&other.first),
                    short(&other.second)
                ));
            }
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_may_have_names() {
        assert_eq!(named("evals/a"), (None, "evals/a".into()));
        assert_eq!(named("Our 8B=evals/a=b"), (Some("Our 8B".to_owned()), "evals/a=b".into()));
        assert_eq!(named("=evals/a"), (None, "=evals/a".into()));
        let folder = tempfile::tempdir().expect("a temporary folder");
        let odd = folder.path().join("x=y");
        std::fs::create_dir(&odd).expect("made");
        assert_eq!(named(&odd.display().to_string()), (None, odd));
    }
}
