//! The reward: scoring by itself on one core, the service over gRPC with a durable store, memory of a million references.
//!
//! In: counts. Out: one row per case. The same scoring in Python is
//! `bench/peers/trace.py`, on the same groups; `cargo bench -p hypereyes-scoring` measures it without the rest.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hypereyes_actor::service::Peers;
use hypereyes_chassis::ready::await_announcement;
use hypereyes_chassis::{ProcessConfig, Shutdown, TelemetryConfig};
use hypereyes_domain::{Reference, RolloutGroup, RolloutSummary, Task, TaskId};
use hypereyes_reward_service::Config;
use hypereyes_reward_service::references::References;
use hypereyes_scoring::load::{Draws, group, task};
use hypereyes_scoring::{AliasJudge, ReferenceMode, TraceConfig, score_group};
use serde_json::{Map, Value};
use tokio::task::JoinSet;

use super::{median, seconds};

/// What is measured.
#[derive(Clone, Debug)]
pub struct Load {
    /// Groups of eight that are scored over the wire.
    pub groups: usize,
    /// Distinct tasks among them.
    pub tasks: usize,
    /// Connections.
    pub connections: usize,
    /// Groups under way on each connection.
    pub depth: usize,
    /// References whose memory is measured.
    pub references: usize,
    /// Runs, of which the median counts.
    pub repeats: usize,
}

/// Measures all three.
pub async fn measure(load: &Load, seed: u64) -> Result<Vec<Map<String, Value>>> {
    Ok(vec![scoring(load, seed), serving(load, seed).await?, memory(load)?])
}

/// Judge, bonus, reward and route of groups, on this thread.
fn scoring(load: &Load, seed: u64) -> Map<String, Value> {
    let mut draws = Draws::new(seed);
    let tasks: Vec<Task> = (0..64).map(task).collect();
    let groups: Vec<(usize, RolloutGroup<RolloutSummary>)> =
        (0..2048).map(|at| (at % 64, group(&mut draws, at, &tasks[at % 64]))).collect();
    let config = TraceConfig::default();
    let run = || {
        let mut rewards = 0.0;
        for (of, group) in &groups {
            let scores = score_group(&config, &AliasJudge, &tasks[*of], &group.rollouts, tasks[*of].reference);
            rewards += scores.iter().map(|score| score.reward).sum::<f64>();
        }
        assert!(rewards.is_finite());
    };
    run();
    let per_run = median((0..load.repeats.max(3)).map(|_| seconds(run)).collect());
    let mut row = Map::new();
    row.insert("case".into(), "scoring, one core".into());
    row.insert("groups_per_s".into(), (groups.len() as f64 / per_run).into());
    row
}

/// A group as an actor holds it; its rollouts have no token.
fn as_held(RolloutGroup { id, task, actor, rollouts }: RolloutGroup<RolloutSummary>) -> RolloutGroup {
    RolloutGroup { id, task, actor, rollouts: rollouts.into_iter().map(Into::into).collect() }
}

/// Groups per second and latency over loopback connections, every tightening synced to disk before it is acknowledged.
async fn serving(load: &Load, seed: u64) -> Result<Map<String, Value>> {
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let announce = folder.path().join("ready.json");
    let config = Config {
        listen: "127.0.0.1:0".parse().expect("an address"),
        store: Some(folder.path().join("store")),
        process: ProcessConfig {
            announce: Some(announce.clone()),
            telemetry: TelemetryConfig { filter: "error".into(), ..TelemetryConfig::default() },
            ..ProcessConfig::default()
        },
        ..Config::default()
    };
    let shutdown = Shutdown::new();
    let server = tokio::spawn(hypereyes_reward_service::run(config, shutdown.clone()));
    let said = await_announcement(&announce, tokio::time::Instant::now() + Duration::from_secs(20)).await?;
    let mut draws = Draws::new(seed);
    let tasks: Arc<Vec<Task>> = Arc::new((0..load.tasks).map(task).collect());
    let mut shares: Vec<Vec<(usize, RolloutGroup)>> = vec![vec![]; load.connections * load.depth];
    for at in 0..load.groups {
        let of = draws.below(u32::try_from(load.tasks).unwrap_or(u32::MAX)) as usize;
        shares[at % (load.connections * load.depth)].push((of, as_held(group(&mut draws, at, &tasks[of]))));
    }
    let peers: Vec<Peers> = (0..load.connections)
        .map(|at| Peers::new(&format!("bench-{at}"), "127.0.0.1:1", &said.addr.to_string(), None))
        .collect::<Result<_, _>>()?;
    let began = Instant::now();
    let mut running = JoinSet::new();
    for (at, share) in shares.into_iter().enumerate() {
        let (peers, tasks) = (peers[at % load.connections].clone(), tasks.clone());
        running.spawn(async move {
            let mut latencies = Vec::with_capacity(share.len());
            for (of, group) in share {
                let asked = Instant::now();
                peers.score(&group, &tasks[of]).await?;
                latencies.push(asked.elapsed().as_secs_f64());
            }
            anyhow::Ok(latencies)
        });
    }
    let mut latencies = vec![];
    while let Some(done) = running.join_next().await {
        latencies.extend(done.context("a client died")??);
    }
    let elapsed = began.elapsed().as_secs_f64();
    drop(peers);
    shutdown.trigger();
    server.await.context("the service died")??;
    latencies.sort_by(f64::total_cmp);
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize] * 1000.0;
    let mut row = Map::new();
    row.insert("case".into(), "gRPC on loopback, durable".into());
    row.insert("groups".into(), load.groups.into());
    row.insert("tasks".into(), load.tasks.into());
    row.insert("under_way".into(), (load.connections * load.depth).into());
    row.insert("groups_per_s".into(), (load.groups as f64 / elapsed).into());
    row.insert("p50_ms".into(), at(0.5).into());
    row.insert("p99_ms".into(), at(0.99).into());
    Ok(row)
}

/// Resident bytes per reference, store on disk and memory in this process.
fn memory(load: &Load) -> Result<Map<String, Value>> {
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let before = super::resident_bytes();
    let references = References::open(ReferenceMode::Epoch, Some(folder.path()), 0)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let began = Instant::now();
    // On a thread of its own: this one may belong to a runtime.
    std::thread::scope(|scope| {
        let import = || -> Result<()> {
            for batch in (0..load.references).collect::<Vec<_>>().chunks(4096) {
                let known = batch.iter().map(|at| (TaskId::new(format!("task-{at}")), Reference { rounds: 2, searches: 5 })).collect();
                runtime.block_on(references.import(0, known))?;
            }
            Ok(())
        };
        scope.spawn(import).join().expect("importing does not panic")
    })?;
    let elapsed = began.elapsed().as_secs_f64();
    let after = super::resident_bytes();
    let on_disk = std::fs::metadata(folder.path().join("references.redb"))?.len();
    let mut row = Map::new();
    row.insert("case".into(), "references in memory".into());
    row.insert("references".into(), load.references.into());
    row.insert("memory_bytes".into(), after.zip(before).map(|(after, before)| after.saturating_sub(before)).into());
    row.insert("disk_bytes".into(), on_disk.into());
    row.insert("imported_per_s".into(), (load.references as f64 / elapsed).into());
    std::thread::scope(|scope| scope.spawn(|| drop((references, runtime))).join().expect("dropping does not panic"));
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn every_case_has_a_row_of_positive_numbers() {
        let load = Load { groups: 200, tasks: 20, connections: 2, depth: 4, references: 5000, repeats: 1 };
        let rows = measure(&load, 7).await.expect("it runs");
        assert_eq!(rows.len(), 3);
        for (row, key) in [(0, "groups_per_s"), (1, "groups_per_s"), (1, "p99_ms"), (2, "imported_per_s"), (2, "disk_bytes")] {
            assert!(rows[row][key].as_f64().is_some_and(|value| value > 0.0), "{key}");
        }
    }
}
