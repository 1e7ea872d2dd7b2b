//! `hypereyes data export`: a task set as one parquet file with the columns that verl's, HyperEyes' and MMSearch-R1's readers ask for.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use hypereyes_chassis::BadInput;
use hypereyes_dataset::export::{Options, export};
use hypereyes_outside::files;

use crate::output;
use crate::progress::Bar;

/// Bytes of a system message at most.
const MOST_SYSTEM: u64 = 1 << 20;

/// Arguments of `data export`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  hypereyes data export sets/train --out train.parquet\n  \
    hypereyes data export runs/one/tasks/held_out --out test.parquet --split test --system system.txt\n\n\
    Columns: data_source, prompt[{role, content}], images[{bytes, path}], ability, reward_model{style, ground_truth, candidate_answers},\n\
    extra_info{split, index, question, answer, type, tool_call, parallel, hypereyes}. What these have no place for is in\n\
    extra_info.hypereyes, from which `data import` makes the same tasks again.")]
pub struct ExportArgs {
    /// The task set.
    #[arg(value_name = "DIR")]
    pub tasks: PathBuf,
    /// The file, which is not there yet.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// What extra_info.split says.
    #[arg(long, value_name = "NAME", default_value = "train")]
    pub split: String,
    /// A file with the system message that stands before each question; tasks that were published with a prompt keep theirs.
    #[arg(long, value_name = "FILE")]
    pub system: Option<PathBuf>,
}

/// Exports.
///
/// # Errors
/// [`BadInput`] where the set cannot be read, or the file cannot be where it should.
pub fn run(args: &ExportArgs, json: bool) -> Result<()> {
    let system = args.system.as_ref().map(|path| {
        files::read_to_string(path, MOST_SYSTEM).map_err(|error| BadInput::new(format!("--system: {}: {error}", path.display())))
    });
    let options = Options { split: args.split.clone(), system: system.transpose()? };
    let bar = Bar::new("export", "tasks");
    let exported = export(&args.tasks, &args.out, &options, &mut |done, of| bar.at(done, of, ""));
    bar.done();
    let exported = exported.map_err(|error| BadInput::new(error.to_string()))?;
    if json {
        let mut value = serde_json::to_value(&exported)?;
        value["tasks"] = exported.rows.into();
        value["format"] = "hypereyes".into();
        value["out"] = args.out.display().to_string().into();
        output::json(&value);
    } else {
        output::say(&format!(
            "{}: {} rows, {} pictures, {} references, {:.1} MB",
            args.out.display(),
            exported.rows,
            exported.pictures,
            exported.references,
            exported.bytes as f64 / 1e6
        ));
    }
    Ok(())
}
