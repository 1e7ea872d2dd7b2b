//! The cache where the model is, for backends whose memory the host does not see.
//!
//! Per layer, keys and values lie in one tensor \[slots, capacity, kv * e\]. A step writes its rows with one scatter and
//! reads with one gather per kind of row: all sequences that feed one token attend together, a sequence that feeds several
//! attends by itself. Siblings get copies of their prompt.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use burn::tensor::activation::softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, FloatDType, IndexingUpdateOp, Int, Tensor, TensorData};

use super::cache::{Cache, CacheRow, slots_within};
use crate::config::TextConfig;

/// Positions that a read is rounded up to, so that few shapes occur: kernels are compiled for some of their sizes.
const READ_STEP: usize = 128;

/// One layer's keys and values.
#[derive(Debug)]
struct Layer<B: Backend> {
    keys: Tensor<B, 3>,
    values: Tensor<B, 3>,
}

/// The memory of all sequences, allocated at once.
#[derive(Debug)]
pub struct DeviceCache<B: Backend> {
    config: TextConfig,
    capacity: usize,
    slots: usize,
    free: Vec<usize>,
    /// One lock per layer: a step goes through them in order.
    layers: Vec<Mutex<Layer<B>>>,
}

impl<B: Backend> DeviceCache<B> {
    /// Slots of `capacity` positions each: at most `most`, and no more than `bytes` hold.
    pub fn new(config: &TextConfig, capacity: usize, most: usize, bytes: u64, device: &B::Device) -> Self {
        let slots = slots_within(config, capacity, most, bytes, size_of::<B::FloatElem>());
        let shape = [slots.max(1), capacity, config.num_key_value_heads * config.head_dim];
        let layer = |_| Mutex::new(Layer { keys: Tensor::zeros(shape, device), values: Tensor::zeros(shape, device) });
        let layers = (0..config.num_hidden_layers).map(layer).collect();
        Self { config: config.clone(), capacity, slots, free: (0..slots).rev().collect(), layers }
    }

    fn layer(&self, layer: usize) -> std::sync::MutexGuard<'_, Layer<B>> {
        // A panic in a pass fails the pass; what the cache holds of other sequences is whole.
        self.layers[layer].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Rows that attend together.
#[derive(Debug)]
pub struct Run<B: Backend> {
    /// Of the step's rows.
    rows: Range<usize>,
    /// Slots that they read, \[s\]: one per row, or one for all.
    slots: Tensor<B, 1, Int>,
    sequences: usize,
    /// Positions read.
    length: usize,
    /// What each row must not see, \[rows, length\].
    hidden: Tensor<B, 2, Bool>,
}

/// A step: where its rows go, and who attends with whom.
#[derive(Debug)]
pub struct Plan<B: Backend> {
    /// (slot, position) of each row, \[n, 2\].
    places: Tensor<B, 2, Int>,
    runs: Vec<Run<B>>,
}

impl<B: Backend> Cache<B> for DeviceCache<B> {
    type Slot = usize;
    type Plan = Plan<B>;

    fn slots(&self) -> usize {
        self.slots
    }

    fn room(&self) -> usize {
        self.free.len()
    }

    fn take(&mut self) -> usize {
        self.free.pop().expect("admission counts slots")
    }

    fn fork(&mut self, prompt: usize, length: usize, siblings: usize) -> Vec<usize> {
        if siblings == 1 {
            return vec![prompt];
        }
        let slots: Vec<usize> = (0..siblings).map(|_| self.take()).collect();
        if length > 0 {
            for layer in &mut self.layers {
                let layer = layer.get_mut().unwrap_or_else(PoisonError::into_inner);
                for held in [&mut layer.keys, &mut layer.values] {
                    let width = held.dims()[2];
                    let copy = held.clone().slice([prompt..prompt + 1, 0..length, 0..width]);
                    for slot in &slots {
                        let at = [*slot..slot + 1, 0..length, 0..width];
                        held.inplace(|held| held.slice_assign(at, copy.clone()));
                    }
                }
            }
        }
        self.free.push(prompt);
        slots
    }

    fn give_back(&mut self, slot: usize) {
        self.free.push(slot);
    }

    fn plan(&self, slots: &[&mut usize], rows: &[CacheRow], device: &B::Device) -> Plan<B> {
        let places: Vec<i64> = rows.iter().flat_map(|row| [*slots[row.slot] as i64, row.at as i64]).collect();
        let mut runs: Vec<Range<usize>> = vec![];
        let mut start = 0;
        let mut single = false;
        for chunk in rows.chunk_by(|a, b| a.slot == b.slot) {
            let end = start + chunk.len();
            match runs.last_mut().filter(|_| single && chunk.len() == 1) {
                Some(run) => run.end = end,
                None => runs.push(start..end),
            }
            single = chunk.len() == 1;
            start = end;
        }
        let run = |range: Range<usize>| {
            let rows = &rows[range.clone()];
            let last = rows.iter().map(|row| row.at + 1).max().unwrap_or(1);
            let length = last.next_multiple_of(READ_STEP).min(self.capacity);
            let mut read: Vec<i64> = rows.iter().map(|row| *slots[row.slot] as i64).collect();
            read.dedup();
            let sequences = read.len();
            let hidden: Vec<bool> = rows.iter().flat_map(|row| (0..length).map(|at| at > row.at)).collect();
            Run {
                slots: Tensor::from_data(TensorData::new(read, [sequences]), device),
                sequences,
                length,
                hidden: Tensor::from_data(TensorData::new(hidden, [rows.len(), length]), device),
                rows: range,
            }
        };
        Plan { places: Tensor::from_data(TensorData::new(places, [rows.len(), 2]), device), runs: runs.into_iter().map(run).collect() }
    }

    fn attend(&self, plan: &Plan<B>, _: &mut [&mut usize], _: &[CacheRow], layer: usize, [q, k, v]: [Tensor<B, 2>; 3]) -> Tensor<B, 2> {
        let (heads, kv, e) = (self.config.num_attention_heads, self.config.num_key_value_heads, self.config.head_dim);
        let share = heads / kv;
        let mut held = self.layer(layer);
        held.keys.inplace(|keys| keys.scatter_nd(plan.places.clone(), k, IndexingUpdateOp::Assign));
        held.values.inplace(|values| values.scatter_nd(plan.places.clone(), v, IndexingUpdateOp::Assign));
        let attend = |run: &Run<B>| {
            // c rows of each of s sequences; either is 1.
            let (s, c, t) = (run.sequences, run.rows.len() / run.sequences, run.length);
            let read =
                |from: &Tensor<B, 3>| from.clone().narrow(1, 0, t).select(0, run.slots.clone()).reshape([s, t, kv, e]).swap_dims(1, 2);
            let q = q.clone().narrow(0, run.rows.start, s * c).reshape([s, c, kv, share * e]);
            let q = q.swap_dims(1, 2).reshape([s, kv, c * share, e]);
            let scores = q.matmul(read(&held.keys).transpose()).cast(FloatDType::F32) * (e as f64).powf(-0.5);
            let hidden = run.hidden.clone().reshape([s, 1, c, 1, t]).expand([s, kv, c, share, t]).reshape([s, kv, c * share, t]);
            let seen = softmax(scores.mask_fill(hidden, f32::NEG_INFINITY), 3).cast(q_dtype::<B>());
            let out = seen.matmul(read(&held.values)).reshape([s, kv, c, share * e]);
            out.swap_dims(1, 2).reshape([s * c, heads * e])
        };
        let mut parts: Vec<Tensor<B, 2>> = plan.runs.iter().map(attend).collect();
        if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, 0) }
    }
}

/// What the backend computes in.
fn q_dtype<B: Backend>() -> FloatDType {
    <B::FloatElem as burn::tensor::Element>::dtype().into()
}

#[cfg(test)]
mod tests {
    use hypereyes_domain::{Chunk, Generate, PolicyVersion, Sampled, Sampling, Sequence};

    use super::*;
    use crate::backend::Cpu;
    use crate::config::TinyConfig;
    use crate::engine::host_cache::KvPool;
    use crate::engine::{EngineConfig, start};
    use crate::init;

    /// Two groups one after the other, two turns each, in an engine of either cache.
    fn story<C: Cache<Cpu> + 'static>(cache: impl Fn(&TextConfig, &EngineConfig) -> C) -> Vec<Sampled> {
        let model = TinyConfig { width: 32, layers: 2, heads: 2, inner: 64, vision_width: 32, vision_depth: 1 }.model(64, 61, 62, 63);
        let weights = init::fresh(&model, &Default::default(), 3);
        // Rows are fewer than prompts are long: they are read in pieces.
        let sizes = EngineConfig { max_sequences: 5, max_context: 200, max_rows: 13, end_token: u32::MAX, ..EngineConfig::default() };
        let cache = cache(&model.text, &sizes);
        let engine = start::<Cpu, _>(model, &weights, sizes, PolicyVersion(0), cache, Default::default()).unwrap();
        let chunk = |count: u32, salt: u32| Chunk { tokens: (0..count).map(|at| (at * 7 + salt) % 60).collect(), pictures: vec![] };
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let mut said = vec![];
            for (salt, siblings) in [(1, 3), (5, 1)] {
                let seeds = (0..siblings).collect();
                let mut sequences = engine.start(chunk(150, salt), seeds, Sampling::of(1.0, 1.0)).await.unwrap();
                for observation in [Chunk::default(), chunk(9, salt + 2)] {
                    for sequence in &mut sequences {
                        said.push(sequence.advance(observation.clone(), 6).await.unwrap());
                    }
                }
            }
            said
        })
    }

    #[test]
    fn an_engine_says_the_same_over_either_cache() {
        let host = story(|text, sizes| KvPool::new(text, sizes.max_context, sizes.max_sequences, sizes.cache_bytes));
        let device = story(|text, sizes| {
            DeviceCache::<Cpu>::new(text, sizes.max_context, sizes.max_sequences, sizes.cache_bytes, &Default::default())
        });
        assert_eq!(host.len(), 8);
        for (host, device) in host.iter().zip(&device) {
            assert_eq!(host.tokens, device.tokens);
            for (a, b) in host.logprobs.iter().zip(&device.logprobs) {
                assert!((a - b).abs() < 1e-5, "{a} and {b}");
            }
        }
    }
}
