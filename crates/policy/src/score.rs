//! Log-probs of given tokens: one pass over whole sequences, logits only where asked and a chunk at a time.

use burn::tensor::{Int, Tensor, TensorData};

use crate::batch::Batch;
use crate::config::ModelConfig;
use crate::model::{Qwen3Vl, rotary_tables};
use crate::ops::{self, Asked, Kernels, Segments};

/// A token whose log-prob is wanted: the row that predicts it and its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Row in the batch, of the token *before*.
    pub row: usize,
    /// Id of the token predicted.
    pub token: u32,
}

/// Hidden states \[rows, d\] of a batch.
pub fn hidden<B: Kernels>(model: &Qwen3Vl<B>, config: &ModelConfig, batch: &Batch, device: &B::Device) -> Tensor<B, 2> {
    let pictures: Vec<_> = batch.pictures.iter().map(AsRef::as_ref).collect();
    let visual = model.see(&pictures, device);
    let rotary = rotary_tables(&config.text, &batch.rows.positions, device);
    let segments = Segments::of_lengths(&batch.lengths, true, config.text.num_attention_heads, config.text.num_key_value_heads);
    model.hidden(&batch.rows, &rotary, visual.as_ref(), &mut &*segments, device)
}

/// Log-probs \[targets\] at `temperature` (logits are divided by it), differentiable.
pub fn logprobs<B: Kernels>(model: &Qwen3Vl<B>, hidden: Tensor<B, 2>, targets: &[Target], temperature: f64) -> Tensor<B, 1> {
    let device = hidden.device();
    let rows: Vec<i64> = targets.iter().map(|target| target.row as i64).collect();
    let rows = Tensor::<B, 1, Int>::from_data(TensorData::new(rows, [targets.len()]), &device);
    let asked = Asked { tokens: targets.iter().map(|target| target.token).collect(), temperature };
    ops::token_logprobs(hidden.select(0, rows), model.head(), &asked)
}
