//! `hypereyes room`: one room in this process, so that one program is enough for a whole run. Its settings are the room's
//! own, as its binary reads them.

use std::io::Read;

use anyhow::Result;
use clap::{Args, ValueEnum};
use hypereyes_chassis::Shutdown;
use hypereyes_chassis::room::{self, Sources};

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
pub fn run(sources: &Sources, args: &RoomArgs) -> Result<()> {
    room::block_on(parts::runtime()?, async {
        let shutdown = Shutdown::on_signal()?;
        if args.leash {
            leash(shutdown.clone());
        }
        match args.kind {
            Kind::Actor => room::start::<hypereyes_actor::Actor>(sources, shutdown).await,
            Kind::Learner => room::start::<hypereyes_learner::Learner>(sources, shutdown).await,
            Kind::Reward => room::start::<hypereyes_reward_service::RewardService>(sources, shutdown).await,
            Kind::Teacher => room::start::<hypereyes_teacher_service::TeacherService>(sources, shutdown).await,
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
