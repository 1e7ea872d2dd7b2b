//! `hypereyes-learner`: the learner as a process.

use std::process::ExitCode;

fn main() -> ExitCode {
    hypereyes_chassis::service_process::main::<hypereyes_learner::Learner>(env!("CARGO_PKG_VERSION"))
}
