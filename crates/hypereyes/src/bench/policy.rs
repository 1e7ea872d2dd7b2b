//! The policy: log-probs of given sequences, and a training step.
//!
//! In: a model, a number of sequences and their length. Out: one row with tokens per second of both.

use anyhow::Result;
use hypereyes_learner::optim::OptimConfig;
use hypereyes_learner::trainer::{Sample, Trainer};
use hypereyes_policy::backend::Cpu;
use hypereyes_policy::batch::Batch;
use hypereyes_policy::checkpoint::{self, HostWeights};
use hypereyes_policy::config::ModelConfig;
use hypereyes_policy::model::Qwen3Vl;
use hypereyes_policy::score::{self, Target};
use serde_json::{Map, Value};

use super::{median, seconds, tokens};

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Sequences of a step.
    pub sequences: usize,
    /// Tokens of each.
    pub length: usize,
    /// Tokens of one pass; a step is several passes.
    pub micro_tokens: usize,
    /// Runs, of which the median counts.
    pub repeats: usize,
}

/// Measures log-probs without gradients, then steps: forward, backward, global norm, AdamW.
pub fn measure(model: &ModelConfig, weights: &HostWeights, load: Load, seed: u64) -> Result<Map<String, Value>> {
    let sequence = |number: usize| tokens(load.length, model.text.vocab_size, seed + number as u64);
    let sample = |number| Sample { tokens: sequence(number), pictures: vec![], trained: (1..load.length).collect() };
    let samples: Vec<Sample> = (0..load.sequences).map(sample).collect();
    let total = (load.sequences * load.length) as f64;

    let device = Default::default();
    let built = checkpoint::from_host(Qwen3Vl::<Cpu>::init(model, 0, &device), weights)?;
    let mut batch = Batch::default();
    let mut targets = vec![];
    for (number, sample) in samples.iter().enumerate() {
        batch.push(model, &sample.tokens, &[])?;
        targets.extend(sample.trained.iter().map(|at| Target { row: number * load.length + at - 1, token: sample.tokens[*at] }));
    }
    let scoring = || {
        let hidden = score::hidden(&built, model, &batch, &device);
        let values = score::logprobs(&built, hidden, &targets, 1.0).into_data();
        assert_eq!(values.num_elements(), targets.len());
    };
    scoring();
    let forward = median((0..load.repeats).map(|_| seconds(scoring)).collect());

    let mut trainer = Trainer::new(model.clone(), weights.clone(), OptimConfig::default(), load.micro_tokens)?;
    let share = -1.0 / targets.len() as f32;
    let mut step = || -> Result<f64> {
        let began = std::time::Instant::now();
        trainer.accumulate(&samples, 1.0, |indices, _| indices.iter().map(|at| vec![share; samples[*at].trained.len()]).collect())?;
        trainer.step(1e-4)?;
        Ok(began.elapsed().as_secs_f64())
    };
    step()?;
    let train = median((0..load.repeats).map(|_| step()).collect::<Result<_>>()?);

    let mut row = Map::new();
    row.insert("sequences".into(), load.sequences.into());
    row.insert("length".into(), load.length.into());
    row.insert("logprob_tokens_per_s".into(), (total / forward).into());
    row.insert("train_tokens_per_s".into(), (total / train).into());
    row.insert("train_step_s".into(), train.into());
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Size;

    #[test]
    fn a_step_has_positive_speeds() {
        let model = Size::Tiny.model();
        let weights = hypereyes_policy::init::fresh(&model, &Default::default(), 1);
        let row = measure(&model, &weights, Load { sequences: 2, length: 16, micro_tokens: 16, repeats: 1 }, 3).expect("it runs");
        for key in ["logprob_tokens_per_s", "train_tokens_per_s", "train_step_s"] {
            assert!(row[key].as_f64().is_some_and(|value| value > 0.0), "{key}");
        }
    }
}
