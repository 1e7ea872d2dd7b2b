//! Matrix products of the CPU kernels, in registers: tiles of the result are summed up without copying an operand first.
//!
//! In: views of row-major buffers. Out: rows of a buffer. A general product packs both operands into tiles, which costs more
//! than the sums when one of them has few rows, as in decoding, or when the products are many and small, as in attention.
//!
//! Every element of a result is summed in an order that depends on its own row and column alone, never on how many rows
//! there are. That makes a sequence's numbers the same whoever shares its batch.
//!
//! Not known here: threads, what the rows mean.

use std::ops::Range;

use pulp::{Simd, WithSimd};

/// A body for each of up to eight numbers, which are constants in it.
macro_rules! unrolled {
    ($at:ident < $count:expr, $body:block) => {
        unrolled!($at, $count, $body, 0 1 2 3 4 5 6 7)
    };
    ($at:ident, $count:expr, $body:block, $($number:literal)*) => {
        $(if $number < $count {
            let $at = $number;
            $body
        })*
    };
}

/// A row-major view: row `r` starts at `r * stride`.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The buffer, from the first row's first element.
    pub values: &'a [f32],
    /// Elements from one row to the next.
    pub stride: usize,
}

impl<'a> View<'a> {
    /// A view of a buffer.
    pub fn new(values: &'a [f32], stride: usize) -> Self {
        Self { values, stride }
    }

    #[inline(always)]
    fn row(self, row: usize, from: usize, length: usize) -> &'a [f32] {
        &self.values[row * self.stride + from..][..length]
    }
}

/// The inner dimension is cut into pieces of this many elements, whose sums are added up.
const INNER: usize = 1024;
/// Elements of the second operand that stay in the cache while the rows of the first pass by: 128 KiB.
const KEPT: usize = 32 << 10;
/// Rows of the second operand are kept in multiples of this: no tile's width leaves a rest that would be summed one by one.
const KEPT_ROWS: usize = 24;

/// Elements of the second operand from which it is asked for ahead: 512 KiB, about what a core's own cache holds beside the
/// rest. What is near already need not be asked for.
const ASKED: usize = 128 << 10;

/// `out[i, j] = sum_k x[i, k] * w[j, k]`: rows with rows, both read along their rows. `out` has `n` rows of `m` elements,
/// `stride` apart; the inner dimension is `k`.
///
/// The few rows of `x` are copied once, in the order in which they are read and where no register's worth crosses a line of
/// the cache; `w`, which may be too large for any cache, is read where it is, and asked for one block ahead.
pub struct RowsByRows<'a> {
    /// \[n, k\]
    pub x: View<'a>,
    /// \[m, k\]
    pub w: View<'a>,
    /// Rows of `x`, rows of `w`, inner dimension.
    pub shape: (usize, usize, usize),
    /// The result.
    pub out: &'a mut [f32],
    /// Elements from one row of the result to the next.
    pub stride: usize,
}

impl WithSimd for RowsByRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, w, shape: (n, m, k), out, stride } = self;
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
                    let piece = Piece { w, from, length, stride, row, ahead: kept, share: (index, blocks) };
                    let x = &packed[row * length.div_ceil(S::F32_LANES)..];
                    let columns = columns.clone();
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
        8.. if S::REGISTER_COUNT >= 32 => 8,
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
        for at in (0..length).step_by(S::F32_LANES) {
            let width = S::F32_LANES.min(length - at);
            packed.extend((row..row + count).map(|row| simd.partial_load_f32s(x.row(row, from + at, width))));
        }
        row += count;
    }
}

/// A piece of the inner dimension of a product of rows by rows, for some rows of `x`.
#[derive(Clone, Copy)]
struct Piece<'a> {
    w: View<'a>,
    from: usize,
    length: usize,
    stride: usize,
    /// First row of the result.
    row: usize,
    /// Rows of `w` from what is summed up to what is asked for.
    ahead: usize,
    /// The part of it that these rows ask for, and of how many: all blocks of rows pass the same rows of `w`. Of none where it
    /// is not worth asking.
    share: (usize, usize),
}

impl<'a> Piece<'a> {
    /// `R` rows of the result, `C` columns at a time; returns `R`.
    #[inline(always)]
    fn rows<S: Simd, const R: usize, const C: usize>(self, simd: S, x: &[S::f32s], columns: Range<usize>, out: &mut [f32]) -> usize {
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
        out: &mut [f32],
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
        out: &mut [f32],
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
            let out = &mut out[(self.row + r) * self.stride + column..][..C];
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

/// `out[i, j] = sum_k a[i * rows + k * inner] * b[k, j]`, or added to what is there. `a` may be read along rows or columns,
/// as its two strides say; `b` and `out` are read along their rows.
pub struct RowsByColumns<'a> {
    /// The first operand, from its first element.
    pub a: &'a [f32],
    /// Its elements from one row to the next, and along the inner dimension.
    pub a_strides: (usize, usize),
    /// \[k, m\]
    pub b: View<'a>,
    /// Rows and columns of the result, inner dimension.
    pub shape: (usize, usize, usize),
    /// The result.
    pub out: &'a mut [f32],
    /// Elements from one row of the result to the next.
    pub stride: usize,
    /// Whether the result is added to what `out` holds.
    pub add: bool,
}

impl WithSimd for RowsByColumns<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let (n, ..) = self.shape;
        let mut row = 0;
        while row < n {
            row += match (n - row, S::REGISTER_COUNT >= 32) {
                (1, _) => self.rows::<S, 1, 8>(simd, row),
                (2, _) => self.rows::<S, 2, 4>(simd, row),
                (3, _) => self.rows::<S, 3, 3>(simd, row),
                (4..8, _) | (_, false) => self.rows::<S, 4, 3>(simd, row),
                (_, true) => self.rows::<S, 8, 3>(simd, row),
            };
        }
    }
}

impl RowsByColumns<'_> {
    /// `R` rows of the result, up to `V` registers of columns at a time; returns `R`.
    #[inline(always)]
    fn rows<S: Simd, const R: usize, const V: usize>(&mut self, simd: S, row: usize) -> usize {
        let (_, m, _) = self.shape;
        let whole = m / S::F32_LANES;
        let mut vector = 0;
        while vector < whole {
            // Four registers are better done as twice two than as three and one.
            let width = match whole - vector {
                left if left >= V && left != V + 1 => V,
                left if left >= 2 => 2,
                _ => 1,
            };
            match width {
                1 => self.tile::<S, R, 1>(simd, row, vector * S::F32_LANES),
                2 => self.tile::<S, R, 2>(simd, row, vector * S::F32_LANES),
                _ => self.tile::<S, R, V>(simd, row, vector * S::F32_LANES),
            }
            vector += width;
        }
        if whole * S::F32_LANES < m {
            self.edge::<S, R>(simd, row, whole * S::F32_LANES);
        }
        R
    }

    #[inline(always)]
    fn first(&self, row: usize, inner: usize) -> f32 {
        self.a[row * self.a_strides.0 + inner * self.a_strides.1]
    }

    #[inline(always)]
    fn tile<S: Simd, const R: usize, const V: usize>(&mut self, simd: S, row: usize, column: usize) {
        let (_, _, k) = self.shape;
        let length = V * S::F32_LANES;
        let mut sums = [[simd.splat_f32s(0.0); V]; R];
        for inner in 0..k {
            let b = S::as_simd_f32s(self.b.row(inner, column, length)).0;
            let b: [_; V] = std::array::from_fn(|v| b[v]);
            for r in 0..R {
                let a = simd.splat_f32s(self.first(row + r, inner));
                for v in 0..V {
                    sums[r][v] = simd.mul_add_f32s(a, b[v], sums[r][v]);
                }
            }
        }
        for r in 0..R {
            let out = S::as_mut_simd_f32s(&mut self.out[(row + r) * self.stride + column..][..length]).0;
            for v in 0..V {
                out[v] = if self.add { simd.add_f32s(out[v], sums[r][v]) } else { sums[r][v] };
            }
        }
    }

    /// The columns that fill no register.
    #[inline(always)]
    fn edge<S: Simd, const R: usize>(&mut self, simd: S, row: usize, column: usize) {
        let (_, m, k) = self.shape;
        let length = m - column;
        let mut sums = [simd.splat_f32s(0.0); R];
        for inner in 0..k {
            let b = simd.partial_load_f32s(self.b.row(inner, column, length));
            for r in 0..R {
                sums[r] = simd.mul_add_f32s(simd.splat_f32s(self.first(row + r, inner)), b, sums[r]);
            }
        }
        for r in 0..R {
            let out = &mut self.out[(row + r) * self.stride + column..][..length];
            let there = simd.partial_load_f32s(out);
            simd.partial_store_f32s(out, if self.add { simd.add_f32s(there, sums[r]) } else { sums[r] });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, salt: usize) -> Vec<f32> {
        (0..count).map(|at| ((at * 37 + salt * 101) % 211) as f32 / 100.0 - 1.0).collect()
    }

    fn close(got: f32, want: f64, what: &str) {
        assert!((f64::from(got) - want).abs() <= 1e-4 * (1.0 + want.abs()), "{what}: {got} for {want}");
    }

    #[test]
    fn rows_by_rows_equal_the_sums_whatever_the_shape() {
        for (n, m, k) in [(1, 1, 1), (1, 19, 33), (2, 7, 8), (3, 5, 100), (6, 300, 40), (9, 4, 2500), (23, 70, 1030), (4, 3, 0)] {
            let (x, w) = (numbers(n * (k + 3), 1), numbers(m * (k + 1), 2));
            let mut out = vec![7.0; n * (m + 2)];
            let product = RowsByRows { x: View::new(&x, k + 3), w: View::new(&w, k + 1), shape: (n, m, k), out: &mut out, stride: m + 2 };
            pulp::Arch::new().dispatch(product);
            for (row, column) in (0..n).flat_map(|row| (0..m).map(move |column| (row, column))) {
                let want: f64 = (0..k).map(|at| f64::from(x[row * (k + 3) + at]) * f64::from(w[column * (k + 1) + at])).sum();
                close(out[row * (m + 2) + column], want, &format!("{n}x{m}x{k} at {row}, {column}"));
            }
            assert!((0..n).all(|row| out[row * (m + 2) + m..][..2] == [7.0, 7.0]), "nothing is written beside the rows");
        }
    }

    #[test]
    fn rows_by_columns_equal_the_sums_along_rows_and_columns_of_the_first() {
        for (n, m, k) in [(1, 1, 1), (1, 70, 5), (2, 33, 9), (3, 32, 40), (5, 24, 7), (8, 100, 3), (4, 8, 0)] {
            for transposed in [false, true] {
                let (a, b) = (numbers(n * k, 3), numbers(k * (m + 1), 4));
                let a_strides = if transposed { (1, n) } else { (k, 1) };
                for add in [false, true] {
                    let mut out = vec![0.5; n * (m + 3)];
                    let product =
                        RowsByColumns { a: &a, a_strides, b: View::new(&b, m + 1), shape: (n, m, k), out: &mut out, stride: m + 3, add };
                    pulp::Arch::new().dispatch(product);
                    for (row, column) in (0..n).flat_map(|row| (0..m).map(move |column| (row, column))) {
                        let first = |at: usize| f64::from(a[row * a_strides.0 + at * a_strides.1]);
                        let sum: f64 = (0..k).map(|at| first(at) * f64::from(b[at * (m + 1) + column])).sum();
                        close(out[row * (m + 3) + column], sum + if add { 0.5 } else { 0.0 }, &format!("{n}x{m}x{k} at {row}, {column}"));
                    }
                    assert!((0..n).all(|row| out[row * (m + 3) + m..][..3] == [0.5; 3]), "nothing is written beside the rows");
                }
            }
        }
    }

    #[test]
    fn an_element_does_not_depend_on_how_many_rows_there_are() {
        let (m, k) = (50, 300);
        let (x, w) = (numbers(9 * k, 5), numbers(m * k, 6));
        let product = |n: usize| {
            let mut out = vec![0.0; n * m];
            let product = RowsByRows { x: View::new(&x, k), w: View::new(&w, k), shape: (n, m, k), out: &mut out, stride: m };
            pulp::Arch::new().dispatch(product);
            out
        };
        let all = product(9);
        for n in 1..9 {
            assert_eq!(product(n), all[..n * m], "bit for bit, with {n} rows");
        }
    }
}
