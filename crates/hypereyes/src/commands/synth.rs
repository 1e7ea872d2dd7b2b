//! `hypereyes synth`: tasks and cold-start demonstrations from a world pack.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use hypereyes_chassis::BadInput;
use hypereyes_chat::tiny::{self, TinySummary, TinyWords};
use hypereyes_search::World;
use hypereyes_synth::{DataSet, Split, Workshop, synthesise};

use crate::config::Config;
use crate::parts;
use crate::progress::Bar;

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
}

/// Makes the set, writes it and says what it holds.
pub fn run(config: &Config, args: &SynthArgs, json: bool) -> Result<()> {
    let split = if args.held_out { Split::HeldOut } else { Split::Train };
    let set = make(config, split)?;
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
    }
    Ok(())
}

/// Makes a set in memory. Demonstrations are tokenised with the tokenizer of the world's own words.
pub fn make(config: &Config, split: Split) -> Result<DataSet> {
    parts::runtime()?.block_on(make_here(config, split))
}

/// [`make`] inside a runtime.
pub async fn make_here(config: &Config, split: Split) -> Result<DataSet> {
    let world = parts::world(config)?;
    let folder = tempfile::tempdir()?;
    write_tokenizer(&world, folder.path())?;
    let setup = parts::setup(config, &world, parts::chat(folder.path())?);
    let workshop = Workshop { world, setup, config: config.synth.clone(), need_search: None };
    let bar = Bar::new("synth", "tasks");
    let made = synthesise(&workshop, config.seed, split, |progress| bar.at(progress.done, progress.of, "")).await;
    bar.done();
    Ok(made.map_err(|error| BadInput::new(error.to_string()))?)
}

/// Writes the tokenizer files of a tiny policy for this world.
pub fn write_tokenizer(world: &World, folder: &Path) -> Result<TinySummary> {
    let terms: Vec<String> = world.terms().into_iter().map(str::to_owned).collect();
    let relations: Vec<String> = world.relations().iter().map(|relation| relation.label.clone()).collect();
    Ok(tiny::write(folder, TinyWords { terms: &terms, relations: &relations }).map_err(|error| BadInput::new(error.to_string()))?)
}
