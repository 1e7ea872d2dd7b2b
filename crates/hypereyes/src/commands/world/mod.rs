//! `hypereyes world`: world packs of one's own. One file per verb.

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::config::Config;

mod check;

/// Arguments of `world`.
#[derive(Args, Debug)]
pub struct WorldArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: WorldCommand,
}

/// The verbs.
#[derive(Subcommand, Debug)]
pub enum WorldCommand {
    /// Say what is wrong with a world pack, which questions can be made of it, and which policy can read it.
    Check(check::CheckArgs),
}

/// Runs one.
///
/// # Errors
/// As the verb's.
pub fn run(config: &Config, args: &WorldArgs, json: bool) -> Result<()> {
    match &args.command {
        WorldCommand::Check(args) => check::run(config, args, json),
    }
}
