//! `hypereyes-actor`: an actor as a process.

use std::process::ExitCode;

fn main() -> ExitCode {
    hypereyes_actor::PROGRAM.main()
}
