//! `hypereyes index build`: documents and pictures of one's own, made into an index that `index serve` serves.
//!
//! In: files, a folder of pictures, the policy whose vision tower sees them. Out: the index's folder, and what was not taken.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use hypereyes_chassis::BadInput;
use hypereyes_corpus::{Error, Inputs, Progress, Refused, Sight};
use hypereyes_miniature::shipped::Shipped;
use serde_json::json;

use crate::config::Config;
use crate::progress::Bar;
use crate::{output, parts};

/// Parts of the bar: files differ in size, and rows are not known before.
const PARTS: f64 = 1000.0;

/// Arguments of `index build`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  hypereyes index build --documents wiki.jsonl.gz --out wiki\n  \
    hypereyes index build --documents docs/*.parquet --pictures photos --out corpus\n  \
    hypereyes index build --pictures photos --out photos.index --set policy=policies/mine\n\n\
    Documents are rows of .parquet and .jsonl (.jsonl.gz) files with id, title, text (or contents, as Search-R1 has it) and url, of\n\
    which only the text must be there, or whole .txt and .md files. Pictures are .png and .jpg files; a file pictures.jsonl among them\n\
    may say what they are: {\"file\", \"title\", \"text\", \"url\"}. Rows and pictures that cannot be taken are listed in refused.jsonl.")]
pub struct BuildArgs {
    /// Files of documents: parquet, JSON lines, text.
    #[arg(long, value_name = "FILES", num_args = 1.., required_unless_present = "pictures")]
    pub documents: Vec<PathBuf>,
    /// A folder of pictures, folders in it included.
    #[arg(long, value_name = "DIR")]
    pub pictures: Option<PathBuf>,
    /// The index: a folder that is not there yet, or is empty.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// Builds.
///
/// # Errors
/// [`BadInput`] where nothing can be made of what is given.
pub fn run(config: &Config, args: &BuildArgs, json: bool) -> Result<()> {
    let began = Instant::now();
    let sight = args.pictures.as_ref().map(|_| sight(config)).transpose().map_err(refusal)?;
    let inputs = Inputs { documents: args.documents.clone(), pictures: args.pictures.clone() };
    let bars = [Bar::new("documents", "‰"), Bar::new("pictures", "pictures")];
    let mut tell = |progress| match progress {
        Progress::Documents { taken, refused, share } => {
            bars[0].at((share * PARTS) as usize, PARTS as usize, &format!("{taken} taken{}", also(refused)));
        }
        Progress::Joining => bars[0].note("documents: joining what was indexed"),
        Progress::Pictures { done, of, refused } => bars[1].at(done, of, also(refused).trim_start_matches(", ")),
        Progress::Sealing => bars[1].note("writing to disk"),
    };
    let built = hypereyes_corpus::build(&inputs, &args.out, sight.as_ref(), &mut tell).map_err(refusal);
    bars.iter().for_each(Bar::done);
    let built = built?;
    told(&built.refused);
    let seconds = began.elapsed().as_secs_f64();
    if json {
        let mut value = serde_json::to_value(&built)?;
        value["out"] = args.out.display().to_string().into();
        value["seconds"] = seconds.into();
        value["refused"] = json!(built.refused.counts);
        output::json(&value);
    } else {
        output::say(&format!(
            "{}: {} documents, {} pictures, {:.1} MB in {seconds:.1} s\nserve it: hypereyes index serve --index {0}",
            args.out.display(),
            built.documents,
            built.pictures,
            built.bytes as f64 / 1e6
        ));
    }
    Ok(())
}

/// What sees pictures: the tower of `policy`, where `engine.device` says.
///
/// # Errors
/// [`Error::Input`] where there is no such policy.
pub fn sight(config: &Config) -> Result<Sight, Error> {
    let device = config.engine.device;
    if !config.policy.as_os_str().is_empty() {
        return Sight::load(&config.policy, device);
    }
    let scratch = tempfile::tempdir().map_err(|source| Error::Io { path: std::env::temp_dir(), source })?;
    let folder = scratch.path().join(Shipped::Policy.label());
    parts::unpack(Shipped::Policy, &folder).map_err(|error| Error::Input(error.to_string()))?;
    Sight::load(&folder, device)
}

/// What kind of failure it is.
pub fn refusal(error: Error) -> anyhow::Error {
    match error {
        Error::Input(_) | Error::Damaged { .. } => BadInput::new(error.to_string()).into(),
        Error::Io { ref source, .. } if source.kind() == std::io::ErrorKind::NotFound => BadInput::new(error.to_string()).into(),
        Error::Io { .. } | Error::Failed(_) => error.into(),
    }
}

fn also(refused: u64) -> String {
    if refused == 0 { String::new() } else { format!(", {refused} refused") }
}

/// Says what was not taken: the first few, and where all of them stand.
fn told(refused: &Refused) {
    for line in &refused.first {
        let row = line.row.map_or(String::new(), |row| format!(" row {row}"));
        output::note(&format!("refused ({}): {}{row}: {}", line.reason, line.file, line.message));
    }
    if refused.total() > 0 {
        let counts: Vec<String> = refused.counts.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        output::note(&format!("{} refused ({}); all are listed in refused.jsonl of the index", refused.total(), counts.join(", ")));
    }
}
