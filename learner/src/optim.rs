//! AdamW: f32 masters and moments whatever the model computes in, here over host copies of the weights.
//!
//! In: a shard of the summed gradients. Out: new masters of that shard. The global norm is clipped over all parameters
//! together; decay applies to matrices only (not to norms, biases or embeddings). Follows Loshchilov & Hutter 2019 with
//! PyTorch's order of operations.

use std::collections::BTreeMap;
use std::ops::Range;

use hypereyes_chassis::Findings;
use hypereyes_policy::checkpoint::HostWeights;
use hypereyes_policy::ops::AdamStep;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::layout::{Entry, Layout};
use crate::lora::LoraConfig;

/// Rates and decays above this move a weight out of its range in one step.
const MOST: f64 = 1e6;

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
    /// Parameters that are treated apart; the first group whose prefix fits counts. Default none.
    pub groups: Vec<ParameterGroup>,
    /// Low-rank adapters instead of whole matrices. Default none.
    pub lora: LoraConfig,
}

/// Parameters that are treated apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParameterGroup {
    /// How their published names begin, as `model.visual.`.
    pub prefix: String,
    /// Their share of the learning rate; 0 freezes them.
    pub rate: f64,
    /// Their decay instead of [`OptimConfig::weight_decay`].
    #[serde(default)]
    pub weight_decay: Option<f64>,
}

impl Default for OptimConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.98, eps: 1e-8, weight_decay: 0.1, clip_norm: 1.0, groups: vec![], lora: LoraConfig::default() }
    }
}

impl OptimConfig {
    /// What is wrong with the settings.
    ///
    /// # Errors
    /// One text that names the key.
    pub fn check(&self, weights: &HostWeights) -> Result<(), String> {
        let mut found = self.findings();
        found.extend(self.of_model(weights.iter().map(|(name, tensor)| (name.as_str(), tensor.shape.len()))));
        found.result().map_err(|error| error.to_string())
    }

    /// What is wrong with the settings, whatever the model.
    pub fn findings(&self) -> Findings {
        let mut found = Findings::default();
        for (key, value) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            if !(0.0..1.0).contains(&value) {
                found.refuse(key, format!("is {value}: give at least 0 and less than 1"));
            }
        }
        // No norm is above infinity: nothing is clipped then. Nothing is small beside an infinite `eps`.
        if self.clip_norm.is_nan() || self.clip_norm <= 0.0 {
            found.refuse("clip_norm", format!("is {}: give more than 0", self.clip_norm));
        }
        if !((self.eps as f32).is_finite() && self.eps > 0.0 && self.eps as f32 > 0.0) {
            found.refuse("eps", format!("is {}: give more than 0", self.eps));
        }
        let mut finite = |key: &str, of: &str, value: f64| {
            if !(0.0..=MOST).contains(&value) {
                found.refuse(key, format!("is {value}{of}: give a finite number of at least 0 and at most {MOST}"));
            }
        };
        finite("weight_decay", "", self.weight_decay);
        for group in &self.groups {
            let of = format!(" of {:?}", group.prefix);
            finite("groups.rate", &of, group.rate);
            finite("groups.weight_decay", &of, group.weight_decay.unwrap_or(0.0));
        }
        found.under("lora", self.lora.findings());
        found
    }

    /// What is wrong with the settings for a model whose tensors have these names and numbers of dimensions.
    pub fn of_model<'a>(&self, tensors: impl Iterator<Item = (&'a str, usize)> + Clone) -> Findings {
        let mut found = Findings::default();
        for group in &self.groups {
            if !tensors.clone().any(|(name, _)| name.starts_with(&group.prefix)) {
                found.refuse("groups", format!("names {:?}: no parameter's name begins with it", group.prefix));
            }
        }
        if let Some(reason) = self.lora.misfit(tensors.clone()) {
            found.refuse("lora.targets", reason);
        }
        found
    }

    /// Whether no parameter with one of these names would move.
    pub fn freezes_all<'a>(&self, mut names: impl Iterator<Item = &'a str>) -> bool {
        let rate = |name: &str| self.groups.iter().find(|group| name.starts_with(&group.prefix)).map_or(1.0, |group| group.rate);
        names.all(|name| rate(name) == 0.0)
    }
}

/// Gradients by parameter name, row-major like the parameter.
pub type Gradients = BTreeMap<String, Vec<f32>>;

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

    #[test]
    fn settings_that_cannot_be_meant_are_named() {
        let weights = one("model.a", &[1], &[1.0]);
        let group = |prefix: &str, rate| OptimConfig {
            groups: vec![ParameterGroup { prefix: prefix.into(), rate, weight_decay: None }],
            ..Default::default()
        };
        assert!(group("model.", 0.0).check(&weights).is_ok());
        assert!(group("modle.", 0.5).check(&weights).unwrap_err().contains("modle."));
        assert!(group("model.", f64::NAN).check(&weights).unwrap_err().contains("rate"));
        assert!(OptimConfig { beta2: 1.0, ..Default::default() }.check(&weights).unwrap_err().contains("beta2"));
    }
}
