//! Tensors of three dimensions with the last two swapped, as published files have experts.
//!
//! In: values, end to end, in whatever type. Out: the same in the other order.

use rayon::prelude::*;

use super::StoredDtype;

/// Stored values with the last two of their three dimensions, `rows` and `columns`, swapped.
pub(super) fn transposed(bytes: &[u8], rows: usize, columns: usize, dtype: StoredDtype) -> Vec<u8> {
    match dtype {
        StoredDtype::F32 => swapped(bytes.as_chunks::<4>().0, rows, columns).into_flattened(),
        StoredDtype::Bf16 => swapped(bytes.as_chunks::<2>().0, rows, columns).into_flattened(),
    }
}

/// Rows and columns of the squares in which matrices are swapped.
const SQUARE: usize = 32;

/// Matrices of `rows` and `columns`, end to end, each with rows and columns swapped.
pub(super) fn swapped<T: Copy + Default + Send + Sync>(values: &[T], rows: usize, columns: usize) -> Vec<T> {
    let mut swapped = vec![T::default(); values.len()];
    let each = (rows * columns).max(1);
    values.par_chunks_exact(each).zip(swapped.par_chunks_exact_mut(each)).for_each(|(from, to)| swap(from, to, rows, columns));
    swapped
}

/// One matrix. A square is swapped beside the matrices: writing down a column of one whose lines are a power of two apart would drive
/// each line out of the cache before its next value comes (eight times slower at 2048 rows).
fn swap<T: Copy + Default>(from: &[T], to: &mut [T], rows: usize, columns: usize) {
    let mut square = [[T::default(); SQUARE]; SQUARE];
    for top in (0..rows).step_by(SQUARE) {
        let height = SQUARE.min(rows - top);
        for left in (0..columns).step_by(SQUARE) {
            let width = SQUARE.min(columns - left);
            for row in 0..height {
                let line = &from[(top + row) * columns + left..][..width];
                line.iter().zip(&mut square).for_each(|(value, column)| column[row] = *value);
            }
            for (at, column) in square[..width].iter().enumerate() {
                to[(left + at) * rows + top..][..height].copy_from_slice(&column[..height]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_values_change_places_as_wholes() {
        let bytes: Vec<u8> = (0..2 * 70 * 45 * 2).map(|at: usize| ((at * 31) >> 3) as u8).collect();
        let turned = transposed(&bytes, 70, 45, StoredDtype::Bf16);
        assert_eq!(turned[2 * (70 * 45 + 44 * 70 + 69)..], bytes[2 * (70 * 45 + 69 * 45 + 44)..], "the last of the second matrix");
        assert_eq!(turned[2..4], bytes[2 * 45..2 * 45 + 2], "the second of the first");
        assert_eq!(transposed(&turned, 45, 70, StoredDtype::Bf16), bytes);
        assert!(transposed(&[], 0, 5, StoredDtype::F32).is_empty());
    }
}
