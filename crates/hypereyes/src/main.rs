//! `hypereyes`: parse, run, exit with 0, 1 or 2; as a service with 42 instead of 2.

use std::process::ExitCode;

use hypereyes::cli::{self, Cli};
use hypereyes_chassis::{exit, leash};

fn main() -> ExitCode {
    if let Some(code) = leash::of_process() {
        return code;
    }
    let cli = Cli::of_process();
    match cli::run(&cli) {
        Ok(()) => ExitCode::from(exit::OK),
        // By reference: boxed, the error would hide its kind, and with it the exit code.
        Err(error) if cli.is_service() => exit::report_service(error.as_ref()),
        Err(error) => exit::report(error.as_ref()),
    }
}
