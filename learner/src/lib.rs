//! The learner: taught groups in, policy versions out.
//!
//! In: demonstrations (cold start) or groups that actors submit (reinforcement learning). Out: weights, versions, metrics,
//! a ledger of every group's fate, checkpoints. One room with two modes: [`sft`] and [`rl`].
//!
//! It does not know how rollouts are made, what a tool is, or how answers are judged.

pub mod admission;
mod batch;
pub mod checkpoint;
pub mod config;
mod follow;
pub mod intake;
pub mod keeper;
pub mod layout;
pub mod lora;
pub mod metrics;
pub mod optim;
pub mod pace;
pub mod passes;
mod places;
pub mod ranks;
pub mod rl;
mod sealed;
pub mod service;
pub mod sft;
pub mod shares;
pub mod speakers;
pub mod spread;
pub mod start;
pub mod step;
pub mod tasks;
pub mod taught;
pub mod trainer;
pub mod trials;
pub mod update;

pub use config::Config;
use hypereyes_chassis::{Room, Shutdown};

/// The room, for a process of its own or somebody else's.
pub struct Learner;

impl Room for Learner {
    const NAME: &'static str = "hypereyes-learner";
    const ABOUT: &'static str = "Trains a policy on groups that actors submit, and publishes versions";
    const ENV: &'static str = "HYPEREYES_LEARNER";
    type Config = Config;

    async fn run(config: Config, shutdown: Shutdown) -> anyhow::Result<()> {
        config.check()?;
        if config.ranks.rank > 0 { follow::run(config, shutdown).await } else { rl::run(config, shutdown).await }
    }
}
