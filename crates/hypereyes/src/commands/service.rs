//! `hypereyes service`: one service in this process, so that one program is enough for a whole run. Its settings are the service's
//! own, as its binary reads them.

use std::io::Read;

use anyhow::Result;
use clap::{Args, ValueEnum};
use hypereyes_chassis::Shutdown;
use hypereyes_chassis::service_process::{self, Sources};

use crate::parts;

/// Arguments of `service`.
#[derive(Args, Debug)]
pub struct ServiceArgs {
    /// Which.
    #[arg(value_enum)]
    pub kind: Kind,
    /// Stop when stdin is closed: the parent is gone, or wants it.
    #[arg(long)]
    pub leash: bool,
}

/// A service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Rolls out and submits.
    Actor,
    /// Leases and trains.
    Learner,
    /// Scores.
    Reward,
    /// Gives log-probs.
    Teacher,
    /// Searches, for all who ask.
    Search,
}

/// Runs the service until it is done or told to stop.
pub fn run(sources: &Sources, args: &ServiceArgs) -> Result<()> {
    service_process::block_on(parts::runtime()?, async {
        let shutdown = Shutdown::on_signal()?;
        if args.leash {
            leash(shutdown.clone());
        }
        match args.kind {
            Kind::Actor => service_process::start::<hypereyes_actor::Actor>(sources, shutdown).await,
            Kind::Learner => service_process::start::<hypereyes_learner::Learner>(sources, shutdown).await,
            Kind::Reward => service_process::start::<hypereyes_reward_service::RewardService>(sources, shutdown).await,
            Kind::Teacher => service_process::start::<hypereyes_teacher_service::TeacherService>(sources, shutdown).await,
            Kind::Search => service_process::start::<hypereyes_search::service::SearchService>(sources, shutdown).await,
        }
    })
}

/// Watches stdin on a thread of its own: a read that nobody ends must not hold the runtime back.
fn leash(shutdown: Shutdown) {
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut ignored = [0; 64];
        while matches!(stdin.read(&mut ignored), Ok(read) if read > 0) {}
        shutdown.trigger();
    });
}
