//! AdamW over host copies of the weights: f32 masters and moments whatever the model computes in.
//!
//! In: summed gradients by parameter name. Out: new masters. The global norm is clipped over all parameters together;
//! decay applies to matrices only (not to norms, biases or embeddings). Follows Loshchilov & Hutter 2019 with PyTorch's
//! order of operations. State is plain vectors by name, so a checkpoint holds it exactly.

use std::collections::BTreeMap;

use hypereyes_policy::checkpoint::{HostTensor, HostWeights};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Optimiser settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimConfig {
    /// Decay of the first moment. Default 0.9.
    pub beta1: f64,
    /// Decay of the second moment. Default 0.98, as in the paper's recipe.
    pub beta2: f64,
    /// Added to the root of the second moment. Default 1e-8.
    pub eps: f64,
    /// Decoupled decay of matrices, per unit of learning rate. Default 0.1, as in the paper's recipe.
    pub weight_decay: f64,
    /// Global gradient norm above which gradients are scaled down. Default 1.
    pub clip_norm: f64,
}

impl Default for OptimConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.98, eps: 1e-8, weight_decay: 0.1, clip_norm: 1.0 }
    }
}

/// Moments and step count.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AdamW {
    /// Steps taken.
    pub steps: u64,
    /// First moments by parameter name.
    pub first: HostWeights,
    /// Second moments by parameter name.
    pub second: HostWeights,
}

/// Gradients by parameter name, row-major like the parameter.
pub type Gradients = BTreeMap<String, Vec<f32>>;

impl AdamW {
    /// Fresh moments for these weights.
    pub fn new(weights: &HostWeights) -> Self {
        let zeros = |tensor: &HostTensor| HostTensor { shape: tensor.shape.clone(), values: vec![0.0; tensor.values.len()] };
        let moments: HostWeights = weights.iter().map(|(name, tensor)| (name.clone(), zeros(tensor))).collect();
        Self { steps: 0, first: moments.clone(), second: moments }
    }

    /// One update in place; returns the gradient norm before clipping. Parameters without a gradient stay as they are.
    pub fn step(&mut self, weights: &mut HostWeights, gradients: &Gradients, config: &OptimConfig, lr: f64) -> f64 {
        let norm = gradients.values().map(|g| g.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>()).sum::<f64>().sqrt();
        if !norm.is_finite() {
            return norm;
        }
        let scale = if norm > config.clip_norm { config.clip_norm / (norm + 1e-6) } else { 1.0 } as f32;
        self.steps += 1;
        let steps = i32::try_from(self.steps).unwrap_or(i32::MAX);
        let (b1, b2) = (config.beta1 as f32, config.beta2 as f32);
        let (c1, c2) = (1.0 - config.beta1.powi(steps), (1.0 - config.beta2.powi(steps)).sqrt());
        let rate = (lr / c1) as f32;
        let (c2, eps) = (c2 as f32, config.eps as f32);
        for (name, gradient) in gradients {
            let (Some(weight), Some(first), Some(second)) = (weights.get_mut(name), self.first.get_mut(name), self.second.get_mut(name))
            else {
                continue;
            };
            let keep = if decays(name, weight) { 1.0 - (lr * config.weight_decay) as f32 } else { 1.0 };
            let lists = weight.values.par_iter_mut().zip(&mut first.values).zip(&mut second.values).zip(gradient);
            lists.with_min_len(1 << 14).for_each(|(((w, m), v), g)| {
                let g = g * scale;
                *m = b1 * *m + (1.0 - b1) * g;
                *v = b2 * *v + (1.0 - b2) * g * g;
                *w = *w * keep - rate * *m / (v.sqrt() / c2 + eps);
            });
        }
        norm
    }
}

fn decays(name: &str, tensor: &HostTensor) -> bool {
    tensor.shape.len() >= 2 && !name.contains("embed")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, shape: &[usize], values: &[f32]) -> HostWeights {
        [(name.to_owned(), HostTensor { shape: shape.to_vec(), values: values.to_vec() })].into()
    }

    /// torch.optim.AdamW(lr=0.1, betas=(0.9, 0.98), weight_decay=0.1) on w = [1, -2] with gradients [0.5, 0.25] then [0.1, -0.3].
    #[test]
    fn two_steps_follow_the_formula() {
        let mut weights = one("w", &[1, 2], &[1.0, -2.0]);
        let mut adam = AdamW::new(&weights);
        let config = OptimConfig { clip_norm: 1e9, ..Default::default() };
        let (mut w, mut m, mut v) = ([1.0f64, -2.0], [0.0f64; 2], [0.0f64; 2]);
        for (step, g) in [[0.5f64, 0.25], [0.1, -0.3]].into_iter().enumerate() {
            adam.step(&mut weights, &[("w".to_owned(), g.map(|x| x as f32).to_vec())].into(), &config, 0.1);
            for i in 0..2 {
                w[i] *= 1.0 - 0.1 * 0.1;
                m[i] = 0.9 * m[i] + 0.1 * g[i];
                v[i] = 0.98 * v[i] + 0.02 * g[i] * g[i];
                let (mh, vh) = (m[i] / (1.0 - 0.9f64.powi(step as i32 + 1)), v[i] / (1.0 - 0.98f64.powi(step as i32 + 1)));
                w[i] -= 0.1 * mh / (vh.sqrt() + 1e-8);
                assert!((f64::from(weights["w"].values[i]) - w[i]).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn clipping_is_global_and_a_broken_gradient_changes_nothing() {
        let mut weights = one("a", &[1], &[1.0]);
        weights.extend(one("b", &[1], &[1.0]));
        let mut adam = AdamW::new(&weights);
        let before = weights.clone();
        let broken: Gradients = [("a".to_owned(), vec![f32::NAN])].into();
        assert!(adam.step(&mut weights, &broken, &OptimConfig::default(), 0.1).is_nan());
        assert_eq!((weights.clone(), adam.steps), (before, 0));
        let gradients: Gradients = [("a".to_owned(), vec![3.0]), ("b".to_owned(), vec![4.0])].into();
        assert_eq!(adam.step(&mut weights, &gradients, &OptimConfig::default(), 0.1), 5.0);
        assert!((adam.first["a"].values[0] - 0.06).abs() < 1e-6);
    }
}
