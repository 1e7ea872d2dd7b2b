//! The policy: log-probs of given sequences, and a training step.
//!
//! In: a model, a number of sequences and their length. Out: one row with tokens per second of both.

use anyhow::Result;
use hypereyes_policy::checkpoint::HostWeights;
use hypereyes_policy::config::ModelConfig;
use hypereyes_policy::frozen::{self, ScoreOptions};
use hypereyes_policy::score::Sample;
use hypereyes_trainer::OptimConfig;
use hypereyes_trainer::{Placement, Trainer};
use serde_json::{Map, Value};

use super::{median, seconds, tokens};

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Sequences of a step.
    pub sequences: usize,
    /// Tokens of each.
    pub length: usize,
    /// Where, and tokens of one pass; a step is several passes.
    pub placement: Placement,
    /// Runs, of which the median counts.
    pub repeats: usize,
}

/// Measures log-probs without gradients, then steps: forward, backward, global norm, AdamW.
pub fn measure(model: &ModelConfig, weights: &HostWeights, load: Load, seed: u64) -> Result<Map<String, Value>> {
    let sequence = |number: usize| tokens(load.length, model, seed + number as u64);
    let sample = |number| Sample { tokens: sequence(number), pictures: vec![], asked: (1..load.length).collect(), trunk: 0 };
    let samples: Vec<Sample> = (0..load.sequences).map(sample).collect();
    let total = (load.sequences * load.length) as f64;

    let frozen = frozen::freeze(model, weights, load.placement.device, load.sequences)?;
    let scoring = || {
        let values = frozen.score(&samples, ScoreOptions::PLAIN).expect("the samples fit the model");
        assert_eq!(values.len(), samples.len());
    };
    scoring();
    let forward = median((0..load.repeats).map(|_| seconds(scoring)).collect());

    let mut trainer = Trainer::new(model.clone(), weights.clone(), OptimConfig::default(), load.placement)?;
    let share = -1.0 / (load.sequences * (load.length - 1)) as f32;
    let mut step = || -> Result<f64> {
        let began = std::time::Instant::now();
        trainer.accumulate(&samples, 1.0, |_, asked| asked.iter().map(|asked| vec![share; asked.len()]).collect())?;
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
    use crate::Size;
    use hypereyes_policy::device::Device;

    #[test]
    fn a_step_has_positive_speeds() {
        let model = Size::Tiny.model();
        let weights = hypereyes_policy::init::fresh(&model, &Default::default(), 1);
        let placement = Placement { device: Device::Cpu, micro_tokens: 16 };
        let row = measure(&model, &weights, Load { sequences: 2, length: 16, placement, repeats: 1 }, 3).expect("it runs");
        for key in ["logprob_tokens_per_s", "train_tokens_per_s", "train_step_s"] {
            assert!(row[key].as_f64().is_some_and(|value| value > 0.0), "{key}");
        }
    }
}
