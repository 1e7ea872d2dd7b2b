//! The command line: parse, load the configuration, run one command.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};
use hypereyes_chassis::{BadInput, config};

use crate::commands::{sft, synth};
use crate::config::Config;

/// Train parallel multimodal search agents: search wider, not longer.
#[derive(Parser, Debug)]
#[command(name = "hypereyes", version, about, long_about = None)]
pub struct Cli {
    /// Settings file (TOML).
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// One setting, such as `--set seed=3` or `--set synth.tasks=500`. May be repeated; wins over file and environment.
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// Print the result as JSON on stdout.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Make tasks and cold-start demonstrations from a world pack.
    Synth(synth::SynthArgs),
    /// Train a policy on demonstrations (cold start).
    Sft(sft::SftArgs),
}

/// Runs a parsed command line.
pub fn run(cli: &Cli) -> Result<()> {
    let config: Config = config::load(Config::default(), cli.config.as_deref(), "HYPEREYES", &cli.sets)
        .map_err(|error| BadInput::new(error.to_string()))?;
    match &cli.command {
        Command::Synth(args) => synth::run(&config, args, cli.json),
        Command::Sft(args) => sft::run(&config, args, cli.json),
    }
}
