//! Every rank but the first: passes over its part of each batch, and says what it measured.
//!
//! In: rank 0's state at the start, then its orders. Out: gradients and shards, to the group. Ends with the run, or with an
//! error that names who was lost; whoever started the process starts it again, and it goes on from what rank 0 has.

use std::sync::Arc;

use anyhow::{Context, Result};
use hypereyes_chassis::{BadInput, Health, Shutdown};
use hypereyes_pictures::{Limits, Picture, Processor};
use hypereyes_policy::checkpoint as model_files;
use hypereyes_proto::orders::Order;
use hypereyes_trainer::{Pictures, Trainer, step};

use crate::config::Config;
use crate::ranks::Meeting;
use crate::rl::{refusal, unfinished};
use crate::service;
use crate::start::Start;

/// Follows rank 0 until it ends the run, or until `shutdown`.
///
/// # Errors
/// [`BadInput`] for settings and files; otherwise what the group failed of.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<()> {
    let process = config.process.start(&config.findings())?;
    crate::metrics::describe();
    config.start_pool();
    let health = Health::new().await;
    let security = process.security().clone();
    let _watched = process.watched(&health, &shutdown).await?;
    let Some(meeting) = shutdown.race(service::meet(&security, &config.ranks)).await else { return unfinished(&shutdown) };
    let meeting = meeting?;
    // It serves nothing, so that ready means: it is on its way to the others.
    health.ready().await;
    let (done, ended) = tokio::sync::oneshot::channel();
    // A thread of its own: it may wait for other ranks when the process is told to stop, and ends with the process.
    let body = move || drop(done.send(follow(&config, meeting)));
    std::thread::Builder::new().name("rank".into()).spawn(body).context("cannot start a thread")?;
    match shutdown.race(ended).await {
        Some(ended) => ended.context("the rank's thread died")?,
        None => unfinished(&shutdown),
    }
}

fn follow(config: &Config, meeting: Meeting) -> Result<()> {
    let bad = |error: hypereyes_policy::Error| BadInput::new(error.to_string());
    let mut ranks = config.ranks.join(meeting)?;
    let start = Start::from_bytes(&ranks.broadcast(0, vec![])?)?;
    let (model, _) = model_files::read(&config.policy).map_err(bad)?;
    let processor = Processor::load(&config.policy).map_err(|error| BadInput::new(error.to_string()))?;
    let optim = config.optim.clone();
    let options = config.step_options();
    let mut trainer = Trainer::among(ranks, config.ranks.sharded, model, start.weights, optim, config.placement()).map_err(refusal)?;
    trainer.resume(&start.moments);
    tracing::info!(rank = config.ranks.rank, world = config.ranks.world, steps = start.moments.steps, "rank up");
    for number in 1.. {
        match Order::from_bytes(&trainer.ranks().broadcast(number, vec![])?)? {
            Order::Step { lr, version, groups, pictures } => {
                let mut seen = Pictures::new();
                for (id, bytes) in pictures {
                    let picture = Picture::from_bytes(bytes, &Limits::default())?;
                    seen.insert(id, Arc::new(processor.patches(&picture.image)));
                }
                step::train(&mut trainer, &groups, &seen, &options, lr, version)?;
            }
            Order::Moments => drop(trainer.moments()?),
            Order::Wait => {}
            Order::End => break,
        }
    }
    Ok(())
}
