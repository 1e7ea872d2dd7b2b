//! Attention of blocks of query rows over keys and values in host memory, as small matrix products.
//!
//! In: rows of one segment or one cache. Out: attended rows, or gradients. Keys come as \[e, positions\], in one piece or in
//! several, so that the scores of a block are products read along its rows; probabilities exist for one block at a time, so memory is linear in
//! positions. What a row attends to is how many positions it sees: all of a block's rows share the positions.
//!
//! Not known here: threads, caches, Burn.

use pulp::{Simd, WithSimd};

use super::product::{RowsByColumns, View};
use super::vector::{dot, exp, highest, total};

/// Query rows that share one reading of keys and values.
pub const BLOCK: usize = 16;

/// A run of positions: keys and values.
#[derive(Clone, Copy)]
pub struct Positions<'a> {
    /// Keys, transposed, in pieces one after the other: \[pieces, e, positions of a piece\].
    pub keys_et: &'a [f32],
    /// Positions of a piece. A cache has small ones: what it reads lies together, however long a sequence may become.
    pub piece: usize,
    /// Values \[positions, e\].
    pub values_te: View<'a>,
    /// Positions that count; there may be more.
    pub count: usize,
}

/// Rows of queries, gradients or results: `count` rows of `e` values.
#[derive(Clone, Copy)]
pub struct Queries<'a> {
    /// The rows.
    pub rows: View<'a>,
    /// How many.
    pub count: usize,
    /// Width of a head.
    pub e: usize,
}

/// Attention of a block of rows over two runs of positions, one after the other: what many sequences share, and a
/// sequence's own. Row `r` sees all of the first run, and `seen(r)` positions of the second.
pub struct Attend<'a, F> {
    /// The queries.
    pub q: Queries<'a>,
    /// The first run; may be empty.
    pub shared: Positions<'a>,
    /// The second run.
    pub own: Positions<'a>,
    /// Positions of the second run that each row sees; at most `own.count`.
    pub seen: F,
    /// Scratch for probabilities; grows as needed.
    pub scratch: &'a mut Vec<f32>,
    /// The result.
    pub out: &'a mut [f32],
    /// Elements from one row of the result to the next.
    pub stride: usize,
}

impl<F: Fn(usize) -> usize> WithSimd for Attend<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { q, shared, own, seen, scratch, out, stride } = self;
        let positions = shared.count + own.count;
        for start in (0..q.count).step_by(BLOCK) {
            let count = BLOCK.min(q.count - start);
            let block = Queries { rows: View::new(&q.rows.values[start * q.rows.stride..], q.rows.stride), count, ..q };
            scratch.resize(scratch.len().max(count * positions), 0.0);
            let p = &mut scratch[..count * positions];
            // No row of the block sees more of its own positions than this.
            let most = (start..start + count).map(&seen).max().unwrap_or(0);
            let own = Positions { count: most, ..own };
            scores(simd, block, shared, p, positions);
            scores(simd, block, own, &mut p[shared.count..], positions);
            for (row, p) in p.chunks_exact_mut(positions.max(1)).enumerate() {
                let sees = shared.count + seen(start + row);
                softmax_scaled(&mut p[..sees], (q.e as f32).powf(-0.5));
                p[sees..shared.count + most].fill(0.0);
            }
            let out = &mut out[start * stride..];
            weighted(simd, p, positions, count, shared, q.e, out, stride, false);
            weighted(simd, &p[shared.count..], positions, count, own, q.e, out, stride, true);
        }
    }
}

/// Attention of one row each of several sequences, for the query heads that share a key head: over what all of them have in
/// common, read once for all, and then each over its own.
pub struct AttendSiblings<'a, F> {
    /// A row of every sequence: the first of the query heads; the others lie behind it. `stride` is from one sequence to the next.
    pub q: Queries<'a>,
    /// Query heads.
    pub heads: usize,
    /// What all have in common; may be empty.
    pub shared: Positions<'a>,
    /// What else a sequence sees.
    pub own: F,
    /// Scratch for probabilities; grows as needed.
    pub scratch: &'a mut Vec<f32>,
    /// The result, laid out as the queries.
    pub out: &'a mut [f32],
    /// Elements from one sequence of the result to the next.
    pub stride: usize,
}

impl<'a, F: Fn(usize) -> Positions<'a>> WithSimd for AttendSiblings<'a, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { q, heads, shared, own, scratch, out, stride } = self;
        let (e, count) = (q.e, q.count);
        let width = shared.count + (0..count).map(|row| own(row).count).max().unwrap_or(0);
        // Probabilities: a head's rows lie together, so the heads of a row are this far apart.
        let head_stride = count * width;
        scratch.resize(scratch.len().max(heads * head_stride), 0.0);
        let p = &mut scratch[..heads * head_stride];
        let of_row = |row: usize| Queries { rows: View::new(&q.rows.values[row * q.rows.stride..], e), count: heads, e };
        for head in 0..heads {
            let of_head = Queries { rows: View::new(&q.rows.values[head * e..], q.rows.stride), ..q };
            scores(simd, of_head, shared, &mut p[head * head_stride..], width);
        }
        for row in 0..count {
            let own = own(row);
            scores(simd, of_row(row), own, &mut p[row * width + shared.count..], head_stride);
            for head in 0..heads {
                softmax_scaled(&mut p[head * head_stride + row * width..][..shared.count + own.count], (e as f32).powf(-0.5));
            }
        }
        for head in 0..heads {
            weighted(simd, &p[head * head_stride..], width, count, shared, e, &mut out[head * e..], stride, false);
        }
        for row in 0..count {
            weighted(simd, &p[row * width + shared.count..], head_stride, heads, own(row), e, &mut out[row * stride..], e, true);
        }
    }
}

/// `p[r, j] = q[r] . key[j]`.
#[inline(always)]
fn scores<S: Simd>(simd: S, q: Queries<'_>, over: Positions<'_>, p: &mut [f32], stride: usize) {
    let Positions { keys_et, piece, count, .. } = over;
    let (a, a_strides) = (q.rows.values, (q.rows.stride, 1));
    for start in (0..count).step_by(piece.max(1)) {
        let b = View::new(&keys_et[start * q.e..], piece);
        let shape = (q.count, piece.min(count - start), q.e);
        RowsByColumns { a, a_strides, b, shape, out: &mut p[start..], stride, add: false }.with_simd(simd);
    }
}

/// `out[r] (+)= sum_j p[r, j] * value[j]`.
#[inline(always)]
fn weighted<S: Simd>(
    simd: S,
    p: &[f32],
    p_stride: usize,
    rows: usize,
    over: Positions<'_>,
    e: usize,
    out: &mut [f32],
    stride: usize,
    add: bool,
) {
    RowsByColumns { a: p, a_strides: (p_stride, 1), b: over.values_te, shape: (rows, e, over.count), out, stride, add }.with_simd(simd);
}

/// `softmax(scale * scores)` in place.
#[inline(always)]
fn softmax_scaled(scores: &mut [f32], scale: f32) {
    let top = highest(scores);
    for score in scores.iter_mut() {
        *score = exp((*score - top) * scale);
    }
    let inverse = 1.0 / total(scores);
    for score in scores.iter_mut() {
        *score *= inverse;
    }
}

/// Gradients of one head over one segment; probabilities are computed again, block by block. Gradients to keys and values
/// are added to what is there, because query heads may share them.
pub struct AttendBackward<'a> {
    /// Queries of the segment.
    pub q: Queries<'a>,
    /// Gradient to the attended rows, laid out as the queries.
    pub grad: View<'a>,
    /// Keys, transposed, \[e, t\].
    pub keys_et: View<'a>,
    /// Keys \[t, e\].
    pub keys_te: View<'a>,
    /// Values, transposed, \[e, t\].
    pub values_et: View<'a>,
    /// Whether a row sees only itself and the rows before it.
    pub causal: bool,
    /// Scratch; grows as needed.
    pub scratch: &'a mut Vec<f32>,
    /// Gradient to the queries, `stride` apart.
    pub dq: &'a mut [f32],
    /// Elements from one row of `dq` to the next.
    pub stride: usize,
    /// Gradient to the keys \[t, e\].
    pub dk: &'a mut [f32],
    /// Gradient to the values \[t, e\].
    pub dv: &'a mut [f32],
}

impl WithSimd for AttendBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { q, grad, keys_et, keys_te, values_et, causal, scratch, dq, stride, dk, dv } = self;
        let (t, e) = (q.count, q.e);
        let scale = (e as f32).powf(-0.5);
        scratch.resize(scratch.len().max(2 * BLOCK * t), 0.0);
        let (p, dp) = scratch.split_at_mut(BLOCK * t);
        for start in (0..t).step_by(BLOCK) {
            let count = BLOCK.min(t - start);
            let most = if causal { start + count } else { t };
            let block = &q.rows.values[start * q.rows.stride..];
            let grad_block = &grad.values[start * grad.stride..];
            let product = |a, stride, b, out: &mut [f32]| {
                RowsByColumns { a, a_strides: (stride, 1), b, shape: (count, most, e), out, stride: t, add: false }.with_simd(simd);
            };
            product(block, q.rows.stride, keys_et, p);
            product(grad_block, grad.stride, values_et, dp);
            for (row, (p, dp)) in p.chunks_exact_mut(t).zip(dp.chunks_exact_mut(t)).take(count).enumerate() {
                let sees = if causal { start + row + 1 } else { t };
                softmax_scaled(&mut p[..sees], scale);
                p[sees..most].fill(0.0);
                let along = dot(&p[..sees], &dp[..sees]);
                for (dp, p) in dp[..most].iter_mut().zip(&p[..most]) {
                    *dp = *p * (*dp - along) * scale;
                }
            }
            let (p, ds) = (&*p, &*dp);
            let dq = &mut dq[start * stride..];
            RowsByColumns { a: ds, a_strides: (t, 1), b: keys_te, shape: (count, e, most), out: dq, stride, add: false }.with_simd(simd);
            let transposed = |a, b, out: &mut [f32]| {
                RowsByColumns { a, a_strides: (1, t), b, shape: (most, e, count), out, stride: e, add: true }.with_simd(simd);
            };
            transposed(ds, View::new(block, q.rows.stride), dk);
            transposed(p, View::new(grad_block, grad.stride), dv);
        }
    }
}
