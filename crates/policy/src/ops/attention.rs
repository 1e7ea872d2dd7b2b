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

#[cfg(test)]
mod tests {
    use super::*;

    const E: usize = 8;
    const PIECE: usize = 32;

    fn numbers(count: usize, salt: usize) -> Vec<f32> {
        (0..count).map(|at| ((at * 37 + salt * 101) % 211) as f32 / 100.0 - 1.0).collect()
    }

    /// Keys in pieces, values, and how many of them count.
    struct Run(Vec<f32>, Vec<f32>, usize);

    impl Run {
        fn new(count: usize, salt: usize) -> Self {
            let capacity = count.next_multiple_of(PIECE);
            Self(numbers(capacity * E, salt), numbers(capacity * E, salt + 1), count)
        }

        fn positions(&self) -> Positions<'_> {
            Positions { keys_et: &self.0, piece: PIECE, values_te: View::new(&self.1, E), count: self.2 }
        }

        fn key(&self, position: usize, lane: usize) -> f64 {
            f64::from(self.0[position / PIECE * PIECE * E + lane * PIECE + position % PIECE])
        }
    }

    /// Softmax attention as it is defined, over one run and then another.
    fn defined(q: &[f32], runs: [&Run; 2]) -> Vec<f64> {
        let places: Vec<(&Run, usize)> = runs.iter().flat_map(|run| (0..run.2).map(move |at| (*run, at))).collect();
        let score = |(run, at): &(&Run, usize)| (0..E).map(|lane| f64::from(q[lane]) * run.key(*at, lane)).sum::<f64>();
        let weights: Vec<f64> = places.iter().map(|place| (score(place) / (E as f64).sqrt()).exp()).collect();
        let total: f64 = weights.iter().sum();
        let value = |lane: usize| places.iter().zip(&weights).map(|((run, at), p)| p * f64::from(run.1[at * E + lane])).sum::<f64>();
        (0..E).map(|lane| value(lane) / total).collect()
    }

    #[test]
    fn siblings_attend_together_to_what_each_would_attend_to_alone_bit_for_bit() {
        let (heads, stride) = (3, 4 * E);
        let q = numbers(4 * stride, 1);
        let prompt = Run::new(45, 10);
        let own: Vec<Run> = [1, 32, 50, 7].iter().enumerate().map(|(at, count)| Run::new(*count, 20 + 2 * at)).collect();
        let attend = |rows: std::ops::Range<usize>| {
            let mut out = vec![0.0; rows.len() * stride];
            pulp::Arch::new().dispatch(AttendSiblings {
                q: Queries { rows: View::new(&q[rows.start * stride..], stride), count: rows.len(), e: E },
                heads,
                shared: prompt.positions(),
                own: |row: usize| own[rows.start + row].positions(),
                scratch: &mut vec![],
                out: &mut out,
                stride,
            });
            out
        };
        let together = attend(0..4);
        for row in 0..4 {
            assert_eq!(together[row * stride..][..stride], attend(row..row + 1), "row {row}");
            for head in 0..heads {
                let at = row * stride + head * E;
                let query = &q[at..][..E];
                let want = defined(query, [&prompt, &own[row]]);
                assert!(together[at..][..E].iter().zip(&want).all(|(got, want)| (f64::from(*got) - want).abs() < 1e-5), "{row} {head}");
                let mut alone = vec![0.0; E];
                pulp::Arch::new().dispatch(Attend {
                    q: Queries { rows: View::new(query, E), count: 1, e: E },
                    shared: prompt.positions(),
                    own: own[row].positions(),
                    seen: |_: usize| own[row].2,
                    scratch: &mut vec![],
                    out: &mut alone,
                    stride: E,
                });
                assert_eq!(together[at..][..E], alone, "row {row}, head {head}: as one sequence's rows do");
            }
            assert!(together[row * stride + heads * E..][..E].iter().all(|beside| *beside == 0.0), "nothing is written beside the heads");
        }
    }
}
