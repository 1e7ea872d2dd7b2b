//! What files of Qwen3-VL hold in another way than its modules do.
//!
//! In: a config and tensors as files have them. Out: the same as our modules hold them: the experts of a layer in one tensor, their
//! outputs first (`[E, 2i, d]` and `[E, d, i]`; published files have them transposed, and some each expert apart), and a tied
//! table once, whichever name it had.

use std::collections::BTreeSet;

use super::names::{self, EMBEDDINGS, HEAD};
use crate::checkpoint::{HostTensor, HostWeights};
use crate::config::{ExpertsConfig, ModelConfig};
use crate::models::ExpertsApart;

/// Brings tensors into our layout.
///
/// # Errors
/// A text that names the tensor which contradicts the config.
pub fn ours(config: &ModelConfig, weights: HostWeights, apart: ExpertsApart) -> Result<HostWeights, String> {
    let mut weights = joined(weights, apart)?;
    // Of a tied pair savers keep either.
    if config.tie_word_embeddings
        && let Some(head) = weights.remove(HEAD)
        && *weights.entry(EMBEDDINGS.to_owned()).or_insert_with(|| head.clone()) != head
    {
        return Err(format!("tensor {HEAD} differs from {EMBEDDINGS}, but tie_word_embeddings is true"));
    }
    for layer in 0..config.text.num_hidden_layers {
        let Some(experts) = config.text.experts_of(layer) else { continue };
        let names = joint(layer);
        let shapes = names.each_ref().map(|name| weights.get(name).map(|tensor| tensor.shape.as_slice()));
        if let [Some(gate_up), Some(down)] = shapes
            && inputs_first(experts, config.text.hidden_size, gate_up, down)
        {
            for name in &names {
                weights.entry(name.clone()).and_modify(|tensor| *tensor = tensor.transposed());
            }
        }
    }
    Ok(weights)
}

/// The parameters, with experts that were apart joined: `[E, 2i, d]` of gate and up, `[E, d, i]` of down.
fn joined(mut weights: HostWeights, mut apart: ExpertsApart) -> Result<HostWeights, String> {
    // Layer by layer, so that no more than one is in memory twice.
    while let Some((layer, ..)) = apart.keys().next().copied() {
        let later = apart.split_off(&(layer + 1, "", 0_usize));
        let experts = std::mem::replace(&mut apart, later);
        let stem = names::experts(layer);
        let of = |projection: &'static str| -> Result<Vec<&HostTensor>, String> {
            let found: Vec<(usize, &HostTensor)> =
                experts.range((layer, projection, 0)..=(layer, projection, usize::MAX)).map(|((.., at), one)| (*at, one)).collect();
            match found.iter().enumerate().find(|(at, (expert, one))| at != expert || one.shape.len() != 2 || one.shape != found[0].1.shape)
            {
                Some((at, _)) => Err(format!("tensor {stem}.{at}.{projection}.weight is missing or has another shape than the first")),
                None => Ok(found.into_iter().map(|(_, one)| one).collect()),
            }
        };
        let (gates, ups, downs) = (of("gate_proj")?, of("up_proj")?, of("down_proj")?);
        let first = |list: &[&HostTensor]| list.first().map(|one| (one.shape[0], one.shape[1]));
        let (Some(gate), Some(up), Some(down)) = (first(&gates), first(&ups), first(&downs)) else {
            return Err(format!("tensor {stem}.0 lacks one of gate_proj, up_proj and down_proj"));
        };
        if gate != up || gates.len() != ups.len() || gates.len() != downs.len() {
            return Err(format!("tensors {stem}.*: gate_proj, up_proj and down_proj do not fit each other"));
        }
        let joined = gates.iter().zip(&ups).flat_map(|(gate, up)| gate.values.iter().chain(&up.values).copied()).collect();
        let gate_up = HostTensor { shape: vec![gates.len(), 2 * gate.0, gate.1], values: joined };
        let joined = downs.iter().flat_map(|down| down.values.iter().copied()).collect();
        let down = HostTensor { shape: vec![downs.len(), down.0, down.1], values: joined };
        for (name, tensor) in joint(layer).into_iter().zip([gate_up, down]) {
            if weights.insert(name.clone(), tensor).is_some() {
                return Err(format!("tensor {name} is there twice: as one, and expert by expert"));
            }
        }
    }
    Ok(weights)
}

/// The two parameters of a layer's experts.
fn joint(layer: usize) -> [String; 2] {
    ["gate_up_proj", "down_proj"].map(|part| format!("{}.{part}", names::experts(layer)))
}

/// Whether experts are stored with their inputs first. One of the two shapes may read both ways (when `2i = d` or `i = d`),
/// never both.
fn inputs_first(experts: &ExpertsConfig, d: usize, gate_up: &[usize], down: &[usize]) -> bool {
    let (count, inner) = (experts.count, experts.intermediate_size);
    gate_up == [count, d, 2 * inner] && down == [count, inner, d]
}

/// Names of the tensors that are written with their inputs first, as published ones are. Where a shape reads both ways,
/// transformers 5 takes it for ours, and a layer of such experts stays as it is.
pub fn turned(config: &ModelConfig) -> BTreeSet<String> {
    let d = config.text.hidden_size;
    let plain = |experts: &&ExpertsConfig| d != experts.intermediate_size && d != 2 * experts.intermediate_size;
    let layers = (0..config.text.num_hidden_layers).filter(|layer| config.text.experts_of(*layer).filter(plain).is_some());
    layers.flat_map(joint).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn square_experts_are_told_apart_by_the_other_tensor() {
        let experts = |inner| ExpertsConfig { count: 2, per_token: 1, intermediate_size: inner, every: 1, dense_layers: vec![] };
        // 2i = d: gate_up is square.
        assert!(inputs_first(&experts(4), 8, &[2, 8, 8], &[2, 4, 8]) && !inputs_first(&experts(4), 8, &[2, 8, 8], &[2, 8, 4]));
        // i = d: down is square.
        assert!(inputs_first(&experts(8), 8, &[2, 8, 16], &[2, 8, 8]) && !inputs_first(&experts(8), 8, &[2, 16, 8], &[2, 8, 8]));
    }
}
