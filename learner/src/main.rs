//! `hypereyes-learner`: the learner as a process.

use std::process::ExitCode;

fn main() -> ExitCode {
    hypereyes_learner::PROGRAM.main()
}
