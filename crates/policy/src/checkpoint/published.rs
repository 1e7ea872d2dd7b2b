//! What published checkpoints say in another way than we do.
//!
//! In: a config and tensors as a file has them. Out: the same tensors as our modules hold them: experts with their outputs
//! first (`[E, 2i, d]` and `[E, d, i]`; the published files have them transposed), and a tied table once, whichever name it had.

use std::collections::BTreeSet;

use super::names::{EMBEDDINGS, HEAD};
use super::{HostTensor, HostWeights};
use crate::config::{ExpertsConfig, ModelConfig};

/// Brings tensors into our layout.
///
/// # Errors
/// A text that names the tensor which contradicts the config.
pub fn ours(config: &ModelConfig, mut weights: HostWeights) -> Result<HostWeights, String> {
    // Of a tied pair savers keep either.
    if config.tie_word_embeddings
        && let Some(head) = weights.remove(HEAD)
        && *weights.entry(EMBEDDINGS.to_owned()).or_insert_with(|| head.clone()) != head
    {
        return Err(format!("tensor {HEAD} differs from {EMBEDDINGS}, but tie_word_embeddings is true"));
    }
    for layer in 0..config.text.num_hidden_layers {
        let Some(experts) = config.text.experts_of(layer) else { continue };
        let name = |part: &str| format!("model.language_model.layers.{layer}.mlp.experts.{part}");
        let names = [name("gate_up_proj"), name("down_proj")];
        let shapes = names.each_ref().map(|name| weights.get(name).map(|tensor| tensor.shape.as_slice()));
        if let [Some(gate_up), Some(down)] = shapes
            && inputs_first(experts, config.text.hidden_size, gate_up, down)
        {
            for name in &names {
                weights.get_mut(name).into_iter().for_each(transpose);
            }
        }
    }
    Ok(weights)
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
    layers
        .flat_map(|layer| ["gate_up_proj", "down_proj"].map(|part| format!("model.language_model.layers.{layer}.mlp.experts.{part}")))
        .collect()
}

/// The tensor with the last two of its three dimensions swapped.
pub fn transposed(tensor: &HostTensor) -> HostTensor {
    let mut turned = tensor.clone();
    transpose(&mut turned);
    turned
}

/// Swaps the last two of three dimensions.
fn transpose(tensor: &mut HostTensor) {
    let [count, rows, columns] = tensor.shape[..] else { return };
    let mut values = vec![0.0; tensor.values.len()];
    for (from, to) in tensor.values.chunks_exact(rows * columns).zip(values.chunks_exact_mut(rows * columns)) {
        for (row, line) in from.chunks_exact(columns).enumerate() {
            for (column, value) in line.iter().enumerate() {
                to[column * rows + row] = *value;
            }
        }
    }
    *tensor = HostTensor { shape: vec![count, columns, rows], values };
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

    #[test]
    fn transposing_swaps_rows_and_columns_of_each_expert() {
        let mut tensor = HostTensor { shape: vec![2, 2, 3], values: (0..12).map(|value| value as f32).collect() };
        transpose(&mut tensor);
        assert_eq!(tensor.shape, [2, 3, 2]);
        assert_eq!(tensor.values, [0.0, 3.0, 1.0, 4.0, 2.0, 5.0, 6.0, 9.0, 7.0, 10.0, 8.0, 11.0]);
    }
}
