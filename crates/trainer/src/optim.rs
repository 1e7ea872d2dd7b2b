//! AdamW: f32 masters and moments whatever the model computes in, here over host copies of the weights.
//!
//! In: a shard of the summed gradients. Out: new masters of that shard. The global norm is clipped over all parameters
//! together; decay applies to matrices only (not to norms, biases or embeddings). Follows Loshchilov & Hutter 2019 with
//! PyTorch's order of operations.

use std::ops::Range;

use hypereyes_policy::checkpoint::HostWeights;
use hypereyes_policy::ops::AdamStep;
use rayon::prelude::*;

use crate::config::OptimConfig;
use crate::layout::{Entry, Layout};

/// Moments of a shard, and the step count.
#[derive(Clone, Debug, PartialEq)]
pub struct AdamW {
    /// Steps taken.
    pub steps: u64,
    /// Which values of the layout's flat row this is.
    pub shard: Range<usize>,
    /// First moments.
    pub first: Vec<f32>,
    /// Second moments.
    pub second: Vec<f32>,
}

/// What update number `steps` does to a parameter; `norm` is the gradient norm over all of them before clipping.
pub fn adam_step(entry: &Entry, steps: u64, norm: f64, config: &OptimConfig, lr: f64) -> AdamStep {
    let steps = i32::try_from(steps).unwrap_or(i32::MAX);
    AdamStep {
        scale: if norm > config.clip_norm { config.clip_norm / (norm + 1e-6) } else { 1.0 } as f32,
        beta1: config.beta1 as f32,
        beta2: config.beta2 as f32,
        keep: (1.0 - lr * entry.rate * entry.decay) as f32,
        rate: (lr * entry.rate / (1.0 - config.beta1.powi(steps))) as f32,
        correction: (1.0 - config.beta2.powi(steps)).sqrt() as f32,
        eps: config.eps as f32,
    }
}

/// The sum of squares of a shard of gradients, for the global norm.
pub fn squares(gradients: &[f32]) -> f64 {
    gradients.iter().map(|value| f64::from(*value).powi(2)).sum()
}

impl AdamW {
    /// Fresh moments.
    pub fn new(shard: Range<usize>) -> Self {
        Self { steps: 0, first: vec![0.0; shard.len()], second: vec![0.0; shard.len()], shard }
    }

    /// One update of the shard's masters in place. `norm` is the gradient norm over all shards before clipping; where it is
    /// not finite nothing changes.
    pub fn step(&mut self, layout: &Layout, weights: &mut HostWeights, gradients: &[f32], norm: f64, config: &OptimConfig, lr: f64) {
        if !norm.is_finite() {
            return;
        }
        self.steps += 1;
        for piece in layout.pieces(self.shard.clone()) {
            let Some(weight) = weights.get_mut(&piece.entry.name) else { continue };
            let step = adam_step(piece.entry, self.steps, norm, config, lr);
            let masters = weight.values[piece.of_entry].par_iter_mut();
            let (first, second) = (&mut self.first[piece.of_shard.clone()], &mut self.second[piece.of_shard.clone()]);
            let lists = masters.zip(first).zip(second).zip(&gradients[piece.of_shard]);
            lists.with_min_len(1 << 14).for_each(|(((w, m), v), g)| step.one(w, m, v, *g));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypereyes_policy::checkpoint::HostTensor;

    fn one(name: &str, shape: &[usize], values: &[f32]) -> HostWeights {
        [(name.to_owned(), HostTensor { shape: shape.to_vec(), values: values.to_vec() })].into()
    }

    /// torch.optim.AdamW(lr=0.1, betas=(0.9, 0.98), weight_decay=0.1) on w = [1, -2] with gradients [0.5, 0.25] then [0.1, -0.3].
    #[test]
    fn two_steps_follow_the_formula() {
        let config = OptimConfig { clip_norm: 1e9, ..Default::default() };
        let mut weights = one("w", &[1, 2], &[1.0, -2.0]);
        let layout = Layout::of(&weights, &config);
        // Each value as a shard of its own, as two ranks would have it.
        let mut ranks = [AdamW::new(0..1), AdamW::new(1..2)];
        let (mut w, mut m, mut v) = ([1.0f64, -2.0], [0.0f64; 2], [0.0f64; 2]);
        for (step, g) in [[0.5f64, 0.25], [0.1, -0.3]].into_iter().enumerate() {
            for (rank, adam) in ranks.iter_mut().enumerate() {
                adam.step(&layout, &mut weights, &[g[rank] as f32], 1.0, &config, 0.1);
            }
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
        let config = OptimConfig::default();
        let layout = Layout::of(&weights, &config);
        let mut adam = AdamW::new(0..2);
        let before = weights.clone();
        adam.step(&layout, &mut weights, &[f32::NAN, 0.0], f64::NAN, &config, 0.1);
        assert_eq!((weights.clone(), adam.steps), (before, 0));
        let gradients = [3.0, 4.0];
        let norm = squares(&gradients).sqrt();
        assert_eq!(norm, 5.0);
        adam.step(&layout, &mut weights, &gradients, norm, &config, 0.1);
        assert!((adam.first[0] - 0.06).abs() < 1e-6);
    }
}
