//! `hypereyes-teacher`: the teacher service as a process.

use std::process::ExitCode;

fn main() -> ExitCode {
    hypereyes_teacher_service::PROGRAM.main()
}
