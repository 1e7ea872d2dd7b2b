//! What the optimiser is told: rates, moments, parameters that are treated apart, adapters. In: settings. Out: the same, checked, by
//! themselves and against the names of a model's tensors.

use hypereyes_chassis::Findings;
use hypereyes_policy::checkpoint::HostWeights;
use serde::{Deserialize, Serialize};

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

/// Which matrices get adapters, and how large.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoraConfig {
    /// Rank of an adapter; 0 trains the matrices themselves. Default 0.
    pub rank: usize,
    /// Scale: the product counts `alpha / rank` times. Default 16.
    pub alpha: f64,
    /// Last parts of the names of the matrices that get one. Default all linear maps of attention and MLPs.
    pub targets: Vec<String>,
}

impl Default for LoraConfig {
    fn default() -> Self {
        let targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"].map(str::to_owned).to_vec();
        Self { rank: 0, alpha: 16.0, targets }
    }
}

/// Ranks above this are no low ones.
const MOST_RANK: usize = 1 << 16;

impl LoraConfig {
    /// What is wrong with the settings, whatever the model.
    pub fn findings(&self) -> Findings {
        let mut found = Findings::default();
        found.within("rank", self.rank, 0..=MOST_RANK);
        if !(self.alpha > 0.0 && (self.alpha as f32).is_finite()) {
            found.refuse("alpha", format!("is {}: give more than 0", self.alpha));
        }
        found
    }

    /// Why a model whose tensors have these names and numbers of dimensions can have no such adapters.
    pub fn misfit<'a>(&self, mut tensors: impl Iterator<Item = (&'a str, usize)>) -> Option<String> {
        let fits = self.rank == 0 || tensors.any(|(name, dimensions)| dimensions == 2 && self.wants(name));
        (!fits).then(|| format!("is {:?}: no matrix is called any of them", self.targets))
    }

    /// Whether a matrix of this name gets an adapter.
    pub(crate) fn wants(&self, name: &str) -> bool {
        let last = stem(name).rsplit('.').next();
        self.targets.iter().any(|target| last == Some(target.as_str()))
    }
}

/// A tensor's name without its last part.
pub(crate) fn stem(name: &str) -> &str {
    name.strip_suffix(".weight").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use hypereyes_policy::checkpoint::HostTensor;

    use super::*;

    #[test]
    fn settings_that_cannot_be_meant_are_named() {
        let weights: HostWeights = [("model.a".to_owned(), HostTensor { shape: vec![1], values: vec![1.0] })].into();
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
