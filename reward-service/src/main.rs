//! `hypereyes-reward`: the reward service as a process.

use std::process::ExitCode;

fn main() -> ExitCode {
    hypereyes_reward_service::PROGRAM.main()
}
