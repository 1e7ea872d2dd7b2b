//! `hypereyes synth`: tasks and cold-start demonstrations from a world pack.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use hypereyes_chassis::BadInput;
use hypereyes_dataset::DataSet;
use hypereyes_domain::PolicyVersion;
use hypereyes_miniature::tokenizer;
use hypereyes_scoring::AliasJudge;
use hypereyes_synth::{Split, Workshop, need_search, synthesise};
use hypereyes_teacher_service::vocabulary::Vocabulary;

use crate::config::Config;
use crate::progress::Bar;
use crate::{check, parts};

/// Arguments of `synth`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  hypereyes synth --out data/train\n  hypereyes synth --out data/held_out --held-out --set synth.held_out=500\n  \
    hypereyes synth --out data/wide --set synth.explorer.serial=0 --set synth.explorer.pairs=0 --set synth.explorer.parallel=1"
)]
pub struct SynthArgs {
    /// Folder to write: tasks.jsonl, demonstrations.jsonl, pictures/.
    #[arg(long)]
    pub out: PathBuf,
    /// Make the held-out set (other layers, other combinations of entities) instead of the training set.
    #[arg(long)]
    pub held_out: bool,
    /// Leave out tasks that this policy answers without tools (need-search filter). On counterfactual layers hardly any is.
    #[arg(long, value_name = "DIR")]
    pub need_search: Option<PathBuf>,
}

/// Closed-book tries per task of the need-search filter; one right answer in them may be luck, two are knowledge.
const CLOSED_BOOK_TRIES: u64 = 4;

/// Makes the set, writes it and says what it holds.
pub fn run(config: &Config, args: &SynthArgs, json: bool) -> Result<()> {
    check::tasks(config).result()?;
    let split = if args.held_out { Split::HeldOut } else { Split::Train };
    let set = parts::runtime()?.block_on(make_with(config, split, args.need_search.as_deref()))?;
    set.write(&args.out).map_err(|error| BadInput::new(error.to_string()))?;
    let stats = set.stats();
    if json {
        crate::output::json(&stats);
    } else {
        crate::output::say(&format!(
            "{} tasks ({} select, {} hop, {} textual), demonstrations of {:.2} rounds and {:.0} tokens in {}",
            stats.tasks,
            stats.visual_select,
            stats.visual_hop,
            stats.textual,
            stats.mean_rounds,
            stats.mean_tokens,
            args.out.display()
        ));
        let dropped: Vec<String> = stats.dropped.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        if !dropped.is_empty() {
            crate::output::say(&format!("passed over: {}", dropped.join(", ")));
        }
    }
    Ok(())
}

/// Makes a set in memory. Demonstrations are tokenised with the tokenizer of the world's own words.
pub async fn make(config: &Config, split: Split) -> Result<DataSet> {
    make_with(config, split, None).await
}

async fn make_with(config: &Config, split: Split, knows: Option<&Path>) -> Result<DataSet> {
    let world = parts::world(config)?;
    let folder = tempfile::tempdir()?;
    let words = tokenizer::of_world(&world, folder.path()).map_err(|error| BadInput::new(error.to_string()))?;
    let setup = parts::setup(config, &world, parts::chat(folder.path())?)?;
    let need_search = match knows {
        Some(model) => {
            let (setup, engine) = parts::engine(config, &world, model, PolicyVersion::default())?;
            Some(need_search(setup, engine, Arc::new(AliasJudge), config.sampling.train.sampling(), CLOSED_BOOK_TRIES, 1))
        }
        None => None,
    };
    let workshop = Workshop { world, setup, config: config.synth.clone(), need_search };
    let bar = Bar::new("synth", "tasks");
    let made = synthesise(&workshop, config.seed, split, |progress| bar.at(progress.done, progress.of, "")).await;
    bar.done();
    let mut made = made.map_err(|error| BadInput::new(error.to_string()))?;
    made.tokenizer = Some(Vocabulary::load(folder.path(), words.image).map_err(BadInput::new)?.digest());
    Ok(made)
}
