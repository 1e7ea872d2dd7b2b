//! Products of rows with rows: a linear map of a batch.
//!
//! In: a few rows to many, and weights \[out, in\], which may be too large for any cache. Out: a row of sums each. The rows are
//! packed once; the weights are read where they are, once for all rows, and asked for ahead.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::View;

/// The inner dimension is cut into pieces of this many elements, whose sums are added up.
const INNER: usize = 1024;
/// Elements of the second operand that stay in the cache while the rows of the first pass by: 128 KiB.
const KEPT: usize = 32 << 10;
/// Rows of the second operand are kept in multiples of this: no tile's width leaves a rest that would be summed one by one.
const KEPT_ROWS: usize = 24;

/// Most rows of the first operand that are summed up together.
const MOST_ROWS: usize = 8;

/// Elements of the second operand from which it is asked for ahead: 512 KiB, about what a core's own cache holds beside the
/// rest. What is near already need not be asked for.
const ASKED: usize = 128 << 10;

/// `out[i][j] = sum_k x[i, k] * w[j, k]`: rows with rows, both read along their rows. There are as many rows as `out` has, each of
/// which has an element for every row of `w`.
///
/// The few rows of `x` are copied once, in the order in which they are read and where no register's worth crosses a line of
/// the cache; `w`, which may be too large for any cache, is read where it is, and asked for one block ahead.
pub struct RowsByRows<'a, 'o> {
    /// \[n, k\]
    pub x: View<'a>,
    /// \[m, k\]
    pub w: View<'a>,
    /// Inner dimension.
    pub inner: usize,
    /// The result.
    pub out: &'a mut [&'o mut [f32]],
}

impl WithSimd for RowsByRows<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, w, inner: k, out } = self;
        let (n, m) = (out.len(), out.first().map_or(0, |row| row.len()));
        let blocks = if m * k > ASKED { n.div_ceil(rows_at_once::<S>(n).max(1)) } else { 0 };
        let mut packed = Vec::with_capacity(n * k.min(INNER).div_ceil(S::F32_LANES));
        for from in (0..k.max(1)).step_by(INNER) {
            let length = INNER.min(k - from);
            pack(simd, x, n, from, length, &mut packed);
            let kept = (KEPT / length.max(1)).max(1).next_multiple_of(KEPT_ROWS);
            for start in (0..m).step_by(kept) {
                let columns = start..m.min(start + kept);
                let (mut row, mut index) = (0, 0);
                while row < n {
                    let piece = Piece { w, from, length, ahead: kept, share: (index, blocks) };
                    let x = &packed[row * length.div_ceil(S::F32_LANES)..];
                    let (columns, out) = (columns.clone(), &mut out[row..]);
                    row += match (rows_at_once::<S>(n - row), S::REGISTER_COUNT >= 32) {
                        (1, _) => piece.rows::<S, 1, 8>(simd, x, columns, out),
                        (2, false) => piece.rows::<S, 2, 6>(simd, x, columns, out),
                        (3, false) => piece.rows::<S, 3, 4>(simd, x, columns, out),
                        (_, false) => piece.rows::<S, 4, 3>(simd, x, columns, out),
                        (2, true) => piece.rows::<S, 2, 8>(simd, x, columns, out),
                        (3, true) => piece.rows::<S, 3, 6>(simd, x, columns, out),
                        (4, true) => piece.rows::<S, 4, 6>(simd, x, columns, out),
                        (_, true) => piece.rows::<S, 8, 3>(simd, x, columns, out),
                    };
                    index += 1;
                }
            }
        }
    }
}

/// Rows of `x` that are summed up together when `left` are left. Sums, a value of each row of `w` and one of `x`: as many as
/// there are registers.
#[inline(always)]
fn rows_at_once<S: Simd>(left: usize) -> usize {
    match left {
        0..4 => left,
        MOST_ROWS.. if S::REGISTER_COUNT >= 32 => MOST_ROWS,
        _ => 4,
    }
}

/// A piece of the rows of `x`, as [`Piece::rows`] reads it: by blocks of rows, then along them, then by rows. Rows are filled
/// up with zeros.
#[inline(always)]
fn pack<S: Simd>(simd: S, x: View<'_>, n: usize, from: usize, length: usize, packed: &mut Vec<S::f32s>) {
    packed.clear();
    let mut row = 0;
    while row < n {
        let count = rows_at_once::<S>(n - row);
        let rows: [_; MOST_ROWS] = std::array::from_fn(|at| S::as_simd_f32s(x.row(row + at.min(count - 1), from, length)));
        // How many there are is a constant where it is common: a register's worth is too little work to count for.
        match count {
            MOST_ROWS => interleave::<S>(&rows, MOST_ROWS, packed),
            4 => interleave::<S>(&rows, 4, packed),
            count => interleave::<S>(&rows, count, packed),
        }
        if !rows[0].1.is_empty() {
            packed.extend(rows[..count].iter().map(|row| simd.partial_load_f32s(row.1)));
        }
        row += count;
    }
}

/// Whole registers of the first `count` rows.
#[inline(always)]
fn interleave<S: Simd>(rows: &[(&[S::f32s], &[f32]); MOST_ROWS], count: usize, packed: &mut Vec<S::f32s>) {
    for at in 0..rows[0].0.len() {
        packed.extend(rows[..count].iter().map(|row| row.0[at]));
    }
}

/// A piece of the inner dimension of a product of rows by rows, for some rows of `x`.
#[derive(Clone, Copy)]
struct Piece<'a> {
    w: View<'a>,
    from: usize,
    length: usize,
    /// Rows of `w` from what is summed up to what is asked for.
    ahead: usize,
    /// The part of it that these rows ask for, and of how many: all blocks of rows pass the same rows of `w`. Of none where it
    /// is not worth asking.
    share: (usize, usize),
}

impl<'a> Piece<'a> {
    /// The first `R` rows of `out`, `C` columns at a time; returns `R`.
    #[inline(always)]
    fn rows<S: Simd, const R: usize, const C: usize>(self, simd: S, x: &[S::f32s], columns: Range<usize>, out: &mut [&mut [f32]]) -> usize {
        match self.share.1 {
            0 => self.columns::<S, R, C, 0>(simd, x, columns, out),
            of if of >= C => self.columns::<S, R, C, 1>(simd, x, columns, out),
            _ => self.columns::<S, R, C, C>(simd, x, columns, out),
        }
        R
    }

    /// The same, where a tile asks for up to `A` rows of `w`.
    #[inline(always)]
    fn columns<S: Simd, const R: usize, const C: usize, const A: usize>(
        self,
        simd: S,
        x: &[S::f32s],
        columns: Range<usize>,
        out: &mut [&mut [f32]],
    ) {
        let mut column = columns.start;
        while column + C <= columns.end {
            self.tile::<S, R, C, A>(simd, x, column, self.wanted::<C, A>(column), out);
            column += C;
        }
        while column < columns.end {
            self.tile::<S, R, 1, 0>(simd, x, column, [], out);
            column += 1;
        }
    }

    /// This share of the `C` rows of `w` that are a block ahead; nothing where there are no more.
    #[inline(always)]
    fn wanted<const C: usize, const A: usize>(self, column: usize) -> [&'a [f32]; A] {
        let (index, of) = self.share;
        std::array::from_fn(|at| {
            let row = index + at * of;
            let start = (column + self.ahead + row) * self.w.stride + self.from;
            if row < C && start + self.length <= self.w.values.len() { &self.w.values[start..][..self.length] } else { &[] }
        })
    }

    /// `R` rows of the result by `C` columns. What is wanted is asked for bit by bit: many lines at once would hold up those
    /// that are needed now.
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const C: usize, const A: usize>(
        self,
        simd: S,
        x: &[S::f32s],
        column: usize,
        wanted: [&[f32]; A],
        out: &mut [&mut [f32]],
    ) {
        let ws: [_; C] = std::array::from_fn(|c| S::as_simd_f32s(self.w.row(column + c, self.from, self.length)));
        let whole = self.length / S::F32_LANES;
        let vectors: [_; C] = std::array::from_fn(|c| &ws[c].0[..whole]);
        let (x, rest) = x.split_at(whole * R);
        let mut sums = [[simd.splat_f32s(0.0); C]; R];
        for (at, x) in (0..whole).zip(x.chunks_exact(R)) {
            let w: [_; C] = std::array::from_fn(|c| vectors[c][at]);
            for wanted in wanted {
                prefetch(wanted, at * S::F32_LANES);
            }
            // One `x` at a time.
            for r in 0..R {
                for c in 0..C {
                    sums[r][c] = simd.mul_add_f32s(x[r], w[c], sums[r][c]);
                }
            }
        }
        if !ws[0].1.is_empty() {
            let w: [_; C] = std::array::from_fn(|c| simd.partial_load_f32s(ws[c].1));
            for r in 0..R {
                for c in 0..C {
                    sums[r][c] = simd.mul_add_f32s(rest[r], w[c], sums[r][c]);
                }
            }
        }
        // Written out: a loop over the sums would have them in memory, from the first round on.
        unrolled!(r < R, {
            let out = &mut out[r][column..][..C];
            unrolled!(c < C, {
                let sum = simd.reduce_sum_f32s(sums[r][c]);
                out[c] = if self.from == 0 { sum } else { out[c] + sum };
            });
        });
    }
}

/// Asks for an element of a buffer, and its line of the cache, to be brought near; beyond its end nothing happens.
#[inline(always)]
#[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables))]
fn prefetch(values: &[f32], at: usize) {
    #[cfg(target_arch = "x86_64")]
    if let (Some(value), Some(sse)) = (values.get(at), pulp::core_arch::x86::Sse::try_new()) {
        sse._mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(std::ptr::from_ref(value).cast());
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{close, numbers};
    use super::*;

    #[test]
    fn rows_by_rows_equal_the_sums_whatever_the_shape() {
        for (n, m, k) in [
            (1, 1, 1),
            (1, 19, 33),
            (2, 7, 8),
            (3, 5, 100),
            (6, 300, 40),
            (9, 4, 2500),
            (23, 70, 1030),
            (1, 300, 500),
            (9, 260, 520),
            (33, 140, 1100),
            (4, 3, 0),
        ] {
            let (x, w) = (numbers(n * (k + 3), 1), numbers(m * (k + 1), 2));
            let mut out = vec![7.0; n * (m + 2)];
            let mut rows: Vec<&mut [f32]> = out.chunks_exact_mut(m + 2).map(|row| &mut row[..m]).collect();
            pulp::Arch::new().dispatch(RowsByRows { x: View::new(&x, k + 3), w: View::new(&w, k + 1), inner: k, out: &mut rows });
            for (row, column) in (0..n).flat_map(|row| (0..m).map(move |column| (row, column))) {
                let want: f64 = (0..k).map(|at| f64::from(x[row * (k + 3) + at]) * f64::from(w[column * (k + 1) + at])).sum();
                close(out[row * (m + 2) + column], want, &format!("{n}x{m}x{k} at {row}, {column}"));
            }
            assert!((0..n).all(|row| out[row * (m + 2) + m..][..2] == [7.0, 7.0]), "nothing is written beside the rows");
        }
    }

    #[test]
    fn an_element_does_not_depend_on_how_many_rows_there_are() {
        let (m, k) = (50, 300);
        let (x, w) = (numbers(9 * k, 5), numbers(m * k, 6));
        let product = |n: usize| {
            let mut out = vec![0.0; n * m];
            let mut rows: Vec<&mut [f32]> = out.chunks_exact_mut(m).collect();
            pulp::Arch::new().dispatch(RowsByRows { x: View::new(&x, k), w: View::new(&w, k), inner: k, out: &mut rows });
            out
        };
        let all = product(9);
        for n in 1..9 {
            assert_eq!(product(n), all[..n * m], "bit for bit, with {n} rows");
        }
    }
}
