//! `hypereyes data`: rows that others published, made into task sets, and task sets made into files that others read. One file per verb.

use anyhow::Result;
use clap::{Args, Subcommand};

mod export;
mod fetch;
mod import;

/// Arguments of `data`.
#[derive(Args, Debug)]
pub struct DataArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: DataCommand,
}

/// The verbs.
#[derive(Subcommand, Debug)]
pub enum DataCommand {
    /// Make a task set of files of rows: parquet, Arrow, JSON lines, JSON.
    Import(import::ImportArgs),
    /// Say what an import would come to, row by row, and write nothing.
    Inspect(import::InspectArgs),
    /// Write a task set as parquet that verl, HyperEyes and MMSearch-R1 read.
    Export(export::ExportArgs),
}

/// Runs one.
///
/// # Errors
/// As the verb's.
pub fn run(args: &DataArgs, json: bool) -> Result<()> {
    match &args.command {
        DataCommand::Import(args) => import::run(args, json),
        DataCommand::Inspect(args) => import::inspect(args, json),
        DataCommand::Export(args) => export::run(args, json),
    }
}
