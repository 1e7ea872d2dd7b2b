//! The cache in host memory, for the CPU backend.
//!
//! One [`KvSlot`] of a [`KvPool`] per sequence holds, per layer and key head, keys as \[e, positions\] and values as
//! \[positions, e\]: the layout in which products read them along their rows. Keys are cut into pieces of few positions, each of
//! which lies together. A prompt is held once: siblings read it where it is, all at once, and keep only what is their own. A
//! step's rows may come from any mixture of sequences, prefill and decode alike; there is no padding.

use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use burn_flex::FlexDevice;
use rayon::prelude::*;

use super::cache::{Cache, CacheRow, slots_within};
use crate::aligned::Aligned;
use crate::backend::Cpu;
use crate::models::KeysValues;
use crate::ops::attention::{self, AttendSiblings, BLOCK, Positions, Queries};
use crate::ops::product::View;

/// Keys and values of one sequence: those of its prompt, which its siblings read as well, and its own.
#[derive(Debug)]
pub struct KvSlot {
    prompt: Option<Arc<Prompt>>,
    own: Block,
}

/// What siblings share.
#[derive(Debug)]
struct Prompt {
    block: Block,
    length: usize,
}

/// Positions whose keys lie together: two registers of the widest kind.
const PIECE: usize = 32;

/// Keys and values of a run of positions, per layer and key head.
#[derive(Debug)]
struct Block {
    keys: Aligned,
    values: Aligned,
    capacity: usize,
    e: usize,
    kv_heads: usize,
}

impl Block {
    /// `capacity` is in whole pieces.
    fn new(state: &KeysValues, capacity: usize) -> Self {
        let (e, kv_heads) = (state.width, state.heads);
        let size = state.layers * kv_heads * e * capacity;
        Self { keys: Aligned::zeros(size), values: Aligned::zeros(size), capacity, e, kv_heads }
    }

    /// The first `count` positions of a head.
    fn positions(&self, layer: usize, kv: usize, count: usize) -> Positions<'_> {
        let at = (layer * self.kv_heads + kv) * self.e * self.capacity;
        Positions { keys_et: &self.keys[at..], piece: PIECE, values_te: View::new(&self.values[at..], self.e), count }
    }
}

impl KvSlot {
    fn prompt_length(&self) -> usize {
        self.prompt.as_ref().map_or(0, |prompt| prompt.length)
    }

    /// Puts in one position's keys and values of all heads; `at` counts from the sequence's beginning.
    fn write(&mut self, layer: usize, at: usize, k: &[f32], v: &[f32]) {
        let at = at - self.prompt_length();
        let Block { keys, values, capacity, e, kv_heads } = &mut self.own;
        for kv in 0..*kv_heads {
            let block = (layer * *kv_heads + kv) * *e * *capacity;
            let piece = block + at / PIECE * PIECE * *e + at % PIECE;
            for (lane, value) in k[kv * *e..][..*e].iter().enumerate() {
                keys[piece + lane * PIECE] = *value;
            }
            values[block + at * *e..][..*e].copy_from_slice(&v[kv * *e..][..*e]);
        }
    }

    fn shared(&self, layer: usize, kv: usize) -> Positions<'_> {
        match &self.prompt {
            Some(prompt) => prompt.block.positions(layer, kv, prompt.length),
            None => self.own.positions(layer, kv, 0),
        }
    }

    fn own(&self, layer: usize, kv: usize, count: usize) -> Positions<'_> {
        self.own.positions(layer, kv, count)
    }

    /// Positions of its own that the row at `at` sees: all up to itself.
    fn seen(&self, at: usize) -> usize {
        at + 1 - self.prompt_length()
    }

    fn is_sibling_of(&self, other: &Self) -> bool {
        self.prompt.as_ref().zip(other.prompt.as_ref()).is_some_and(|(own, other)| Arc::ptr_eq(own, other))
    }
}

/// The memory of all sequences: as many blocks as the budget holds, made when first needed and used again ever after.
#[derive(Debug)]
pub struct KvPool {
    state: KeysValues,
    capacity: usize,
    slots: usize,
    held: usize,
    free: Vec<Block>,
}

impl KvPool {
    /// Positions that a slot has for `context` of them.
    pub fn capacity_of(context: usize) -> usize {
        context.next_multiple_of(PIECE)
    }

    /// Slots that there would be.
    pub fn slots_of(state: &KeysValues, context: usize, most: usize, bytes: u64) -> usize {
        slots_within(state, Self::capacity_of(context), most, bytes, size_of::<f32>())
    }

    /// Slots of `capacity` positions each: at most `most`, and no more than `bytes` hold.
    pub fn new(state: KeysValues, capacity: usize, most: usize, bytes: u64) -> Self {
        let capacity = Self::capacity_of(capacity);
        let slots = Self::slots_of(&state, capacity, most, bytes);
        Self { state, capacity, slots, held: 0, free: vec![] }
    }
}

impl Cache<Cpu> for KvPool {
    type Slot = KvSlot;
    type Plan = ();

    fn slots(&self) -> usize {
        self.slots
    }

    fn room(&self) -> usize {
        self.slots.saturating_sub(self.held)
    }

    fn take(&mut self) -> KvSlot {
        debug_assert!(self.room() > 0, "admission counts slots");
        self.held += 1;
        let own = self.free.pop().unwrap_or_else(|| Block::new(&self.state, self.capacity));
        KvSlot { prompt: None, own }
    }

    /// The siblings read the prompt where it is; its memory counts as a slot until the last of them has been given back.
    fn fork(&mut self, prompt: KvSlot, length: usize, siblings: usize) -> Vec<KvSlot> {
        if siblings == 1 {
            return vec![prompt];
        }
        let prompt = Arc::new(Prompt { block: prompt.own, length });
        (0..siblings).map(|_| KvSlot { prompt: Some(prompt.clone()), ..self.take() }).collect()
    }

    fn give_back(&mut self, slot: KvSlot) {
        let prompt = slot.prompt.and_then(Arc::into_inner).map(|prompt| prompt.block);
        for block in prompt.into_iter().chain([slot.own]) {
            self.held = self.held.saturating_sub(1);
            self.free.push(block);
        }
    }

    fn plan(&self, _: &[&mut KvSlot], _: &[CacheRow], _: &FlexDevice) {}

    fn attend(
        &self,
        (): &(),
        slots: &mut [&mut KvSlot],
        rows: &[CacheRow],
        layer: usize,
        [q, k, v]: [Tensor<Cpu, 2>; 3],
    ) -> Tensor<Cpu, 2> {
        let device = q.device();
        let host = |tensor: Tensor<Cpu, 2>| tensor.into_data().convert::<f32>().into_vec::<f32>().expect("converted to f32");
        let (q, k, v) = (host(q), host(k), host(v));
        let (e, heads, kv_heads) = (self.state.width, self.state.query_heads, self.state.heads);
        let (width, kv_width) = (heads * e, kv_heads * e);
        for (row, place) in rows.iter().enumerate() {
            let (k, v) = (&k[row * kv_width..][..kv_width], &v[row * kv_width..][..kv_width]);
            slots[place.slot].write(layer, place.at, k, v);
        }
        let slots = &*slots;
        let arch = pulp::Arch::new();
        let mut out = vec![0.0f32; rows.len() * width];
        let share = heads / kv_heads;
        let attend = |(part, out, q): (&[CacheRow], &mut [f32], &[f32]), scratch: &mut Vec<f32>| {
            let slot = &slots[part[0].slot];
            let (first, count) = (part[0].slot, part.len());
            // Rows of one sequence read the same positions, those of a head together. One row each of siblings have their prompt
            // in common, and the heads that share keys read a row's own together.
            let of_one = count > 1 && part[1].slot == first;
            for head in (0..heads).step_by(if of_one { 1 } else { share }) {
                let kv = head / share;
                let queries = Queries { rows: View::new(&q[head * e..], width), count, e };
                let (shared, out) = (slot.shared(layer, kv), &mut out[head * e..]);
                if of_one {
                    let own = slot.own(layer, kv, slot.own.capacity);
                    let seen = |row: usize| slot.seen(part[row].at);
                    arch.dispatch(attention::Attend { q: queries, shared, own, seen, scratch, out, stride: width });
                } else {
                    let own = |row: usize| {
                        let CacheRow { slot, at } = part[row];
                        slots[slot].own(layer, kv, slots[slot].seen(at))
                    };
                    arch.dispatch(AttendSiblings { q: queries, heads: share, shared, own, scratch, out, stride: width });
                }
            }
        };
        let mut parts = vec![];
        let (mut out_rest, mut q_rest, mut rest) = (out.as_mut_slice(), q.as_slice(), rows);
        // Every thread gets some.
        let most = rows.len().div_ceil(rayon::current_num_threads()).clamp(1, BLOCK);
        while !rest.is_empty() {
            let count = together(rest, slots, most);
            let (part, out, q);
            (part, rest) = rest.split_at(count);
            (out, out_rest) = out_rest.split_at_mut(count * width);
            (q, q_rest) = q_rest.split_at(count * width);
            parts.push((part, out, q));
        }
        let per_task = (ROWS_PER_TASK * parts.len()).div_ceil(rows.len().max(1));
        parts.into_par_iter().with_min_len(per_task).for_each_init(Vec::new, |scratch, part| attend(part, scratch));
        Tensor::from_data(TensorData::new(out, [rows.len(), width]), &device)
    }
}

/// How many of the first rows go together: those of one sequence, or one row each of siblings.
fn together(rows: &[CacheRow], slots: &[&mut KvSlot], most: usize) -> usize {
    let of_one = |at: usize| rows[at..].iter().take_while(|row| row.slot == rows[at].slot).take(2).count() == 1;
    let first = rows[0].slot;
    if !of_one(0) {
        return rows.iter().take(BLOCK).take_while(|row| row.slot == first).count();
    }
    (1..rows.len().min(most)).take_while(|&at| of_one(at) && slots[rows[at].slot].is_sibling_of(slots[first])).count() + 1
}

/// Rows that one task of the pool handles: one row over a few hundred positions takes microseconds, about as long as it takes
/// to hand a task over.
const ROWS_PER_TASK: usize = 4;
