//! Ranks: what a step's exchange costs, a sum scattered and the shards gathered again.
//!
//! In: a transport, ranks, values. Out: one row. TCP ranks are threads of this process over loopback; NCCL takes one GPU
//! per rank.

use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hypereyes_collective::{Collective, Hub, RankInfo, Tcp, Transport};
use serde_json::{Map, Value};

use super::median;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// What carries the values.
    pub transport: Transport,
    /// Ranks.
    pub world: usize,
    /// Values of a sum.
    pub values: usize,
    /// Runs, of which the median counts.
    pub repeats: usize,
}

const TIMEOUT: Duration = Duration::from_secs(60);

/// Measures an exchange, as rank 0 sees it, and checks its sums.
pub fn measure(load: Load) -> Result<Map<String, Value>> {
    let hub = Hub::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let address = hub.address()?;
    let place = move |rank| RankInfo { rank, world: load.world, generation: 1 };
    let others: Vec<_> =
        (1..load.world).map(|rank| thread::spawn(move || exchanges(Tcp::join(place(rank), address, TIMEOUT)?, load))).collect();
    let mut seconds = exchanges(hub.meet(place(0), TIMEOUT, TIMEOUT)?, load)?;
    for other in others {
        other.join().ok().context("a rank panicked")??;
    }
    let first = seconds.remove(0);
    let typical = median(seconds);
    // Every rank sends and receives a gradient's worth, but for its own part.
    let bytes = 2.0 * (load.values * size_of::<f32>()) as f64 * (load.world - 1) as f64 / load.world as f64;
    let mut row = Map::new();
    row.insert("transport".into(), load.transport.name().into());
    row.insert("world".into(), load.world.into());
    row.insert("values".into(), load.values.into());
    row.insert("first_s".into(), first.into());
    row.insert("exchange_s".into(), typical.into());
    row.insert("rank_gigabytes_per_s".into(), (bytes / typical / 1e9).into());
    Ok(row)
}

fn exchanges(star: Tcp, load: Load) -> Result<Vec<f64>> {
    let gpu = star.place().rank;
    let mut ranks = load.transport.carry(star, gpu, TIMEOUT)?;
    let place = ranks.place();
    let mine: Vec<f32> = (0..load.values).map(|at| (at % 1000) as f32 + place.rank as f32).collect();
    let shift = (0..load.world).sum::<usize>() as f32;
    let mut seconds = vec![];
    for step in 0..=load.repeats as u64 {
        let (began, values) = (Instant::now(), mine.clone());
        let shard = ranks.reduce_scatter(step, values)?;
        let all = ranks.all_gather(step, shard, load.values)?;
        seconds.push(began.elapsed().as_secs_f64());
        let right = |(at, sum): (usize, &f32)| *sum == (at % 1000) as f32 * load.world as f32 + shift;
        anyhow::ensure!(all.len() == load.values && all.iter().enumerate().all(right), "the sums are wrong");
    }
    Ok(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_over_loopback_have_a_row() {
        let row = measure(Load { transport: Transport::Tcp, world: 3, values: 1001, repeats: 1 }).expect("it runs");
        assert!(row["exchange_s"].as_f64().is_some_and(|seconds| seconds > 0.0));
        assert_eq!(row["world"].as_u64(), Some(3));
    }
}
