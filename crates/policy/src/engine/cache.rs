//! Keys and values of sequences under way, in host memory, and attention over them.
//!
//! One [`KvSlot`] per sequence holds, per layer and key head, keys as \[e, capacity\] and values as \[capacity, e\]: the
//! layout that one query reads in contiguous passes. A step's rows may come from any mixture of sequences, prefill and
//! decode alike; there is no padding.

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;

use crate::config::TextConfig;
use crate::model::Attend;
use crate::ops::flex::attend_row;

/// Keys and values of one sequence.
#[derive(Clone, Debug)]
pub struct KvSlot {
    keys: Vec<f32>,
    values: Vec<f32>,
    capacity: usize,
}

impl KvSlot {
    /// Room for `capacity` positions.
    pub fn new(config: &TextConfig, capacity: usize) -> Self {
        let size = config.num_hidden_layers * config.num_key_value_heads * config.head_dim * capacity;
        Self { keys: vec![0.0; size], values: vec![0.0; size], capacity }
    }

    /// A copy of the first `length` positions.
    pub fn fork(&self, config: &TextConfig, length: usize) -> Self {
        let mut copy = Self::new(config, self.capacity);
        for (to, from) in copy.keys.chunks_exact_mut(self.capacity).zip(self.keys.chunks_exact(self.capacity)) {
            to[..length].copy_from_slice(&from[..length]);
        }
        let block = self.capacity * config.head_dim;
        for (to, from) in copy.values.chunks_exact_mut(block).zip(self.values.chunks_exact(block)) {
            to[..length * config.head_dim].copy_from_slice(&from[..length * config.head_dim]);
        }
        copy
    }
}

/// One row of a step: which of the step's slots it belongs to, and its index in that sequence.
#[derive(Clone, Copy, Debug)]
pub struct CacheRow {
    /// Index into the step's slots.
    pub slot: usize,
    /// Tokens of the sequence before this one.
    pub at: usize,
}

/// Attention of a step's rows over their sequences' caches.
pub struct CachedAttention<'a, 'b> {
    /// Slots of the sequences in the step.
    pub slots: &'a mut [&'b mut KvSlot],
    /// The rows, in the order of the tensors.
    pub rows: &'a [CacheRow],
    /// Heads and widths.
    pub config: &'a TextConfig,
}

impl<B: Backend> Attend<B> for CachedAttention<'_, '_> {
    fn attend(&mut self, layer: usize, q: Tensor<B, 2>, k: Tensor<B, 2>, v: Tensor<B, 2>) -> Tensor<B, 2> {
        let device = q.device();
        let host = |tensor: Tensor<B, 2>| tensor.into_data().convert::<f32>().into_vec::<f32>().expect("converted to f32");
        let (q, k, v) = (host(q), host(k), host(v));
        let (e, heads, kv_heads) = (self.config.head_dim, self.config.num_attention_heads, self.config.num_key_value_heads);
        let (width, kv_width, share) = (heads * e, kv_heads * e, heads / kv_heads);
        for (row, place) in self.rows.iter().enumerate() {
            let slot = &mut self.slots[place.slot];
            for kv in 0..kv_heads {
                let block = (layer * kv_heads + kv) * e * slot.capacity;
                let (k, v) = (&k[row * kv_width + kv * e..][..e], &v[row * kv_width + kv * e..][..e]);
                for (lane, value) in k.iter().enumerate() {
                    slot.keys[block + lane * slot.capacity + place.at] = *value;
                }
                slot.values[block + place.at * e..][..e].copy_from_slice(v);
            }
        }
        let slots = &*self.slots;
        let arch = pulp::Arch::new();
        let mut out = vec![0.0f32; self.rows.len() * width];
        let attend = |(place, (out, q)): (&CacheRow, (&mut [f32], &[f32])), scores: &mut Vec<f32>| {
            let slot = &slots[place.slot];
            let seen = place.at + 1;
            scores.resize(slot.capacity, 0.0);
            arch.dispatch(|| {
                for head in 0..heads {
                    let block = (layer * kv_heads + head / share) * e * slot.capacity;
                    let (keys, values) = (&slot.keys[block..], &slot.values[block..]);
                    attend_row(&q[head * e..][..e], keys, values, slot.capacity, seen, scores, &mut out[head * e..][..e]);
                }
            });
        };
        self.rows
            .par_iter()
            .zip(out.par_chunks_mut(width).zip(q.par_chunks(width)))
            .with_min_len(16)
            .for_each_init(Vec::new, |scores, row| attend(row, scores));
        Tensor::from_data(TensorData::new(out, [self.rows.len(), width]), &device)
    }
}
