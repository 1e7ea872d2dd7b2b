//! `hypereyes service`: one service in this process, so that one program is enough for a whole run. Its settings are the service's
//! own, as its binary reads them.

use std::io::Read;

use anyhow::Result;
use clap::{Args, ValueEnum};
use hypereyes_chassis::service_process::{self, Sources};
use hypereyes_chassis::{ServiceProgram, Shutdown};

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
    /// Measures what is trained.
    Evaluator,
}

impl Kind {
    fn program(self) -> &'static ServiceProgram {
        match self {
            Self::Actor => &hypereyes_actor::PROGRAM,
            Self::Learner => &hypereyes_learner::PROGRAM,
            Self::Reward => &hypereyes_reward_service::PROGRAM,
            Self::Teacher => &hypereyes_teacher_service::PROGRAM,
            Self::Search => &hypereyes_search::service::PROGRAM,
            Self::Evaluator => &hypereyes_evaluator::PROGRAM,
        }
    }
}

/// Runs the service until it is done or told to stop.
pub fn run(sources: &Sources, args: &ServiceArgs) -> Result<()> {
    service_process::block_on(parts::runtime()?, async {
        let shutdown = Shutdown::on_signal()?;
        if args.leash {
            leash(shutdown.clone());
        }
        args.kind.program().start(sources, shutdown).await
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
