//! `hypereyes-actor`: an actor as a process.

use std::process::ExitCode;

fn main() -> ExitCode {
    hypereyes_chassis::room::main::<hypereyes_actor::Actor>(env!("CARGO_PKG_VERSION"))
}
