//! Where keys and values of sequences under way are kept, and attention over them.
//!
//! A cache lends slots, one per sequence, and attends for a step's rows, which may come from any mixture of sequences,
//! prefill and decode alike; there is no padding in what it takes and gives. [`host`](super::host_cache) keeps them in host
//! memory, [`device`](super::device_cache) where the model is.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use crate::models::{Attend, KeysValues};

/// One row of a step: which of the step's slots it belongs to, and its index in that sequence.
#[derive(Clone, Copy, Debug)]
pub struct CacheRow {
    /// Index into the step's slots.
    pub slot: usize,
    /// Tokens of the sequence before this one.
    pub at: usize,
}

/// Memory for the keys and values of a bounded number of sequences.
pub trait Cache<B: Backend>: Send + Sync {
    /// The keys and values of one sequence.
    type Slot: Send + Sync;
    /// What all layers of a step share.
    type Plan;

    /// Slots that there can be.
    fn slots(&self) -> usize;

    /// Slots that can still be taken.
    fn room(&self) -> usize;

    /// An empty slot. Must not be called without [`Cache::room`].
    fn take(&mut self) -> Self::Slot;

    /// One slot per sibling, each of which goes on after the first `length` positions of `prompt`.
    fn fork(&mut self, prompt: Self::Slot, length: usize, siblings: usize) -> Vec<Self::Slot>;

    /// Takes a slot back.
    fn give_back(&mut self, slot: Self::Slot);

    /// Thinks a step through. `rows` are in the order of the tensors, those of one sequence together and ascending.
    fn plan(&self, slots: &[&mut Self::Slot], rows: &[CacheRow], device: &B::Device) -> Self::Plan;

    /// One layer of a step: keeps the rows' `k` and `v` \[n, kv * e\] and attends with `q` \[n, h * e\] to what each row's
    /// sequence has so far, itself included. Returns \[n, h * e\].
    fn attend(
        &self,
        plan: &Self::Plan,
        slots: &mut [&mut Self::Slot],
        rows: &[CacheRow],
        layer: usize,
        qkv: [Tensor<B, 2>; 3],
    ) -> Tensor<B, 2>;
}

/// Slots that a group takes beside its prompt's: one per sibling, none for a sequence that has no sibling and goes on in the
/// prompt's own.
pub fn beside_the_prompt(siblings: usize) -> usize {
    if siblings == 1 { 0 } else { siblings }
}

/// The largest group that so many slots hold.
pub fn most_siblings(slots: usize) -> usize {
    slots.saturating_sub(1).max(slots.min(1))
}

/// Slots of `capacity` positions each: at most `most`, and no more than `bytes` hold at `value_bytes` per value.
pub fn slots_within(state: &KeysValues, capacity: usize, most: usize, bytes: u64, value_bytes: usize) -> usize {
    most.min(usize::try_from(bytes / state.bytes(capacity, value_bytes).max(1)).unwrap_or(usize::MAX))
}

/// Attention of a step's rows over their sequences' caches.
pub struct CachedAttention<'a, 'b, B: Backend, C: Cache<B>> {
    cache: &'a C,
    slots: &'a mut [&'b mut C::Slot],
    rows: &'a [CacheRow],
    plan: C::Plan,
}

impl<'a, 'b, B: Backend, C: Cache<B>> CachedAttention<'a, 'b, B, C> {
    /// Attention of one step.
    pub fn new(cache: &'a C, slots: &'a mut [&'b mut C::Slot], rows: &'a [CacheRow], device: &B::Device) -> Self {
        let plan = cache.plan(slots, rows, device);
        Self { cache, slots, rows, plan }
    }
}

impl<B: Backend, C: Cache<B>> Attend<B> for CachedAttention<'_, '_, B, C> {
    fn attend(&mut self, layer: usize, q: Tensor<B, 2>, k: Tensor<B, 2>, v: Tensor<B, 2>) -> Tensor<B, 2> {
        self.cache.attend(&self.plan, self.slots, self.rows, layer, [q, k, v])
    }
}
