//! A device: how fast it multiplies and attends, what its kernels cost the first time, how far each is from its definition, and
//! how far the numbers of a model are from the CPU's.
//!
//! In: a device. Out: one row per question.

use std::time::Instant;

use anyhow::Result;
use hypereyes_policy::checkpoint::HostWeights;
use hypereyes_policy::config::ModelConfig;
use hypereyes_policy::device::Device;
use hypereyes_policy::frozen::{self, ScoreOptions};
use hypereyes_policy::init;
use hypereyes_policy::probe::{self, Shape, Timed};
use hypereyes_policy::score::Sample;
use hypereyes_trainer::OptimConfig;
use hypereyes_trainer::{Placement, Trainer};
use serde_json::{Map, Value, json};

use super::{Size, median, tokens};

/// Attention of the 100 M model over eight sequences.
const ATTENTION: Shape = Shape { sequences: 8, length: 512, heads: 12, kv_heads: 4, width: 64 };

/// Measures a device; `side` is of the product's factors.
pub fn measure(device: Device, side: usize, repeats: usize, seed: u64) -> Result<Vec<Map<String, Value>>> {
    let mut rows = vec![];
    rows.push(rate("product", &probe::product(device, side, repeats)?));
    rows.push(rate("attention", &probe::attention(device, ATTENTION, repeats)?));
    rows.push(kernels(device)?);
    let model = Size::Tiny.model();
    let weights = init::fresh(&model, &Default::default(), seed);
    rows.push(agreement(&model, &weights, device, seed)?);
    Ok(rows)
}

fn rate(name: &str, timed: &Timed) -> Map<String, Value> {
    let later = median(timed.later.clone());
    row(json!({ "what": name, "first_s": timed.first, "later_s": later, "gflop_per_s": timed.flop / later / 1e9 }))
}

/// How far every kernel is from its plain definition on the CPU.
fn kernels(device: Device) -> Result<Map<String, Value>> {
    let mut row = row(json!({ "what": "kernels" }));
    row.extend(probe::kernels(device)?.into_iter().map(|(name, worst)| (name.to_owned(), worst.into())));
    Ok(row)
}

/// Log-probs and a training step of the tiny model, here and on the CPU.
fn agreement(model: &ModelConfig, weights: &HostWeights, device: Device, seed: u64) -> Result<Map<String, Value>> {
    let sample = |number: u64| {
        let length = 40 + 25 * number as usize;
        Sample { tokens: tokens(length, model, seed + number), pictures: vec![], asked: (1..length).collect(), trunk: 0 }
    };
    let samples: Vec<Sample> = (0..4).map(sample).collect();
    let on = |device: Device| -> Result<(Vec<f32>, f64, f64, HostWeights)> {
        let said = frozen::freeze(model, weights, device, 1)?.score(&samples, ScoreOptions::PLAIN)?;
        let logprobs: Vec<f32> = said.into_iter().flat_map(|said| said.logprobs).collect();
        let placement = Placement { device, micro_tokens: 4096 };
        let mut trainer = Trainer::new(model.clone(), weights.clone(), OptimConfig::default(), placement)?;
        let began = Instant::now();
        let share = -1.0 / logprobs.len() as f32;
        trainer.accumulate(&samples, 1.0, |_, asked| asked.iter().map(|asked| vec![share; asked.len()]).collect())?;
        let norm = trainer.step(1e-3)?;
        Ok((logprobs, norm, began.elapsed().as_secs_f64(), trainer.weights().clone()))
    };
    let (there, norm, first_step, after) = on(device)?;
    let (here, cpu_norm, _, cpu_after) = on(Device::Cpu)?;
    let worst = there.iter().zip(&here).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
    let moved = |after: &HostWeights| -> Vec<f64> {
        after.iter().flat_map(|(name, tensor)| tensor.values.iter().zip(&weights[name].values).map(|(a, b)| f64::from(a - b))).collect()
    };
    let (step, cpu_step) = (moved(&after), moved(&cpu_after));
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let cosine = dot(&step, &cpu_step) / (dot(&step, &step) * dot(&cpu_step, &cpu_step)).sqrt();
    Ok(row(json!({
        "what": "agreement with cpu",
        "logprob_worst_difference": worst,
        "gradient_norm": norm,
        "gradient_norm_of_cpu": cpu_norm,
        "step_cosine": cosine,
        "first_step_s": first_step,
    })))
}

fn row(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_agrees_with_itself() {
        let rows = measure(Device::Cpu, 16, 1, 3).expect("it runs");
        assert!(rows[..2].iter().all(|row| row["gflop_per_s"].as_f64().is_some_and(|rate| rate > 0.0)));
        assert!(rows[2]["segment_attention"].as_f64().is_some_and(|worst| worst < 2e-5));
        assert_eq!(rows[3]["logprob_worst_difference"].as_f64(), Some(0.0));
        assert!((rows[3]["step_cosine"].as_f64().expect("a number") - 1.0).abs() < 1e-9);
    }
}
