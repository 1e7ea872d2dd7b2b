//! The engine: prefill, time to first token, decoding at several batch sizes.
//!
//! In: an engine's parts and the counts. Out: one row per batch size. A batch is a group: one prompt, forked.

use anyhow::{Context, Result};
use hypereyes_domain::{Chunk, Generate, PolicyVersion, Sampled, Sampling, Sequence};
use hypereyes_policy::checkpoint::HostWeights;
use hypereyes_policy::config::ModelConfig;
use hypereyes_policy::device::Device;
use hypereyes_policy::engine::{Engine, EngineConfig, EngineSequence};
use serde_json::{Map, Value};
use tokio::task::JoinSet;

use super::{median, tokens};

/// What is measured.
#[derive(Clone, Debug)]
pub struct Load {
    /// Where the model computes.
    pub device: Device,
    /// Sequences at once, one row each.
    pub batches: Vec<usize>,
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Tokens that each sequence samples.
    pub new: usize,
    /// Runs, of which the median counts.
    pub repeats: usize,
}

/// Measures every batch size on one engine.
pub async fn measure(model: &ModelConfig, weights: &HostWeights, load: &Load, seed: u64) -> Result<Vec<Map<String, Value>>> {
    let most = load.batches.iter().copied().max().unwrap_or(1);
    // One more for the prompt itself while it is read; no token ends a turn.
    let sizes =
        EngineConfig { max_sequences: most + 1, max_context: load.prompt + load.new + 1, device: load.device, ..EngineConfig::default() };
    let engine = Engine::start_from(model.clone(), weights, sizes, PolicyVersion(0))?;
    let mut rows = vec![];
    for batch in &load.batches {
        let (mut prefill, mut first, mut decode) = (vec![], vec![], vec![]);
        for repeat in 0..=load.repeats {
            let prompt = Chunk { tokens: tokens(load.prompt, model.text.vocab_size, seed + repeat as u64), pictures: vec![] };
            let one = run(&engine, prompt, *batch, load.new, seed).await?;
            // The first run of a batch size warms caches up.
            if repeat > 0 {
                prefill.push((load.prompt - 1) as f64 / one.prefill);
                first.push(one.first);
                decode.push((batch * (load.new - 1)) as f64 / one.decode);
            }
        }
        let mut row = Map::new();
        row.insert("batch".into(), (*batch).into());
        row.insert("prompt_tokens".into(), load.prompt.into());
        row.insert("new_tokens".into(), load.new.into());
        row.insert("prefill_tokens_per_s".into(), median(prefill).into());
        row.insert("first_token_s".into(), median(first).into());
        row.insert("decode_tokens_per_s".into(), median(decode).into());
        rows.push(row);
    }
    Ok(rows)
}

/// Seconds of the parts of one run.
struct Parts {
    prefill: f64,
    /// Prompt to the first token of every sequence.
    first: f64,
    /// All tokens after the first.
    decode: f64,
}

async fn run(engine: &Engine, prompt: Chunk, batch: usize, new: usize, seed: u64) -> Result<Parts> {
    let seeds: Vec<u64> = (0..batch as u64).map(|number| seed ^ number).collect();
    let began = std::time::Instant::now();
    let sequences = engine.start(prompt, seeds, Sampling::of(1.0, 1.0)).await?;
    let prefill = began.elapsed().as_secs_f64();
    let sequences = advance(sequences, 1).await?;
    let first = began.elapsed().as_secs_f64();
    advance(sequences, new - 1).await?;
    let decode = began.elapsed().as_secs_f64() - first;
    Ok(Parts { prefill, first, decode })
}

/// All sequences by `count` tokens, at the same time.
async fn advance(sequences: Vec<EngineSequence>, count: usize) -> Result<Vec<EngineSequence>> {
    let mut running = JoinSet::new();
    for mut sequence in sequences {
        running.spawn(async move {
            let sampled: Sampled = sequence.advance(Chunk::default(), count).await?;
            anyhow::ensure!(sampled.tokens.len() == count, "the engine gave {} of {count} tokens", sampled.tokens.len());
            Ok(sequence)
        });
    }
    let mut done = vec![];
    while let Some(one) = running.join_next().await {
        done.push(one.context("a sequence was abandoned")??);
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Size;

    #[tokio::test]
    async fn every_batch_has_a_row_of_positive_speeds() {
        let model = Size::Tiny.model();
        let weights = hypereyes_policy::init::fresh(&model, &Default::default(), 1);
        let load = Load { device: Device::Cpu, batches: vec![1, 3], prompt: 20, new: 4, repeats: 1 };
        let rows = measure(&model, &weights, &load, 7).await.expect("it runs");
        assert_eq!(rows.iter().map(|row| row["batch"].as_u64()).collect::<Vec<_>>(), [Some(1), Some(3)]);
        for key in ["prefill_tokens_per_s", "first_token_s", "decode_tokens_per_s"] {
            assert!(rows.iter().all(|row| row[key].as_f64().is_some_and(|value| value > 0.0)), "{key}");
        }
    }
}
