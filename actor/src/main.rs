//! `hypereyes-actor`: an actor as a process.

use std::process::ExitCode;

fn main() -> ExitCode {
    hypereyes_chassis::service_process::main::<hypereyes_actor::Actor>(env!("CARGO_PKG_VERSION"))
}
