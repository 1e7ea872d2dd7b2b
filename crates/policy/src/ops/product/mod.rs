//! Matrix products of the CPU kernels, in registers: tiles of the result are summed up where they stay until they are whole.
//!
//! In: views of row-major buffers. Out: rows of a buffer. A general product packs both operands into tiles, which costs more
//! than the sums when one of them has few rows, as in decoding, or when the products are many and small, as in attention.
//!
//! Every element of a result is summed in an order that depends on its own row and column alone, never on how many rows
//! there are. That makes a sequence's numbers the same whoever shares its batch.
//!
//! Not known here: threads, what the rows mean.

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

pub mod columns;
pub mod rows;

pub use columns::RowsByColumns;
pub use rows::RowsByRows;

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

#[cfg(test)]
mod tests {
    pub(super) fn numbers(count: usize, salt: usize) -> Vec<f32> {
        (0..count).map(|at| ((at * 37 + salt * 101) % 211) as f32 / 100.0 - 1.0).collect()
    }

    pub(super) fn close(got: f32, want: f64, what: &str) {
        assert!((f64::from(got) - want).abs() <= 1e-4 * (1.0 + want.abs()), "{what}: {got} for {want}");
    }
}
