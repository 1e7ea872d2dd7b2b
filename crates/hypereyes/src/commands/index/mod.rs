//! `hypereyes index`: what can be searched: made of files, and for whoever asks over HTTP. One file per verb.

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::config::Config;

pub mod build;
pub mod serve;

/// Arguments of `index`.
#[derive(Args, Debug)]
pub struct IndexArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: IndexCommand,
}

/// The verbs.
#[derive(Subcommand, Debug)]
pub enum IndexCommand {
    /// Make an index of documents and pictures of your own.
    Build(build::BuildArgs),
    /// Answer searches over HTTP until told to stop: a world, or the services of the settings with one cache for all who ask.
    Serve(serve::ServeArgs),
}

/// Runs one.
///
/// # Errors
/// As the verb's.
pub fn run(config: &Config, args: &IndexArgs, json: bool) -> Result<()> {
    match &args.command {
        IndexCommand::Build(args) => build::run(config, args, json),
        IndexCommand::Serve(args) => serve::run(config, args, json),
    }
}
