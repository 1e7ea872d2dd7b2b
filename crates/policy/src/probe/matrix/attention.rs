//! Attention of segments, of branches, and over a cache.

use burn::tensor::{Int, Tensor, TensorData};

use super::Sheet;
use super::held::{Lie, bell, lay, poison};
use super::reference::{Attention, wide};
use crate::ops::{Branches, Kernels, Segments};

/// Lengths of segments; empty ones among them, and lengths around those of blocks.
const LENGTHS: &[(&[usize], bool)] = &[
    (&[1], true),
    (&[0, 5, 0, 0, 2], true),
    (&[2, 15, 16, 17], true),
    (&[33, 0, 31, 33], true),
    (&[63, 64, 65], false),
    (&[129, 1], false),
    (&[700], false),
];
/// Query heads and key heads.
const HEADS: &[((usize, usize), bool)] = &[((1, 1), true), ((4, 2), true), ((6, 1), false), ((8, 8), false), ((8, 1), true)];
const WIDTHS: &[(usize, bool)] = &[(6, true), (16, false), (24, true), (64, false), (72, true), (80, false), (128, false)];

pub(super) fn run<B: Kernels>(sheet: &mut Sheet<'_, B>) {
    for e in sheet.sizes(WIDTHS) {
        let size = format!("attention, heads of {e}");
        let full = sheet.extent == super::Extent::Full;
        for (heads, kv) in HEADS.iter().filter(|(_, quick)| *quick || full).map(|(heads, _)| *heads) {
            for lengths in LENGTHS.iter().filter(|(_, quick)| *quick || full).map(|(lengths, _)| *lengths) {
                for causal in [true, false] {
                    segments(sheet, &size, (heads, kv, e), lengths, causal);
                }
            }
            cached(sheet, &size, (heads, kv, e));
        }
        sheet.done(&size);
    }
}

fn segments<B: Kernels>(sheet: &mut Sheet<'_, B>, size: &str, heads: (usize, usize, usize), lengths: &[usize], causal: bool) {
    let (device, allowed) = (sheet.device.clone(), sheet.tolerances.products);
    let segments = std::sync::Arc::unwrap_or_clone(Segments::of_lengths(lengths, causal, heads.0, heads.1));
    let (n, width, kv_width) = (segments.rows(), heads.0 * heads.2, heads.1 * heads.2);
    let (q, k, v, g) = (bell(n * width, 1), bell(n * kv_width, 2), bell(n * kv_width, 3), bell(n * width, 4));
    let (wide_q, wide_k, wide_v, wide_g) = (wide(&q), wide(&k), wide(&v), wide(&g));
    let right = Attention { q: &wide_q, k: &wide_k, v: &wide_v, heads };
    // Every other segment goes on after the first that has rows and is before it.
    let trunks: Vec<Option<usize>> = (0..lengths.len()).map(|at| (0..at).find(|trunk| lengths[*trunk] > 0 && at % 2 == 1)).collect();
    let trunks: Vec<Option<usize>> = trunks.iter().map(|trunk| trunk.filter(|trunk| trunks[*trunk].is_none())).collect();
    let seen = |trunks: &[Option<usize>]| -> Vec<Vec<usize>> {
        let of = |at: usize| segments.ranges[at].clone();
        (0..lengths.len())
            .flat_map(|at| of(at).map(move |row| (at, row)))
            .map(|(at, row)| {
                let trunk = trunks.get(at).copied().flatten().map_or(0..0, of);
                trunk.chain(of(at).start..if causal { row + 1 } else { of(at).end }).collect()
            })
            .collect()
    };
    let alone = seen(&[]);
    let (out, back) = (right.forward(&alone), right.backward(&alone, &wide_g));
    let with_trunks = right.forward(&seen(&trunks));
    let branches = Branches { segments: segments.clone(), trunks };
    for lie in [Lie::Plain, Lie::AmongRows, Lie::AmongColumns] {
        let case = format!("{}/{} heads, {lengths:?}, {}, {}", heads.0, heads.1, if causal { "causal" } else { "full" }, lie.words());
        let there = |values: &[f32], width| lay::<B>(values, [n, width], lie, &device);
        let (q, k, v, g) = (there(&q, width), there(&k, kv_width), there(&v, kv_width), there(&g, width));
        poison::<B>(&[n * width, n * kv_width, n * n * heads.0], &device);
        let got = B::segment_attention(q.clone(), k.clone(), v.clone(), &segments);
        sheet.note::<2>(("segment_attention", allowed), size, &case, got, &out);
        for (got, want) in B::segment_attention_backward(q.clone(), k.clone(), v.clone(), &segments, g).into_iter().zip(&back) {
            sheet.note::<2>(("segment_attention_backward", allowed), size, &case, got, want);
        }
        sheet.note::<2>(("branch_attention", allowed), size, &case, B::branch_attention(q, k, v, &branches), &with_trunks);
    }
}

/// A cache whose other slots and later positions hold what would show if it were read: not NaN, since a plain definition
/// multiplies it by 0.
fn cached<B: Kernels>(sheet: &mut Sheet<'_, B>, size: &str, heads: (usize, usize, usize)) {
    const SLOTS: usize = 5;
    const ELSEWHERE: f32 = 1e30;
    let (device, allowed) = (sheet.device.clone(), sheet.tolerances.products);
    let (width, kv_width) = (heads.0 * heads.2, heads.1 * heads.2);
    for capacity in [50, 130] {
        let places: Vec<[usize; 2]> = vec![[0, 0], [1, capacity - 1], [4, 3], [2, 7], [2, 8], [2, 33], [3, 8]];
        let last = |slot: usize| places.iter().filter(|place| place[0] == slot).map(|place| place[1]).max().unwrap_or(0);
        let whole = |salt: usize| {
            let mut values = bell(SLOTS * capacity * kv_width, salt);
            for (at, value) in values.iter_mut().enumerate() {
                let (slot, position) = (at / (capacity * kv_width), at / kv_width % capacity);
                if position > last(slot) {
                    *value = ELSEWHERE;
                }
            }
            values
        };
        let (q, keys, values) = (bell(places.len() * width, 5), whole(6), whole(7));
        // Rows of one long list, of which each query sees a few.
        let seen: Vec<Vec<usize>> = places.iter().map(|[slot, last]| (slot * capacity..=slot * capacity + last).collect()).collect();
        let (wide_q, wide_k, wide_v) = (wide(&q), wide(&keys), wide(&values));
        let want = Attention { q: &wide_q, k: &wide_k, v: &wide_v, heads }.forward(&seen);
        let listed: Vec<i64> = places.iter().flatten().map(|place| *place as i64).collect();
        let held = |values: Vec<f32>| Tensor::<B, 3>::from_data(TensorData::new(values, [SLOTS, capacity, kv_width]), &device);
        let cache = [held(keys), held(values)].map(|held| held.into_primitive().tensor());
        let at = Tensor::<B, 2, Int>::from_data(TensorData::new(listed, [places.len(), 2]), &device).into_primitive();
        let q = lay::<B>(&q, [places.len(), width], Lie::AmongRows, &device);
        poison::<B>(&[places.len() * width], &device);
        let case = format!("{}/{} heads, {capacity} positions", heads.0, heads.1);
        sheet.note::<2>(("cached_attention", allowed), size, &case, B::cached_attention(q, cache, at, heads.0), &want);
    }
}
