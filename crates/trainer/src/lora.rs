//! Low-rank adapters (Hu et al. 2021): a matrix is trained as `W + alpha / rank * B A`, with `A` \[rank, in\] and `B`
//! \[out, rank\]; everything else stays as it is.
//!
//! In: weights by name, gradients to whole matrices. Out: adapters, gradients to them, and the matrices that they make. The
//! model itself never hears of adapters: it is given the sums, and so are the actors. What is saved is optimiser state; a pass
//! costs what it costs without.

use hypereyes_policy::checkpoint::{HostTensor, HostWeights};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::config::{LoraConfig, stem};
use crate::layout::Gradients;

const A: &str = ".lora_A.weight";
const B: &str = ".lora_B.weight";

/// The matrices under adapters, as they were before.
#[derive(Clone, Debug)]
pub struct Lora {
    base: HostWeights,
    rank: usize,
    scale: f32,
}

impl Lora {
    /// Takes adapters out of `weights`, or makes fresh ones (`B` is zero: nothing changes at first); `None` when none are wanted.
    ///
    /// # Errors
    /// A text that names the setting.
    pub fn split(weights: &mut HostWeights, config: &LoraConfig) -> Result<Option<(Self, HostWeights)>, String> {
        let names: Vec<String> = weights.keys().filter(|name| name.ends_with(A) || name.ends_with(B)).cloned().collect();
        let mut adapters: HostWeights = names.into_iter().filter_map(|name| weights.remove_entry(&name)).collect();
        if config.rank == 0 {
            return if adapters.is_empty() { Ok(None) } else { Err("lora.rank = 0, but the checkpoint holds adapters".into()) };
        }
        if !(config.alpha.is_finite() && config.alpha > 0.0) {
            return Err(format!("lora.alpha = {}: give more than 0", config.alpha));
        }
        let wanted = |name: &str, tensor: &HostTensor| tensor.shape.len() == 2 && config.wants(name);
        let base: HostWeights =
            weights.iter().filter(|(name, tensor)| wanted(name, tensor)).map(|(name, tensor)| (name.clone(), tensor.clone())).collect();
        if base.is_empty() {
            return Err(format!("lora.targets: no matrix is called any of {:?}", config.targets));
        }
        let mut random = ChaCha8Rng::seed_from_u64(0);
        for (name, tensor) in &base {
            let (out, inputs) = (tensor.shape[0], tensor.shape[1]);
            // As the published implementation draws it: uniform within 1 / sqrt(in).
            let bound = 1.0 / (inputs as f32).sqrt();
            let mut drawn = || (0..config.rank * inputs).map(|_| random.random_range(-bound..bound)).collect();
            let fresh_a = HostTensor { shape: vec![config.rank, inputs], values: drawn() };
            let fresh_b = HostTensor { shape: vec![out, config.rank], values: vec![0.0; out * config.rank] };
            for (suffix, fresh) in [(A, fresh_a), (B, fresh_b)] {
                let name = format!("{}{suffix}", stem(name));
                let found = adapters.entry(name.clone()).or_insert_with(|| fresh.clone());
                if found.shape != fresh.shape {
                    return Err(format!(
                        "lora: {name} of the checkpoint has shape {:?}, the settings ask for {:?}",
                        found.shape, fresh.shape
                    ));
                }
            }
        }
        if adapters.len() != 2 * base.len() {
            return Err("lora.targets: the checkpoint holds adapters of other matrices".into());
        }
        let lora = Self { base, rank: config.rank, scale: (config.alpha / config.rank as f64) as f32 };
        lora.merge(&adapters, weights);
        Ok(Some((lora, adapters)))
    }

    /// Gradients to adapters, of gradients to whole matrices: `dA = s B^T dW`, `dB = s dW A^T`.
    pub fn project(&self, gradients: &Gradients, adapters: &HostWeights) -> Gradients {
        let mut projected = Gradients::new();
        for (name, tensor) in &self.base {
            let Some(gradient) = gradients.get(name) else { continue };
            let (a, b) = (format!("{}{A}", stem(name)), format!("{}{B}", stem(name)));
            let (Some(of_a), Some(of_b)) = (adapters.get(&a), adapters.get(&b)) else { continue };
            let (rank, inputs) = (self.rank, tensor.shape[1]);
            let mut da = vec![0.0f32; rank * inputs];
            da.par_chunks_mut(inputs).enumerate().for_each(|(at, row)| {
                for (weights, gradient) in of_b.values.chunks(rank).zip(gradient.chunks(inputs)) {
                    let weight = self.scale * weights[at];
                    row.iter_mut().zip(gradient).for_each(|(sum, value)| *sum += weight * value);
                }
            });
            let mut db = vec![0.0f32; of_b.values.len()];
            db.par_chunks_mut(rank).zip(gradient.par_chunks(inputs)).for_each(|(row, gradient)| {
                for (value, of_a) in row.iter_mut().zip(of_a.values.chunks(inputs)) {
                    *value = self.scale * of_a.iter().zip(gradient).map(|(a, g)| a * g).sum::<f32>();
                }
            });
            projected.insert(a, da);
            projected.insert(b, db);
        }
        projected
    }

    /// Puts `W + s B A` into the matrices' places.
    pub fn merge(&self, adapters: &HostWeights, weights: &mut HostWeights) {
        for (name, base) in &self.base {
            let (a, b) = (adapters.get(&format!("{}{A}", stem(name))), adapters.get(&format!("{}{B}", stem(name))));
            let (Some(a), Some(b), Some(merged)) = (a, b, weights.get_mut(name)) else { continue };
            let inputs = base.shape[1];
            let rows = merged.values.par_chunks_mut(inputs).zip(base.values.par_chunks(inputs)).zip(b.values.par_chunks(self.rank));
            rows.for_each(|((row, base), of_b)| {
                row.copy_from_slice(base);
                for (weight, of_a) in of_b.iter().zip(a.values.chunks(inputs)) {
                    row.iter_mut().zip(of_a).for_each(|(sum, value)| *sum += self.scale * weight * value);
                }
            });
        }
    }

    /// Weights as a checkpoint keeps them: the matrices as they were, and the adapters beside them.
    pub fn apart(&self, adapters: &HostWeights, weights: &HostWeights) -> HostWeights {
        let mut all = weights.clone();
        all.extend(self.base.iter().chain(adapters).map(|(name, tensor)| (name.clone(), tensor.clone())));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights() -> HostWeights {
        let tensor = |shape: [usize; 2], salt: usize| HostTensor {
            shape: shape.to_vec(),
            values: (0..shape[0] * shape[1]).map(|at| ((at * 37 + salt) % 19) as f32 * 0.1 - 0.9).collect(),
        };
        [("l.0.q_proj.weight", tensor([5, 3], 1)), ("l.0.o_proj.weight", tensor([3, 4], 2)), ("embed.weight", tensor([4, 3], 3))]
            .into_iter()
            .map(|(name, tensor)| (name.to_owned(), tensor))
            .collect()
    }

    fn config() -> LoraConfig {
        LoraConfig { rank: 2, alpha: 3.0, targets: vec!["q_proj".into(), "o_proj".into()] }
    }

    #[test]
    fn fresh_adapters_change_nothing_and_what_is_kept_apart_comes_together_again() {
        let mut merged = weights();
        let (lora, mut adapters) = Lora::split(&mut merged, &config()).unwrap().unwrap();
        assert_eq!((merged.clone(), adapters.len()), (weights(), 4));
        adapters
            .get_mut("l.0.q_proj.lora_B.weight")
            .unwrap()
            .values
            .iter_mut()
            .enumerate()
            .for_each(|(at, value)| *value = at as f32 * 0.1);
        lora.merge(&adapters, &mut merged);
        assert_ne!(merged["l.0.q_proj.weight"], weights()["l.0.q_proj.weight"]);
        assert_eq!((&merged["l.0.o_proj.weight"], &merged["embed.weight"]), (&weights()["l.0.o_proj.weight"], &weights()["embed.weight"]));
        let mut apart = lora.apart(&adapters, &merged);
        assert_eq!(apart["l.0.q_proj.weight"], weights()["l.0.q_proj.weight"]);
        let (_, again) = Lora::split(&mut apart, &config()).unwrap().unwrap();
        assert_eq!((apart, again), (merged, adapters));
    }

    #[test]
    fn gradients_follow_finite_differences() {
        let mut merged = weights();
        let (lora, mut adapters) = Lora::split(&mut merged, &config()).unwrap().unwrap();
        adapters
            .values_mut()
            .flat_map(|tensor| &mut tensor.values)
            .enumerate()
            .for_each(|(at, value)| *value += (at as f32 * 0.7).sin() * 0.3);
        // A loss that is linear in the matrices: its gradient to them is what multiplies them.
        let gradients: Gradients =
            weights().iter().map(|(name, tensor)| (name.clone(), tensor.values.iter().map(|value| value * 0.5 + 0.1).collect())).collect();
        let loss = |adapters: &HostWeights| -> f64 {
            let mut merged = weights();
            lora.merge(adapters, &mut merged);
            let of = |name: &String, gradient: &Vec<f32>| -> f64 {
                merged[name].values.iter().zip(gradient).map(|(w, g)| f64::from(*w) * f64::from(*g)).sum()
            };
            gradients.iter().map(|(name, gradient)| of(name, gradient)).sum()
        };
        let projected = lora.project(&gradients, &adapters);
        assert_eq!(projected.len(), 4);
        for (name, gradient) in &projected {
            for at in 0..gradient.len() {
                let moved = |by: f32| {
                    let mut adapters = adapters.clone();
                    adapters.get_mut(name).unwrap().values[at] += by;
                    loss(&adapters)
                };
                let slope = (moved(0.05) - moved(-0.05)) / 0.1;
                assert!((slope - f64::from(gradient[at])).abs() < 1e-4, "{name}[{at}]: {slope} and {}", gradient[at]);
            }
        }
    }

    #[test]
    fn settings_that_do_not_fit_are_named() {
        let refuse = |weights: &mut HostWeights, change: fn(&mut LoraConfig)| {
            let mut config = config();
            change(&mut config);
            Lora::split(weights, &config).unwrap_err()
        };
        assert!(refuse(&mut weights(), |config| config.targets = vec!["nothing".into()]).contains("lora.targets"));
        assert!(refuse(&mut weights(), |config| config.alpha = -1.0).contains("lora.alpha"));
        let mut merged = weights();
        let (lora, adapters) = Lora::split(&mut merged, &config()).unwrap().unwrap();
        let apart = lora.apart(&adapters, &merged);
        assert!(refuse(&mut apart.clone(), |config| config.rank = 0).contains("holds adapters"));
        assert!(refuse(&mut apart.clone(), |config| config.rank = 3).contains("has shape"));
        assert!(refuse(&mut apart.clone(), |config| config.targets = vec!["q_proj".into()]).contains("other matrices"));
    }
}
