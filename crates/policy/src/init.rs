//! Fresh weights, drawn from normal distributions.
//!
//! In: a config, how wide, a seed. Out: host weights. Nothing is known to them: for tests, for benchmarks, and for whoever puts a
//! structure into them.

use std::f64::consts::TAU;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::backend::Cpu;
use crate::checkpoint::{self, HostWeights};
use crate::config::ModelConfig;
use crate::models::{Model, Vlm};

/// How wide fresh weights are spread. The defaults suit models of a few million parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Standard deviation of matrices.
    pub std: f64,
    /// Standard deviation of embeddings.
    pub embedding_std: f64,
    /// Gain of the query and key norms: attention can be sharp from the start.
    pub qk_gain: f32,
}

impl Default for Spread {
    fn default() -> Self {
        Self { std: 0.06, embedding_std: 0.1, qk_gain: 2.0 }
    }
}

/// Fresh weights of a seed.
pub fn fresh(config: &ModelConfig, spread: &Spread, seed: u64) -> HostWeights {
    draw(config, spread, &mut ChaCha8Rng::seed_from_u64(seed))
}

/// Fresh weights of whatever the generator gives.
pub fn draw(config: &ModelConfig, spread: &Spread, random: &mut ChaCha8Rng) -> HostWeights {
    let mut weights = checkpoint::to_host(&Model::<Cpu>::init(config, 0, &Default::default()));
    let back = 1.0 / (2.0 * config.text.num_hidden_layers as f64).sqrt();
    for (name, tensor) in &mut weights {
        if name.ends_with("q_norm.weight") || name.ends_with("k_norm.weight") {
            tensor.values.fill(spread.qk_gain);
        } else if tensor.shape.len() >= 2 {
            let std = match name {
                name if name.contains("embed_tokens") || name.contains("pos_embed") => spread.embedding_std,
                // Visual tokens enter the residual stream at about the size of embeddings, not far above it.
                name if name.contains("merger") && name.ends_with("linear_fc2.weight") => spread.std / 3.0,
                name if name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight") => spread.std * back,
                _ => spread.std,
            };
            tensor.values.iter_mut().for_each(|value| *value = (normal(random) * std) as f32);
        }
    }
    weights
}

/// A draw from the standard normal distribution.
pub fn normal(random: &mut ChaCha8Rng) -> f64 {
    let radius = (-2.0 * (1.0 - random.random::<f64>()).ln()).sqrt();
    radius * (TAU * random.random::<f64>()).cos()
}
