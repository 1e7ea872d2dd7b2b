//! Fresh weights for small policies: structured, so that copying and look-up do not have to be discovered.
//!
//! In: a config and a seed. Out: host weights. Three published observations are put in from the start:
//! value and output projections that compose to a scaled identity, so that attending to a token copies it (mimetic
//! initialisation, Trockman & Kolter 2023); two heads of the first layer that attend one and two tokens back; and two
//! heads of the second layer that match a token against what those heads stored: an induction circuit (Olsson et al.
//! 2022). From plain normal weights the circuit did not form within the minutes that a laptop has; see
//! `docs/learnability.md`. Everything remains trainable.

use hypereyes_policy::checkpoint::{HostTensor, HostWeights};
use hypereyes_policy::config::ModelConfig;
use hypereyes_policy::init::{Spread, draw, normal};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Spreads above this are slips.
const MOST_SPREAD: f64 = 1000.0;

/// Scales of fresh weights. The defaults are what the shipped policy was made with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InitConfig {
    /// Standard deviation of matrices.
    pub std: f64,
    /// Standard deviation of embeddings.
    pub embedding_std: f64,
    /// Gain of the query and key norms: attention can be sharp from the start.
    pub qk_gain: f32,
    /// Whether to put the copying and induction heads in. Needs as many key heads as query heads, at least four, together
    /// as wide as the model, and two layers; without them it has no effect.
    pub induction: bool,
}

impl InitConfig {
    /// Refuses what would give weights that are no numbers, naming the key.
    ///
    /// # Errors
    /// A sentence for whoever wrote the settings.
    pub fn check(&self) -> Result<(), String> {
        let spreads = [("std", self.std), ("embedding_std", self.embedding_std), ("qk_gain", f64::from(self.qk_gain))];
        match spreads.iter().find(|(_, spread)| !(0.0..=MOST_SPREAD).contains(spread)) {
            Some((key, spread)) => Err(format!("{key} is {spread}: give a finite number of at least 0 and at most {MOST_SPREAD}")),
            None => Ok(()),
        }
    }
}

impl Default for InitConfig {
    fn default() -> Self {
        Self { std: 0.06, embedding_std: 0.1, qk_gain: 2.0, induction: true }
    }
}

/// Fresh weights.
pub fn fresh(config: &ModelConfig, init: &InitConfig, seed: u64) -> HostWeights {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let spread = Spread { std: init.std, embedding_std: init.embedding_std, qk_gain: init.qk_gain };
    let mut weights = draw(config, &spread, &mut random);
    let text = &config.text;
    let square = text.num_attention_heads == text.num_key_value_heads && text.num_attention_heads * text.head_dim == text.hidden_size;
    if init.induction && square && text.num_attention_heads >= 4 && text.num_hidden_layers >= 2 {
        put_induction(config, init, &mut weights, &mut random);
    }
    weights
}

fn put_induction(config: &ModelConfig, init: &InitConfig, weights: &mut HostWeights, random: &mut ChaCha8Rng) {
    let (d, e) = (config.text.hidden_size, config.text.head_dim);
    for layer in 0..config.text.num_hidden_layers {
        let value = orthonormal(d, d, None, random);
        let (v, o) = (name(layer, "v_proj"), name(layer, "o_proj"));
        tensor(weights, &v).iter_mut().zip(&value).for_each(|(to, from)| *to = 0.5 * from);
        for row in 0..d {
            for column in 0..d {
                let noise = (normal(random) * 0.01) as f32;
                tensor(weights, &o)[row * d + column] = value[column * d + row] + noise;
            }
        }
    }
    // A direction that every token shares gives the positional heads something to hold on to.
    let shared: Vec<f32> = unit((0..d).map(|_| normal(random) as f32).collect());
    let strength = (init.embedding_std * (d as f64).sqrt()) as f32;
    for row in tensor(weights, "model.language_model.embed_tokens.weight").chunks_exact_mut(d) {
        row.iter_mut().zip(&shared).for_each(|(value, shared)| *value += strength * shared);
    }
    // Three mutually orthogonal subspaces: what a token is, what was one back, what was two back.
    let spaces = orthonormal(3 * e, d, Some(&shared), random);
    let space = |at: usize| &spaces[at * e * d..][..e * d];
    let half = e / 2;
    let frequency: Vec<f64> = (0..half).map(|at| config.text.rope_theta.powf(-(at as f64) / half as f64)).collect();
    // Slow frequencies cannot tell neighbours apart.
    let used: Vec<f64> = frequency.iter().map(|f| if *f > 0.12 { 1.0 } else { 0.0 }).collect();
    for back in 1..=2usize {
        let rows = (back - 1) * e..back * e;
        let angle = |at: usize| frequency[at] * back as f64;
        let key: Vec<f32> = used.iter().map(|u| *u as f32).chain(std::iter::repeat_n(0.0, half)).collect();
        let query: Vec<f32> = (0..half)
            .map(|at| (used[at] * angle(at).cos()) as f32)
            .chain((0..half).map(|at| (-used[at] * angle(at).sin()) as f32))
            .collect();
        for (projection, pattern) in [("k_proj", &key), ("q_proj", &query)] {
            let matrix = tensor(weights, &name(0, projection));
            for (lane, row) in rows.clone().enumerate() {
                for (column, shared) in shared.iter().enumerate() {
                    let value = &mut matrix[row * d + column];
                    *value = *value * 0.2 + pattern[lane] * shared;
                }
            }
        }
        let v = tensor(weights, &name(0, "v_proj"));
        v[rows.start * d..rows.end * d].iter_mut().zip(space(0)).for_each(|(to, from)| *to = 0.5 * from);
        let o = tensor(weights, &name(0, "o_proj"));
        for (lane, column) in rows.enumerate() {
            for row in 0..d {
                o[row * d + column] = space(back)[lane * d + row];
            }
        }
    }
    let o = tensor(weights, &name(0, "o_proj"));
    for row in 0..d {
        o[row * d + 2 * e..(row + 1) * d].iter_mut().for_each(|value| *value *= 0.1);
    }
    for (head, (asks, finds)) in [(0, 1), (1, 2)].into_iter().enumerate() {
        for (projection, at) in [("q_proj", asks), ("k_proj", finds)] {
            let matrix = tensor(weights, &name(1, projection));
            for (to, from) in matrix[head * e * d..(head + 1) * e * d].iter_mut().zip(space(at)) {
                *to = from + (normal(random) * 0.01) as f32;
            }
        }
    }
}

fn name(layer: usize, projection: &str) -> String {
    format!("model.language_model.layers.{layer}.self_attn.{projection}.weight")
}

fn tensor<'a>(weights: &'a mut HostWeights, name: &str) -> &'a mut Vec<f32> {
    let tensor: &mut HostTensor = weights.get_mut(name).expect("a parameter of every model");
    &mut tensor.values
}

/// `rows` orthonormal vectors of width `d`, also orthogonal to `apart`, by Gram-Schmidt on normal draws.
fn orthonormal(rows: usize, d: usize, apart: Option<&[f32]>, random: &mut ChaCha8Rng) -> Vec<f32> {
    let mut basis: Vec<Vec<f32>> = apart.iter().map(|vector| vector.to_vec()).collect();
    let kept = basis.len();
    while basis.len() < rows + kept {
        let mut vector: Vec<f32> = (0..d).map(|_| normal(random) as f32).collect();
        // Twice, since one pass in f32 leaves a trace of what it removes.
        for _ in 0..2 {
            for other in &basis {
                let along: f32 = vector.iter().zip(other).map(|(a, b)| a * b).sum();
                vector.iter_mut().zip(other).for_each(|(value, other)| *value -= along * other);
            }
        }
        basis.push(unit(vector));
    }
    basis[kept..].concat()
}

fn unit(mut vector: Vec<f32>) -> Vec<f32> {
    let norm = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    vector.iter_mut().for_each(|value| *value /= norm);
    vector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases_are_orthonormal_and_apart() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let apart = unit((0..16).map(|at| at as f32).collect());
        let basis = orthonormal(6, 16, Some(&apart), &mut random);
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        for (i, a) in basis.chunks(16).enumerate() {
            assert!(dot(a, &apart).abs() < 1e-5);
            for (j, b) in basis.chunks(16).enumerate() {
                assert!((dot(a, b) - f32::from(u8::from(i == j))).abs() < 1e-5);
            }
        }
    }
}
