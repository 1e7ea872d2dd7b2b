//! The teacher: scoring of siblings with and without their shared prompt, and swaps under load over gRPC.
//!
//! In: a model folder, counts. Out: one row per case. The same batches in transformers are `bench/peers/score.py`.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hypereyes_chassis::ready::await_announcement;
use hypereyes_chassis::{ProcessConfig, Shutdown, TelemetryConfig};
use hypereyes_domain::{Question, ScoreSequence, TeacherId, TeacherVersion};
use hypereyes_policy::checkpoint;
use hypereyes_policy::config::ModelConfig;
use hypereyes_policy::device::Device;
use hypereyes_policy::frozen::{self, ScoreOptions};
use hypereyes_policy::score::Sample;
use hypereyes_proto::teacher::Load as LoadModel;
use hypereyes_proto::{TeacherPeer, client};
use hypereyes_teacher_service::Config;
use serde_json::{Map, Value};
use tokio::task::JoinSet;

use super::{median, resident_bytes, seconds, tokens};

/// Longest wait for any one answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest wait for retired models to leave memory, in seconds.
const LETS_GO_S: u64 = 60;
/// The shape of a question under load: siblings, prompt tokens, response tokens.
const UNDER_LOAD: (usize, usize, usize) = (4, 64, 16);

/// What is measured.
#[derive(Clone, Debug)]
pub struct Load {
    /// Where the model computes.
    pub device: Device,
    /// Groups of one scoring run.
    pub groups: usize,
    /// Siblings of a group.
    pub siblings: usize,
    /// Prompt tokens.
    pub prompt: usize,
    /// Response tokens.
    pub response: usize,
    /// Questions per second while models are swapped.
    pub rate: usize,
    /// Swaps.
    pub swaps: usize,
    /// Runs, of which the median counts.
    pub repeats: usize,
}

/// Measures both.
///
/// # Errors
/// When the model cannot be used, a question fails, or a group gets two models.
pub async fn measure(folder: &Path, load: &Load, seed: u64) -> Result<Vec<Map<String, Value>>> {
    let mut rows = scoring(folder, load, seed)?;
    if load.swaps > 0 {
        rows.extend(swapping(folder, load, seed).await?);
    }
    Ok(rows)
}

/// Groups of siblings, as a teacher reads them.
fn scoring(folder: &Path, load: &Load, seed: u64) -> Result<Vec<Map<String, Value>>> {
    let (config, weights) = checkpoint::read(folder)?;
    let model = frozen::freeze(&config, &weights, load.device, usize::MAX)?;
    let sample = |at: usize| {
        let mut all = tokens(load.prompt, &config, seed + (at / load.siblings) as u64);
        all.extend(tokens(load.response, &config, seed + 10_000 + at as u64));
        let asked = (load.prompt..load.prompt + load.response).collect();
        Sample { tokens: all, pictures: vec![], asked, trunk: load.prompt }
    };
    let shared: Vec<Sample> = (0..load.groups * load.siblings).map(sample).collect();
    let apart: Vec<Sample> = shared.iter().map(|sample| Sample { trunk: 0, ..sample.clone() }).collect();
    let whole = (shared.len() * (load.prompt + load.response)) as f64;
    let mut rows = vec![];
    for (case, samples) in [("scoring, prompts shared", &shared), ("scoring, every sequence whole", &apart)] {
        let run = || {
            for group in samples.chunks(load.siblings) {
                model.score(group, ScoreOptions::PLAIN).expect("the samples fit the model");
            }
        };
        run();
        let time = median((0..load.repeats).map(|_| seconds(run)).collect());
        let mut row = Map::new();
        row.insert("case".into(), case.into());
        row.insert("groups".into(), load.groups.into());
        row.insert("siblings".into(), load.siblings.into());
        row.insert("prompt".into(), load.prompt.into());
        row.insert("response".into(), load.response.into());
        row.insert("sequence_tokens_per_s".into(), (whole / time).into());
        row.insert("sequences_per_s".into(), (samples.len() as f64 / time).into());
        rows.push(row);
    }
    Ok(rows)
}

/// Questions at a steady rate, first alone, then while models are loaded, promoted and retired.
async fn swapping(folder: &Path, load: &Load, seed: u64) -> Result<Vec<Map<String, Value>>> {
    let scratch = tempfile::tempdir().context("no temporary folder")?;
    let announce = scratch.path().join("ready.json");
    let config = Config {
        listen: "127.0.0.1:0".parse().expect("an address"),
        model: folder.display().to_string(),
        id: "t-0".into(),
        store: Some(scratch.path().join("store")),
        device: load.device,
        keep_groups_s: 2,
        process: ProcessConfig {
            announce: Some(announce.clone()),
            telemetry: TelemetryConfig { filter: "error".into(), ..TelemetryConfig::default() },
            ..ProcessConfig::default()
        },
        ..Config::default()
    };
    let shutdown = Shutdown::new();
    let server = tokio::spawn(hypereyes_teacher_service::run(config, shutdown.clone()));
    let said = await_announcement(&announce, tokio::time::Instant::now() + PATIENCE).await?;
    let peer = TeacherPeer::new(client::teacher(&said.addr.to_string())?);
    let model = checkpoint::read(folder)?.0;
    let mix = Arc::new(Mix { peer: peer.clone(), seed, model });
    // As long as the swaps take, and never less than a few seconds.
    let pause = Duration::from_millis(200);
    let quiet = storm(&mix, load.rate, async { tokio::time::sleep(pause * load.swaps as u32).await }, 0).await?;
    let one_model = resident_bytes();
    let swaps = async {
        for at in 1..=load.swaps {
            let id = TeacherId::new(format!("t-{at}"));
            let source = folder.display().to_string();
            peer.load(LoadModel { source, id: id.clone(), digest: String::new(), background: false }, PATIENCE).await?;
            peer.promote(&id, PATIENCE).await?;
            peer.retire(&TeacherId::new(format!("t-{}", at - 1)), PATIENCE).await?;
            tokio::time::sleep(pause / 2).await;
        }
        Ok::<_, hypereyes_proto::CallError>(())
    };
    let mut swapped = Ok(());
    let busy = storm(&mix, load.rate, async { swapped = swaps.await }, 1).await?;
    swapped?;
    // The last groups let go of retired models.
    let held = async || Ok::<_, anyhow::Error>(peer.roster(PATIENCE).await?.models.iter().filter(|model| model.card.is_some()).count());
    let mut left = held().await?;
    for _ in 0..LETS_GO_S {
        if left == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        left = held().await?;
    }
    let after = resident_bytes();
    drop((peer, mix));
    shutdown.trigger();
    server.await.context("the service died")??;
    let row = |case: &str, storm: Storm| {
        let mut row = Map::new();
        row.insert("case".into(), case.into());
        row.insert("questions".into(), storm.latencies.len().into());
        row.insert("questions_per_s".into(), storm.pace.into());
        row.insert("failed".into(), storm.failed.into());
        row.insert("groups_with_two_models".into(), storm.mixed.into());
        row.insert("p50_ms".into(), storm.at(0.5).into());
        row.insert("p99_ms".into(), storm.at(0.99).into());
        row
    };
    let mut busy = row("questions while models are swapped", busy);
    busy.insert("swaps".into(), load.swaps.into());
    busy.insert("models_left".into(), left.into());
    busy.insert("memory_before_bytes".into(), one_model.into());
    busy.insert("memory_after_bytes".into(), after.into());
    Ok(vec![row("questions alone", quiet), busy])
}

/// What questions are made of.
struct Mix {
    peer: TeacherPeer,
    seed: u64,
    model: ModelConfig,
}

impl Mix {
    /// Each group asks twice: what a promotion in between would show.
    async fn ask(&self, group: u64) -> Result<(TeacherVersion, f64)> {
        let (siblings, prompt, response) = UNDER_LOAD;
        let draw = |count: usize, seed: u64| tokens(count, &self.model, self.seed + seed);
        let sequence = |at: usize| ScoreSequence {
            prompt: draw(prompt, group),
            response: draw(response, group * 100 + at as u64),
            mask: vec![true; response],
            pictures: vec![],
        };
        let question = Question::new(format!("task@{group}").as_str().into(), (0..siblings).map(sequence).collect());
        let asked = Instant::now();
        let (version, _) = self.peer.ask(&question, PATIENCE).await?;
        Ok((version, asked.elapsed().as_secs_f64()))
    }
}

/// What came of many questions.
struct Storm {
    latencies: Vec<f64>,
    failed: usize,
    mixed: usize,
    pace: f64,
}

impl Storm {
    fn at(&self, share: f64) -> f64 {
        self.latencies.get(((self.latencies.len().max(1) - 1) as f64 * share) as usize).copied().unwrap_or(f64::NAN) * 1000.0
    }
}

/// Asks `rate` questions per second until `until` is done, whether or not earlier ones are answered: groups that ask twice, with
/// the time of a few questions in between.
async fn storm(mix: &Arc<Mix>, rate: usize, until: impl Future<Output = ()>, part: u64) -> Result<Storm> {
    let began = Instant::now();
    let mut groups = JoinSet::new();
    let mut tick = tokio::time::interval(Duration::from_secs_f64(2.0 / rate.max(1) as f64));
    tokio::pin!(until);
    let mut next = part << 32;
    loop {
        tokio::select! {
            () = &mut until => break,
            _ = tick.tick() => {
                let (mix, group) = (mix.clone(), next);
                next += 1;
                groups.spawn(async move {
                    let first = mix.ask(group).await;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    (first, mix.ask(group).await)
                });
            }
        }
    }
    let mut storm = Storm { latencies: vec![], failed: 0, mixed: 0, pace: 0.0 };
    while let Some(done) = groups.join_next().await {
        let (first, second) = done.context("an asker died")?;
        if let (Ok((one, _)), Ok((other, _))) = (&first, &second) {
            storm.mixed += usize::from(one != other);
        }
        for answer in [first, second] {
            match answer {
                Ok((_, latency)) => storm.latencies.push(latency),
                Err(error) => {
                    // A closed stderr is nobody listening.
                    let _ = writeln!(std::io::stderr(), "a question failed: {error:#}");
                    storm.failed += 1;
                }
            }
        }
    }
    storm.pace = storm.latencies.len() as f64 / began.elapsed().as_secs_f64();
    storm.latencies.sort_by(f64::total_cmp);
    ensure!(!storm.latencies.is_empty(), "no question was answered");
    Ok(storm)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn swaps_fail_nobody_and_mix_nothing() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/teacher");
        let load = Load { device: Device::Cpu, groups: 2, siblings: 4, prompt: 40, response: 10, rate: 40, swaps: 6, repeats: 1 };
        let rows = measure(&folder, &load, 7).await.expect("it runs");
        assert_eq!(rows.len(), 4);
        for row in &rows[2..] {
            assert_eq!((row["failed"].as_u64(), row["groups_with_two_models"].as_u64()), (Some(0), Some(0)), "{row:?}");
        }
        assert_eq!(rows[3]["models_left"], 1, "retired models leave memory");
    }
}
