//! `hypereyes-reward`: the reward service as a process.

use std::process::ExitCode;

fn main() -> ExitCode {
    hypereyes_chassis::service_process::main::<hypereyes_reward_service::RewardService>(env!("CARGO_PKG_VERSION"))
}
