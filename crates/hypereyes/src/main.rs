//! `hypereyes`: parse, run, exit with 0, 1 or 2.

use std::process::ExitCode;

use clap::Parser;
use hypereyes::cli::{self, Cli};

fn main() -> ExitCode {
    hypereyes_chassis::exit::finish(cli::run(&Cli::parse()))
}
