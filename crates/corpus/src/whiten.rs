//! Vectors told apart: what all pictures of a corpus have in common is taken away, and what differs little between them counts as much
//! as what differs a lot (whitening, by a Cholesky factor of the covariance).
//!
//! In: the vectors of a corpus. Out: how any vector is changed before it is compared. A tower's vectors lie close together, those of any
//! two pictures at a cosine of some 0.9, and most of what differs is how bright they are: figures with and without are in
//! `bench/RESULTS.md`.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use rayon::prelude::*;

use crate::vectors::Vectors;

/// Fewer vectors than this say nothing of what is common: they stay as they are.
const LEAST: usize = 16;
/// Vectors that are looked at, evenly among all: more change nothing that matters.
const SAMPLE: usize = 16_384;
/// Part of the mean variance that every direction is given besides its own, so that noise is not taken for a difference.
const RIDGE: f64 = 0.01;
/// Below this variance all pictures are one.
const NOTHING: f64 = 1e-12;
/// Rows of the covariance that a thread sums up while it looks at the vectors once.
const TOGETHER: usize = 16;

/// How vectors are changed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Whitening {
    mean: Vec<f64>,
    /// The factor, row-major; above the diagonal it is 0.
    factor: Vec<f64>,
}

impl Whitening {
    /// As a corpus's own vectors say; none where they are too few or all the same. The same vectors give the same, however many threads
    /// there are.
    pub fn of(vectors: &Vectors) -> Option<Self> {
        let (count, width) = (vectors.len(), vectors.width());
        if count < LEAST {
            return None;
        }
        let step = count.div_ceil(SAMPLE);
        let sample: Vec<&[f32]> = (0..count).step_by(step).map(|at| vectors.row(at)).collect();
        let many = sample.len() as f64;
        let mut mean = vec![0.0; width];
        for row in &sample {
            mean.iter_mut().zip(*row).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        mean.iter_mut().for_each(|sum| *sum /= many);
        let mut covariance = vec![0.0; width * width];
        covariance.par_chunks_mut(TOGETHER * width).enumerate().for_each(|(part, rows)| {
            let mut apart = vec![0.0; width];
            for row in &sample {
                for ((apart, value), mean) in apart.iter_mut().zip(*row).zip(&mean) {
                    *apart = f64::from(*value) - mean;
                }
                for (at, sums) in rows.chunks_exact_mut(width).enumerate() {
                    let line = part * TOGETHER + at;
                    let own = apart[line];
                    sums[..=line].iter_mut().zip(&apart).for_each(|(sum, other)| *sum += own * other);
                }
            }
            rows.iter_mut().for_each(|sum| *sum /= many);
        });
        let variance = (0..width).map(|at| covariance[at * width + at]).sum::<f64>() / width as f64;
        if variance < NOTHING {
            return None;
        }
        (0..width).for_each(|at| covariance[at * width + at] += RIDGE * variance);
        factorise(&mut covariance, width);
        Some(Self { mean, factor: covariance })
    }

    /// A vector as it is compared, of length 1; 0 where it is just what all have in common.
    pub fn apply(&self, vector: &[f32]) -> Vec<f32> {
        let width = self.mean.len();
        let mut out = vec![0.0; width];
        for at in 0..width {
            let line = &self.factor[at * width..at * width + at + 1];
            let rest = f64::from(vector[at]) - self.mean[at] - dot(&line[..at], &out[..at]);
            out[at] = rest / line[at];
        }
        let length = dot(&out, &out).sqrt();
        out.iter().map(|value| if length > 0.0 { (value / length) as f32 } else { 0.0 }).collect()
    }

    /// Writes it down.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut out = BufWriter::new(File::create(path)?);
        self.mean.iter().chain(&self.factor).try_for_each(|value| out.write_all(&value.to_le_bytes()))?;
        out.flush()
    }

    /// Reads what was written, of a width.
    pub fn read(path: &Path, width: usize) -> io::Result<Self> {
        let bad = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
        let file = File::open(path)?;
        let values = width.checked_mul(width).and_then(|square| square.checked_add(width));
        let bytes = values.and_then(|values| values.checked_mul(8)).ok_or_else(|| bad(format!("a width of {width} is none")))?;
        if file.metadata()?.len() != bytes as u64 {
            return Err(bad(format!("it has {} bytes, not {bytes}", file.metadata()?.len())));
        }
        let mut input = BufReader::new(file);
        let mut all = Vec::with_capacity(bytes / 8);
        for _ in 0..bytes / 8 {
            let mut eight = [0; 8];
            input.read_exact(&mut eight)?;
            all.push(f64::from_le_bytes(eight));
        }
        let factor = all.split_off(width);
        let sound = all.iter().chain(&factor).all(|value| value.is_finite()) && (0..width).all(|at| factor[at * width + at] > 0.0);
        if sound { Ok(Self { mean: all, factor }) } else { Err(bad("it holds what is no factor".into())) }
    }
}

/// The lower Cholesky factor of a matrix with a positive diagonal, in its place.
fn factorise(matrix: &mut [f64], width: usize) {
    for line in 0..width {
        let (above, rest) = matrix.split_at_mut(line * width);
        let own = &mut rest[..width];
        for column in 0..line {
            let other = &above[column * width..column * width + column + 1];
            own[column] = (own[column] - dot(&own[..column], &other[..column])) / other[column];
        }
        let left = own[line] - dot(&own[..line], &own[..line]);
        // The ridge keeps it above 0, but for rounding.
        own[line] = left.max(f64::MIN_POSITIVE).sqrt();
        own[line + 1..].fill(0.0);
    }
}

/// The inner product, summed in an order that the length alone decides.
fn dot(one: &[f64], other: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let (ones, others) = (one.chunks_exact(8), other.chunks_exact(8));
    let rest: f64 = ones.remainder().iter().zip(others.remainder()).map(|(one, other)| one * other).sum();
    for (ones, others) in ones.zip(others) {
        for at in 0..8 {
            sums[at] += ones[at] * others[at];
        }
    }
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors that share most of what they are, and differ in one direction far more than in all others.
    fn alike(count: usize, width: usize) -> Vectors {
        let mut state = 9_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        let mut values = vec![];
        for _ in 0..count {
            let loud = next();
            let row: Vec<f32> = (0..width).map(|at| 1.0 + if at % 2 == 0 { 0.4 * loud } else { 0.0 } + 0.02 * next()).collect();
            let length = row.iter().map(|value| value * value).sum::<f32>().sqrt();
            values.extend(row.iter().map(|value| value / length));
        }
        Vectors::new(width, values)
    }

    fn cosine(one: &[f32], other: &[f32]) -> f32 {
        one.iter().zip(other).map(|(one, other)| one * other).sum()
    }

    #[test]
    fn what_all_have_in_common_is_taken_away_and_small_differences_count() {
        let vectors = alike(400, 40);
        let whitening = Whitening::of(&vectors).expect("they differ");
        let white: Vec<Vec<f32>> = (0..400).map(|at| whitening.apply(vectors.row(at))).collect();
        let mean = |of: &dyn Fn(usize) -> f32| (0..399).map(of).sum::<f32>() / 399.0;
        assert!(mean(&|at| cosine(vectors.row(at), vectors.row(at + 1))) > 0.9);
        assert!(mean(&|at| cosine(&white[at], &white[at + 1])).abs() < 0.05);
        assert!(white.iter().all(|row| (cosine(row, row) - 1.0).abs() < 1e-5));
        // Another brightness of the same is nearer to it than anything else of its own brightness.
        let louder: Vec<f32> = vectors.row(7).iter().enumerate().map(|(at, value)| value * if at % 2 == 0 { 1.1 } else { 1.0 }).collect();
        let length = cosine(&louder, &louder).sqrt();
        let seen = whitening.apply(&louder.iter().map(|value| value / length).collect::<Vec<f32>>());
        let best = (0..400).max_by(|one, other| cosine(&white[*one], &seen).total_cmp(&cosine(&white[*other], &seen)));
        assert_eq!(best, Some(7));
    }

    #[test]
    fn the_factor_is_one_and_comes_back_from_disk() {
        let vectors = alike(200, 20);
        let whitening = Whitening::of(&vectors).expect("they differ");
        assert_eq!(Whitening::of(&vectors).as_ref(), Some(&whitening));
        let mut matrix = vec![4.0, 0.0, 0.0, 2.0, 5.0, 0.0, -2.0, 1.0, 6.0];
        factorise(&mut matrix, 3);
        assert_eq!(matrix, [2.0, 0.0, 0.0, 1.0, 2.0, 0.0, -1.0, 1.0, 2.0]);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("whitening");
        whitening.write(&path).expect("written");
        assert_eq!(Whitening::read(&path, 20).expect("reads"), whitening);
        assert!(Whitening::read(&path, 19).is_err() && Whitening::read(&path, usize::MAX).is_err());
        std::fs::write(&path, [0; 16]).expect("written");
        assert!(Whitening::read(&path, 1).is_err(), "a factor of 0");
    }

    #[test]
    fn few_vectors_and_equal_ones_stay_as_they_are() {
        assert_eq!(Whitening::of(&alike(LEAST - 1, 8)), None);
        assert_eq!(Whitening::of(&Vectors::new(2, [0.6, 0.8].repeat(100))), None);
        assert_eq!(Whitening::of(&Vectors::new(3, vec![])), None);
    }
}
