//! `hypereyes prepare`: what rooms on other machines start from, in one folder: the compiled-in models and the tasks.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use hypereyes_chassis::BadInput;
use hypereyes_dataset::TASKS;
use hypereyes_synth::Split;
use serde_json::json;

use super::synth;
use crate::config::Config;
use crate::output;
use crate::shipped::Shipped;

/// Arguments of `prepare`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  hypereyes prepare --out /data --set synth.tasks=400\n\n\
    The same settings make the same files on every machine: /data/policy, /data/teacher, /data/train, /data/held_out.")]
pub struct PrepareArgs {
    /// Folder to write into; what is there already stays.
    #[arg(long)]
    pub out: PathBuf,
}

/// Writes what is missing.
pub fn run(config: &Config, args: &PrepareArgs, json: bool) -> Result<()> {
    for shipped in [Shipped::Policy, Shipped::Teacher] {
        shipped.unpack(&args.out.join(shipped.label()))?;
    }
    let runtime = crate::parts::runtime()?;
    for (split, name) in [(Split::Train, "train"), (Split::HeldOut, "held_out")] {
        let folder = args.out.join(name);
        // The tasks' file is written last, so a set that has it is whole.
        if !folder.join(TASKS).exists() {
            runtime.block_on(synth::make(config, split))?.write(&folder).map_err(|error| BadInput::new(error.to_string()))?;
        }
    }
    let out = args.out.display().to_string();
    if json {
        output::json(&json!({"out": out, "train": config.synth.tasks, "held_out": config.synth.held_out, "seed": config.seed}));
    } else {
        output::say(&format!("{out}: policy, teacher, {} tasks to train on, {} held out", config.synth.tasks, config.synth.held_out));
    }
    Ok(())
}
