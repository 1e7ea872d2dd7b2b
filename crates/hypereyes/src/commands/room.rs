//! `hypereyes room`: one room in this process, so that one program is enough for a whole run. Its settings are the room's
//! own, as its binary reads them.

use std::io::Read;

use anyhow::Result;
use clap::{Args, ValueEnum};
use hypereyes_chassis::{Shutdown, config};

use crate::cli::Cli;
use crate::parts;

/// Arguments of `room`.
#[derive(Args, Debug)]
pub struct RoomArgs {
    /// Which.
    #[arg(value_enum)]
    pub kind: Kind,
    /// Stop when stdin is closed: the parent is gone, or wants it.
    #[arg(long)]
    pub leash: bool,
}

/// A room.
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
}

/// Runs the room until it is done or told to stop.
pub fn run(cli: &Cli, args: &RoomArgs) -> Result<()> {
    parts::runtime()?.block_on(async {
        let shutdown = Shutdown::on_signal()?;
        if args.leash {
            leash(shutdown.clone());
        }
        let (file, sets) = (cli.config.as_deref(), cli.sets.as_slice());
        match args.kind {
            Kind::Actor => {
                hypereyes_actor::run(config::load(hypereyes_actor::Config::default(), file, "HYPEREYES_ACTOR", sets)?, shutdown).await
            }
            Kind::Learner => {
                let config = config::load(hypereyes_learner::rl::Config::default(), file, "HYPEREYES_LEARNER", sets)?;
                hypereyes_learner::rl::run(config, shutdown).await
            }
            Kind::Reward => {
                let config = config::load(hypereyes_reward_service::Config::default(), file, "HYPEREYES_REWARD", sets)?;
                Ok(hypereyes_reward_service::run(config, shutdown).await?)
            }
            Kind::Teacher => {
                let config = config::load(hypereyes_teacher_service::Config::default(), file, "HYPEREYES_TEACHER", sets)?;
                hypereyes_teacher_service::run(config, shutdown).await
            }
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
