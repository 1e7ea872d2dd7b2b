//! Vectors, and the nearest to one among them: all are looked at, which is exact, and fast as memory is.
//!
//! In: vectors of length 1, as rows of 32-bit floats. Out: the rows with the largest inner products. Knows no picture.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use rayon::prelude::*;

/// Bytes of rows that a thread takes at once, so that they stay in its cache for all queries.
const BLOCK_BYTES: usize = 256 << 10;
/// Sums that go side by side: what the compiler turns into wide instructions.
const SIDE: usize = 16;

/// Rows of one width, in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Vectors {
    width: usize,
    values: Vec<f32>,
}

impl Vectors {
    /// Of rows end to end.
    ///
    /// # Panics
    /// The width is 0, or the values are no whole rows.
    pub fn new(width: usize, values: Vec<f32>) -> Self {
        assert!(width > 0 && values.len().is_multiple_of(width), "whole rows");
        Self { width, values }
    }

    /// Reads `count` rows of a width, at least 1, that [`Writer`] wrote.
    ///
    /// # Errors
    /// Those of the file; [`io::ErrorKind::InvalidData`] where it holds another number of values, or one that is none.
    pub fn read(path: &Path, width: usize, count: usize) -> io::Result<Self> {
        let bad = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
        let file = File::open(path)?;
        let bytes = width.checked_mul(count).and_then(|values| values.checked_mul(4)).filter(|_| width > 0);
        let bytes = bytes.ok_or_else(|| bad(format!("{count} rows of {width} values are none")))?;
        if file.metadata()?.len() != bytes as u64 {
            return Err(bad(format!("it has {} bytes, {count} rows of {width} values have {bytes}", file.metadata()?.len())));
        }
        let mut values = Vec::with_capacity(bytes / 4);
        let (mut input, mut chunk) = (BufReader::new(file), vec![0_u8; BLOCK_BYTES]);
        let mut left = bytes;
        while left > 0 {
            let part = &mut chunk[..left.min(BLOCK_BYTES)];
            input.read_exact(part)?;
            values.extend(part.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])));
            left -= part.len();
        }
        match values.iter().position(|value| !value.is_finite()) {
            Some(at) => Err(bad(format!("row {} holds {}", at / width, values[at]))),
            None => Ok(Self { width, values }),
        }
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.values.len() / self.width
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Numbers in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// One row.
    pub fn row(&self, at: usize) -> &[f32] {
        &self.values[at * self.width..(at + 1) * self.width]
    }

    /// For each query the `limit` rows with the largest inner products, the largest first; of equals the earlier row. The same queries
    /// give the same lists, whichever come together and however many threads there are.
    ///
    /// # Panics
    /// A query has another width.
    pub fn nearest(&self, queries: &[Vec<f32>], limit: usize) -> Vec<Vec<(usize, f32)>> {
        assert!(queries.iter().all(|query| query.len() == self.width), "queries have the width of the rows");
        if limit == 0 {
            return vec![vec![]; queries.len()];
        }
        let rows = (BLOCK_BYTES / 4 / self.width).max(1);
        let empty = || vec![Best::new(limit); queries.len()];
        let blocks = self.values.par_chunks(rows * self.width).enumerate();
        let best = blocks.fold(empty, |mut best, (block, values)| {
            for (best, query) in best.iter_mut().zip(queries) {
                for (at, row) in values.chunks_exact(self.width).enumerate() {
                    best.offer(block * rows + at, dot(query, row));
                }
            }
            best
        });
        let best = best.reduce(empty, |mut one, other| {
            for (one, other) in one.iter_mut().zip(other) {
                other.found.into_iter().for_each(|(row, product)| one.offer(row, product));
            }
            one
        });
        best.into_iter().map(|best| best.found).collect()
    }
}

/// The best so far, in order.
#[derive(Clone)]
struct Best {
    limit: usize,
    found: Vec<(usize, f32)>,
}

impl Best {
    fn new(limit: usize) -> Self {
        Self { limit, found: Vec::with_capacity(limit + 1) }
    }

    fn offer(&mut self, row: usize, product: f32) {
        let beats = |other: &(usize, f32)| product > other.1 || (product == other.1 && row < other.0);
        if self.found.len() == self.limit && !self.found.last().is_some_and(beats) {
            return;
        }
        let place = self.found.iter().position(beats).unwrap_or(self.found.len());
        self.found.insert(place, (row, product));
        self.found.truncate(self.limit);
    }
}

/// The inner product, summed in an order that the width alone decides.
fn dot(one: &[f32], other: &[f32]) -> f32 {
    let mut sums = [0.0_f32; SIDE];
    let (ones, others) = (one.chunks_exact(SIDE), other.chunks_exact(SIDE));
    let rest: f32 = ones.remainder().iter().zip(others.remainder()).map(|(one, other)| one * other).sum();
    for (ones, others) in ones.zip(others) {
        for at in 0..SIDE {
            sums[at] += ones[at] * others[at];
        }
    }
    let mut side = SIDE / 2;
    while side > 0 {
        for at in 0..side {
            sums[at] += sums[at + side];
        }
        side /= 2;
    }
    sums[0] + rest
}

/// Writes rows down.
pub struct Writer {
    out: BufWriter<File>,
    width: usize,
    count: u64,
}

impl Writer {
    /// A new file of rows of a width.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn create(path: &Path, width: usize) -> io::Result<Self> {
        Ok(Self { out: BufWriter::new(File::create(path)?), width, count: 0 })
    }

    /// Appends a row.
    ///
    /// # Errors
    /// Those of the file system.
    ///
    /// # Panics
    /// The row has another width.
    pub fn add(&mut self, row: &[f32]) -> io::Result<()> {
        assert_eq!(row.len(), self.width, "rows have one width");
        self.count += 1;
        row.iter().try_for_each(|value| self.out.write_all(&value.to_le_bytes()))
    }

    /// How many rows there are, once all are written.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn finish(mut self) -> io::Result<u64> {
        self.out.flush()?;
        Ok(self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows without any order, of length 1.
    fn rows(count: usize, width: usize, seed: u64) -> Vectors {
        let mut state = seed | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        let mut values = Vec::with_capacity(count * width);
        for _ in 0..count {
            let row: Vec<f32> = (0..width).map(|_| next()).collect();
            let length = row.iter().map(|value| value * value).sum::<f32>().sqrt();
            values.extend(row.iter().map(|value| value / length));
        }
        Vectors::new(width, values)
    }

    #[test]
    fn the_nearest_are_those_of_a_plain_search_at_any_width() {
        for width in [1, 7, 16, 100, 128] {
            let (all, asked) = (rows(3000, width, 1), rows(20, width, 2));
            let queries: Vec<Vec<f32>> = (0..20).map(|at| asked.row(at).to_vec()).collect();
            let found = all.nearest(&queries, 3);
            for (query, found) in queries.iter().zip(&found) {
                let exact = |row: &[f32]| query.iter().zip(row).map(|(one, other)| f64::from(*one) * f64::from(*other)).sum::<f64>();
                let mut best: Vec<(usize, f64)> = (0..all.len()).map(|at| (at, exact(all.row(at)))).collect();
                best.sort_by(|one, other| other.1.total_cmp(&one.1).then(one.0.cmp(&other.0)));
                assert_eq!(found.len(), 3);
                for (found, best) in found.iter().zip(&best) {
                    assert!((f64::from(found.1) - best.1).abs() < 1e-5, "width {width}: {found:?} {best:?}");
                }
                assert_eq!(all.nearest(std::slice::from_ref(query), 3)[0], *found, "alone it is the same");
            }
        }
    }

    #[test]
    fn of_equals_the_earlier_row_comes_first_and_there_may_be_fewer_than_asked_for() {
        let same = Vectors::new(2, [1.0, 0.0].repeat(100_000));
        assert_eq!(same.nearest(&[vec![1.0, 0.0]], 3), [vec![(0, 1.0), (1, 1.0), (2, 1.0)]]);
        let two = Vectors::new(1, vec![-1.0, 0.5]);
        assert_eq!(two.nearest(&[vec![1.0]], 5), [vec![(1, 0.5), (0, -1.0)]]);
        assert_eq!(two.nearest(&[vec![1.0]], 0), [vec![]]);
        assert_eq!(Vectors::new(3, vec![]).nearest(&[vec![0.0; 3]], 2), [vec![]]);
        assert!(two.nearest(&[], 2).is_empty());
    }

    #[test]
    fn what_is_written_is_read_and_what_was_cut_is_not() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("vectors");
        let all = rows(700, 128, 3);
        let mut writer = Writer::create(&path, 128).expect("opens");
        (0..700).for_each(|at| writer.add(all.row(at)).expect("written"));
        assert_eq!(writer.finish().expect("written"), 700);
        assert_eq!(Vectors::read(&path, 128, 700).expect("reads"), all);
        for (width, count) in [(128, 699), (64, 700), (0, 700), (usize::MAX, 2)] {
            assert_eq!(Vectors::read(&path, width, count).expect_err("other rows").kind(), io::ErrorKind::InvalidData);
        }
        std::fs::write(&path, f32::NAN.to_le_bytes()).expect("written");
        assert!(Vectors::read(&path, 1, 1).expect_err("no number").to_string().contains("row 0"));
    }
}
