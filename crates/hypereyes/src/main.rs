//! `hypereyes`: parse, run, exit with 0, 1 or 2.

use std::process::ExitCode;

use hypereyes::cli::{self, Cli};
use hypereyes_chassis::exit;

fn main() -> ExitCode {
    match cli::run(&Cli::of_process()) {
        Ok(()) => ExitCode::from(exit::OK),
        // By reference: boxed, the error would hide its kind, and with it the exit code.
        Err(error) => exit::report(error.as_ref()),
    }
}
