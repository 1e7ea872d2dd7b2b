//! The learner: taught groups in, policy versions out.
//!
//! In: groups that actors submit. Out: versions, metrics, a ledger of every group's fate, checkpoints.
//!
//! It does not know how rollouts are made, what a tool is, how answers are judged, or how a model is trained: that is the trainer's.

pub mod admission;
mod batch;
pub mod checkpoint;
pub mod config;
mod follow;
pub mod intake;
pub mod keeper;
pub mod metrics;
pub mod pace;
mod places;
pub mod ranks;
pub mod rl;
pub mod service;
pub mod shares;
pub mod speakers;
pub mod spread;
pub mod start;
pub mod tasks;
pub mod trials;

pub use config::Config;
use hypereyes_chassis::{ServiceProcess, ServiceProgram, Shutdown, Work};

/// The service, for a process of its own or somebody else's.
pub struct Learner;

impl ServiceProcess for Learner {
    const NAME: &'static str = "hypereyes-learner";
    const ABOUT: &'static str = "Trains a policy on groups that actors submit, and publishes versions";
    const ENV: &'static str = "HYPEREYES_LEARNER";
    type Config = Config;

    fn run(config: Config, shutdown: Shutdown) -> Work {
        Box::pin(async move {
            config.check()?;
            if config.ranks.rank > 0 { follow::run(config, shutdown).await } else { rl::run(config, shutdown).await }
        })
    }
}

/// The learner as a program.
pub static PROGRAM: ServiceProgram = ServiceProgram::of::<Learner>(env!("CARGO_PKG_VERSION"));
