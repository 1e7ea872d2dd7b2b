//! `hypereyes-evaluator`: the evaluator as a process.

use std::process::ExitCode;

fn main() -> ExitCode {
    hypereyes_evaluator::PROGRAM.main()
}
