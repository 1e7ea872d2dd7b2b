//! `hypereyes data import` and `data inspect`: from rows to a task set, or to what one would be.
//!
//! In: files, and how they are read. Out: a folder that `up`, `eval` and services read, and every row that is no task with its reason.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use hypereyes_chassis::BadInput;
use hypereyes_dataset::DataError;
use hypereyes_dataset::import::{self, Format, Keys, Progress, Request, Source, Summary};
use hypereyes_dataset::loaders::Refused;
use hypereyes_pictures::Limits;

use super::fetch::Fetcher;
use crate::output;
use crate::progress::Bar;

/// Parts of the bar: files differ in size, and rows are not known before.
const PARTS: f64 = 1000.0;
/// Rows that are shown to people of each list; all are in the JSON.
const SHOWN: usize = 5;
/// Kinds that are shown to people.
const KINDS_SHOWN: usize = 8;

const FORMATS: &str = "Rows are told apart by their columns; --format says it where they do not:\n  \
    verl         prompt, images, reward_model.ground_truth, extra_info\n  \
    hypereyes    the same, with the reference in extra_info.tool_call and extra_info.parallel\n  \
    mmsearch-r1  the same, with reward_model.candidate_answers\n  \
    slime        prompt or input, label, metadata, images (also Relax; --input-key and the others name other columns)\n  \
    tasks        what a line of tasks.jsonl has\n  \
    plain        question, answer or answers, image or images\n\n\
    A picture is bytes, {bytes, path}, a list or an object of numbers, base64, a data URI, or a path below the folder of its file.\n\
    docs/data.md has the rest.";

/// How rows are read.
#[derive(Args, Debug)]
pub struct ReadArgs {
    /// Files of rows, folders of such files, or a part of a file: FILE@[100:200].
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<Source>,
    /// The layout of the rows, where it is not to be told from their columns.
    #[arg(long, value_name = "NAME")]
    pub format: Option<Format>,
    /// The column with what is asked, a text or messages (slime).
    #[arg(long, value_name = "COLUMN")]
    pub input_key: Option<String>,
    /// The column with what is right (slime).
    #[arg(long, value_name = "COLUMN")]
    pub label_key: Option<String>,
    /// The column with what is kept beside (slime).
    #[arg(long, value_name = "COLUMN")]
    pub metadata_key: Option<String>,
    /// The column with the pictures.
    #[arg(long, value_name = "COLUMN")]
    pub images_key: Option<String>,
    /// A task set that is held out: tasks that are in both are reported.
    #[arg(long, value_name = "DIR")]
    pub held_out: Option<PathBuf>,
    /// Follow paths of pictures that lead out of the folder of their file. Only for files of people who may read all that you may.
    #[arg(long)]
    pub any_path: bool,
    /// Fetch pictures of which a row has only the http(s) address. Only public addresses are reached.
    #[arg(long)]
    pub fetch_pictures: bool,
    /// A host, or host:port, that is reached although its address is not public. May be repeated.
    #[arg(long, value_name = "HOST", requires = "fetch_pictures")]
    pub fetch_host: Vec<String>,
}

/// Arguments of `data import`.
#[derive(Args, Debug)]
#[command(after_help = format!("Examples:\n  hypereyes data import train.parquet --out sets/train\n  \
    hypereyes data import train.parquet --out sets/train --held-out sets/held_out\n  \
    hypereyes data import 'train.parquet@[0:1000]' more.jsonl.gz --out sets/mixed --json\n  \
    hypereyes data import rows.jsonl --out sets/mine --input-key question --label-key gold\n\n{FORMATS}"))]
pub struct ImportArgs {
    /// What is read.
    #[command(flatten)]
    pub read: ReadArgs,
    /// The task set: a folder that is not there yet, or is empty.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// Arguments of `data inspect`.
#[derive(Args, Debug)]
#[command(after_help = format!("Examples:\n  hypereyes data inspect train.parquet\n  \
    hypereyes data inspect data/*.parquet --held-out sets/held_out --json\n  hypereyes data inspect sets/train\n\n{FORMATS}"))]
pub struct InspectArgs {
    /// What is read.
    #[command(flatten)]
    pub read: ReadArgs,
}

/// Imports.
///
/// # Errors
/// [`BadInput`] where a file cannot be read, or the set cannot be where it should.
pub fn run(args: &ImportArgs, json: bool) -> Result<()> {
    let began = Instant::now();
    let summary = read(&args.read, |request, tell| import::import(request, &args.out, tell))?;
    told(&summary, Some(&args.out));
    if json {
        let mut value = serde_json::to_value(&summary)?;
        value["out"] = args.out.display().to_string().into();
        value["seconds"] = began.elapsed().as_secs_f64().into();
        output::json(&value);
    } else {
        output::say(&format!("{}: {}", args.out.display(), counts(&summary)));
    }
    Ok(())
}

/// Inspects.
///
/// # Errors
/// As [`run`].
pub fn inspect(args: &InspectArgs, json: bool) -> Result<()> {
    let summary = read(&args.read, |request, tell| import::inspect(request, tell))?;
    told(&summary, None);
    if json {
        output::json(&summary);
        return Ok(());
    }
    for file in &summary.files {
        let format = file.format.map_or("no layout", Format::name);
        output::say(&format!("{}: {format}, {} rows, {} tasks", file.file, file.rows, file.tasks));
    }
    let mut kinds: Vec<(&String, &u64)> = summary.kinds.iter().collect();
    kinds.sort_by(|one, other| other.1.cmp(one.1).then(one.0.cmp(other.0)));
    let shown: Vec<String> = kinds.iter().take(KINDS_SHOWN).map(|(kind, count)| format!("{kind} {count}")).collect();
    if !shown.is_empty() {
        let more = if kinds.len() > shown.len() { format!(", and {} more", kinds.len() - shown.len()) } else { String::new() };
        output::say(&format!("kinds: {}{more}", shown.join(", ")));
    }
    output::say(&counts(&summary));
    Ok(())
}

type Tell<'a> = dyn FnMut(Progress<'_>) + 'a;

fn read(args: &ReadArgs, work: impl FnOnce(&Request<'_>, &mut Tell<'_>) -> Result<Summary, DataError>) -> Result<Summary> {
    if let Some(format) = args.format.filter(|format| *format != Format::Slime) {
        let keys = [("--input-key", &args.input_key), ("--label-key", &args.label_key), ("--metadata-key", &args.metadata_key)];
        if let Some((flag, _)) = keys.into_iter().find(|(_, key)| key.is_some()) {
            return Err(BadInput::new(format!("{flag} is read with --format slime, not with {format}: leave one of them out")).into());
        }
    }
    let fetcher = args.fetch_pictures.then(|| Fetcher::new(&args.fetch_host)).transpose()?;
    let fetch = fetcher.as_ref().map(|fetcher| |address: &str| fetcher.get(address, Limits::default().max_bytes));
    let request = Request {
        sources: args.files.clone(),
        format: args.format,
        keys: Keys {
            input: args.input_key.clone(),
            label: args.label_key.clone(),
            metadata: args.metadata_key.clone(),
            images: args.images_key.clone(),
        },
        anywhere: args.any_path,
        fetch: fetch.as_ref().map(|fetch| fetch as &import::Fetch<'_>),
        held_out: args.held_out.clone(),
        limits: Limits::default(),
    };
    let bar = Bar::new("rows", "‰");
    let mut tell = |progress: Progress<'_>| {
        let refused = if progress.refused == 0 { String::new() } else { format!(", {} refused", progress.refused) };
        bar.at((progress.share * PARTS) as usize, PARTS as usize, &format!("{} tasks{refused}", progress.tasks));
    };
    let summary = work(&request, &mut tell);
    bar.done();
    summary.map_err(|error| BadInput::new(error.to_string()).into())
}

fn counts(summary: &Summary) -> String {
    let Summary { rows, tasks, pictures, refused_total, duplicates, references, .. } = summary;
    let of = if summary.format.is_empty() { String::new() } else { format!(" ({})", summary.format) };
    format!(
        "{rows} rows{of}, {tasks} tasks, {pictures} pictures, {references} references, {refused_total} refused, of which {duplicates} duplicates"
    )
}

/// Says what is not as it could be: the first few rows, and where all of them stand.
fn told(summary: &Summary, out: Option<&PathBuf>) {
    let lines = |what: &str, rows: &[Refused]| {
        for Refused { file, row, reason } in rows.iter().take(SHOWN) {
            output::note(&format!("{what}: {file} row {row}: {reason}"));
        }
    };
    lines("refused", &summary.refused);
    if summary.refused_total > SHOWN as u64 {
        let all = match out {
            Some(out) => format!("all are listed in {}", out.join("refused.jsonl").display()),
            None => "--json lists them".to_owned(),
        };
        output::note(&format!("{} rows are refused; {all}", summary.refused_total));
    }
    lines("warning", &summary.warnings);
    if summary.warnings_total > SHOWN as u64 {
        output::note(&format!("{} warnings; --json lists them", summary.warnings_total));
    }
    for one in summary.overlap.iter().take(SHOWN) {
        output::note(&format!("held out as well: {} row {}: task {} is {} there", one.file, one.row, one.task, one.held_out));
    }
    match summary.overlaps {
        Some(0) => output::note("no task is held out as well"),
        Some(count) => {
            output::note(&format!("{count} of {} tasks are held out as well: what is measured on them is no measure", summary.tasks))
        }
        None => {}
    }
    if summary.rows > 0 && summary.tasks == 0 {
        output::note("no row is a task: nothing can be trained or measured on this");
    }
}
