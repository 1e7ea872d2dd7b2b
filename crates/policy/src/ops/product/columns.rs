//! Products of rows with columns: scores and mixtures of attention, and what goes backwards through it.
//!
//! In: rows that may also be read as columns, and a second operand that is read along its rows. Out: rows, put in or added.

use pulp::{Simd, WithSimd};

use super::View;

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
    use super::super::tests::{close, numbers};
    use super::*;

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
}
