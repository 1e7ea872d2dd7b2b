//! The cache where the model is, for backends whose memory the host does not see.
//!
//! Per layer, keys and values lie in one tensor \[slots, capacity, kv * e\] each. A step writes its rows with one scatter, and
//! every row then reads its own slot where it lies. Siblings get copies of their prompt.

use std::sync::{Mutex, PoisonError};

use burn::tensor::backend::Backend;
use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData};

use super::cache::{Cache, CacheRow, slots_within};
use crate::models::KeysValues;
use crate::ops::{self, Kernels, guards};

/// One layer's keys and values.
#[derive(Debug)]
struct Layer<B: Backend> {
    keys: Tensor<B, 3>,
    values: Tensor<B, 3>,
}

/// The memory of all sequences, allocated at once.
#[derive(Debug)]
pub struct DeviceCache<B: Backend> {
    heads: usize,
    slots: usize,
    /// Positions of a slot.
    capacity: usize,
    free: Vec<usize>,
    /// One lock per layer: a step goes through them in order.
    layers: Vec<Mutex<Layer<B>>>,
}

/// Slots of a cache whose values have `value_bytes` each: no more than kernels can count the values of a layer.
pub(super) fn slots_on_gpu(state: &KeysValues, capacity: usize, most: usize, bytes: u64, value_bytes: usize) -> usize {
    let width = state.row();
    let most = most.min(guards::COUNTABLE / capacity.saturating_mul(width).max(1));
    slots_within(state, capacity, most, bytes, value_bytes)
}

impl<B: Backend> DeviceCache<B> {
    /// Slots of `capacity` positions each: at most `most`, and no more than `bytes` or the values that kernels count hold.
    pub fn new(state: &KeysValues, capacity: usize, most: usize, bytes: u64, device: &B::Device) -> Self {
        let width = state.row();
        let slots = slots_on_gpu(state, capacity, most, bytes, size_of::<B::FloatElem>());
        let shape = [slots.max(1), capacity, width];
        let layer = |_| Mutex::new(Layer { keys: Tensor::zeros(shape, device), values: Tensor::zeros(shape, device) });
        let layers = (0..state.layers).map(layer).collect();
        Self { heads: state.query_heads, slots, capacity, free: (0..slots).rev().collect(), layers }
    }

    /// Ends the pass where a slot or a position does not exist: its keys would be written over another sequence's.
    fn within(&self, slots: impl IntoIterator<Item = usize>, positions: impl IntoIterator<Item = usize>) {
        guards::must(guards::below("slot", slots, self.slots));
        guards::must(guards::below("position", positions, self.capacity));
    }

    fn layer(&self, layer: usize) -> std::sync::MutexGuard<'_, Layer<B>> {
        // A panic in a pass fails the pass; what the cache holds of other sequences is whole.
        self.layers[layer].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: Kernels> Cache<B> for DeviceCache<B> {
    type Slot = usize;
    /// (slot, position) of each row of a step, \[n, 2\].
    type Plan = Tensor<B, 2, Int>;

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
        self.within(slots.iter().copied().chain([prompt]), length.checked_sub(1));
        if length > 0 {
            let device = self.layers[0].get_mut().unwrap_or_else(PoisonError::into_inner).keys.device();
            let places: Vec<i64> = slots.iter().flat_map(|slot| (0..length).flat_map(|at| [*slot as i64, at as i64])).collect();
            let places = Tensor::<B, 2, Int>::from_data(TensorData::new(places, [siblings * length, 2]), &device);
            for layer in &mut self.layers {
                let layer = layer.get_mut().unwrap_or_else(PoisonError::into_inner);
                for held in [&mut layer.keys, &mut layer.values] {
                    let width = held.dims()[2];
                    let copy = held.clone().slice([prompt..prompt + 1, 0..length, 0..width]);
                    let copies = copy.expand([siblings, length, width]).reshape([siblings * length, width]);
                    held.inplace(|held| held.scatter_nd(places.clone(), copies, IndexingUpdateOp::Assign));
                }
            }
        }
        self.free.push(prompt);
        slots
    }

    fn give_back(&mut self, slot: usize) {
        self.free.push(slot);
    }

    fn plan(&self, slots: &[&mut usize], rows: &[CacheRow], device: &B::Device) -> Tensor<B, 2, Int> {
        self.within(rows.iter().map(|row| *slots[row.slot]), rows.iter().map(|row| row.at));
        let places: Vec<i64> = rows.iter().flat_map(|row| [*slots[row.slot] as i64, row.at as i64]).collect();
        Tensor::from_data(TensorData::new(places, [rows.len(), 2]), device)
    }

    fn attend(
        &self,
        places: &Tensor<B, 2, Int>,
        _: &mut [&mut usize],
        _: &[CacheRow],
        layer: usize,
        [q, k, v]: [Tensor<B, 2>; 3],
    ) -> Tensor<B, 2> {
        let mut held = self.layer(layer);
        held.keys.inplace(|keys| keys.scatter_nd(places.clone(), k, IndexingUpdateOp::Assign));
        held.values.inplace(|values| values.scatter_nd(places.clone(), v, IndexingUpdateOp::Assign));
        let cache = [held.keys.clone(), held.values.clone()];
        ops::cached_attention(q, cache, places.clone(), self.heads)
    }
}

#[cfg(test)]
mod tests {
    use hypereyes_domain::{Chunk, Generate, PolicyVersion, Sampled, Sampling, Sequence};

    use super::*;
    use crate::backend::Cpu;
    use crate::config::SmallShape;
    use crate::engine::host_cache::KvPool;
    use crate::engine::{EngineConfig, start};
    use crate::init;

    /// Two groups one after the other, two turns each, in an engine of either cache.
    fn story<C: Cache<Cpu> + 'static>(cache: impl Fn(KeysValues, &EngineConfig) -> C) -> Vec<Sampled> {
        let model = SmallShape { width: 32, layers: 2, heads: 2, inner: 64, vision_width: 32, vision_depth: 1 }.model(64, 61, 62, 63);
        let weights = init::fresh(&model, &Default::default(), 3);
        // Rows are fewer than prompts are long: they are read in pieces.
        let sizes = EngineConfig { max_sequences: 5, max_context: 200, max_rows: 13, ..EngineConfig::default() };
        let cache = cache(crate::models::state(&model), &sizes);
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
            DeviceCache::<Cpu>::new(&text, sizes.max_context, sizes.max_sequences, sizes.cache_bytes, &Default::default())
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
