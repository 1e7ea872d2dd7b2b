//! `hypereyes-teacher`: the teacher service as a process.

use std::process::ExitCode;

fn main() -> ExitCode {
    hypereyes_chassis::service_process::main::<hypereyes_teacher_service::TeacherService>(env!("CARGO_PKG_VERSION"))
}
