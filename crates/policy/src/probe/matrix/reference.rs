//! What is right, in f64, straight from the definitions: loops over indices, no kernels.

use rayon::prelude::*;

/// `a b`, where element `[i, j]` of a matrix is `values[i * strides.0 + j * strides.1]`; \[m, n\].
pub fn product(a: (&[f64], (usize, usize)), b: (&[f64], (usize, usize)), [m, k, n]: [usize; 3]) -> Vec<f64> {
    let mut out = vec![0.0; m * n];
    out.par_chunks_mut(n.max(1)).enumerate().for_each(|(row, out)| {
        for inner in 0..k {
            let left = a.0[row * a.1.0 + inner * a.1.1];
            for (column, out) in out.iter_mut().enumerate() {
                *out += left * b.0[inner * b.1.0 + column * b.1.1];
            }
        }
    });
    out
}

/// In f64.
pub fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

/// Queries, keys, values and gradients of attention: rows of heads of `e` values.
pub struct Attention<'a> {
    /// \[n, heads * e\]
    pub q: &'a [f64],
    /// \[n, kv * e\]
    pub k: &'a [f64],
    /// \[n, kv * e\]
    pub v: &'a [f64],
    /// Query heads, key heads, width of a head.
    pub heads: (usize, usize, usize),
}

impl Attention<'_> {
    fn dot(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    fn query(&self, row: usize, head: usize) -> usize {
        (row * self.heads.0 + head) * self.heads.2
    }

    fn key(&self, row: usize, head: usize) -> usize {
        (row * self.heads.1 + head / (self.heads.0 / self.heads.1)) * self.heads.2
    }

    /// Probabilities of the rows that `row` sees.
    fn probabilities(&self, row: usize, head: usize, seen: &[usize]) -> Vec<f64> {
        let e = self.heads.2;
        let q = &self.q[self.query(row, head)..][..e];
        let scores: Vec<f64> = seen.iter().map(|at| Self::dot(q, &self.k[self.key(*at, head)..][..e]) / (e as f64).sqrt()).collect();
        let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let shares: Vec<f64> = scores.iter().map(|score| (score - top).exp()).collect();
        let sum: f64 = shares.iter().sum();
        shares.into_iter().map(|share| share / sum).collect()
    }

    /// \[n, heads * e\]; `seen` says which rows a row sees.
    pub fn forward(&self, seen: &[Vec<usize>]) -> Vec<f64> {
        let (heads, _, e) = self.heads;
        let mut out = vec![0.0; seen.len() * heads * e];
        for (row, seen) in seen.iter().enumerate() {
            for head in 0..heads {
                let to = self.query(row, head);
                for (at, p) in seen.iter().zip(self.probabilities(row, head, seen)) {
                    for lane in 0..e {
                        out[to + lane] += p * self.v[self.key(*at, head) + lane];
                    }
                }
            }
        }
        out
    }

    /// Gradients to `q`, `k` and `v` of the sum of what comes out times `grad`.
    pub fn backward(&self, seen: &[Vec<usize>], grad: &[f64]) -> [Vec<f64>; 3] {
        let (heads, _, e) = self.heads;
        let (mut dq, mut dk, mut dv) = (vec![0.0; self.q.len()], vec![0.0; self.k.len()], vec![0.0; self.v.len()]);
        for (row, seen) in seen.iter().enumerate() {
            for head in 0..heads {
                let from = self.query(row, head);
                let p = self.probabilities(row, head, seen);
                let dp: Vec<f64> = seen.iter().map(|at| Self::dot(&grad[from..][..e], &self.v[self.key(*at, head)..][..e])).collect();
                let along = Self::dot(&p, &dp);
                for ((at, p), dp) in seen.iter().zip(&p).zip(&dp) {
                    let (key, ds) = (self.key(*at, head), p * (dp - along) / (e as f64).sqrt());
                    for lane in 0..e {
                        dv[key + lane] += p * grad[from + lane];
                        dk[key + lane] += ds * self.q[from + lane];
                        dq[from + lane] += ds * self.k[key + lane];
                    }
                }
            }
        }
        [dq, dk, dv]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_by_hand() {
        let (a, b) = ([1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]);
        assert_eq!(product((&a, (2, 1)), (&b, (2, 1)), [2, 2, 2]), [19.0, 22.0, 43.0, 50.0]);
        assert_eq!(product((&a, (1, 2)), (&b, (1, 2)), [2, 2, 2]), [23.0, 31.0, 34.0, 46.0]);
    }

    #[test]
    fn gradients_of_attention_are_differences_of_it() {
        let numbers = |count: usize, salt: usize| (0..count).map(|at| ((at * 7 + salt) % 11) as f64 / 5.0 - 1.0).collect::<Vec<f64>>();
        let (n, heads) = (3, (2, 1, 2));
        let seen: Vec<Vec<usize>> = (0..n).map(|row| (0..=row).collect()).collect();
        let (mut of, grad) = ([numbers(n * 4, 1), numbers(n * 2, 2), numbers(n * 2, 3)], numbers(n * 4, 4));
        let sum = |of: &[Vec<f64>; 3]| -> f64 {
            Attention { q: &of[0], k: &of[1], v: &of[2], heads }.forward(&seen).iter().zip(&grad).map(|(out, grad)| out * grad).sum()
        };
        let found = Attention { q: &of[0], k: &of[1], v: &of[2], heads }.backward(&seen, &grad);
        for part in 0..3 {
            for at in 0..of[part].len() {
                let mut moved = |by: f64| {
                    of[part][at] += by;
                    let sum = sum(&of);
                    of[part][at] -= by;
                    sum
                };
                let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                assert!((slope - found[part][at]).abs() < 1e-6, "{part} {at}: {slope} for {}", found[part][at]);
            }
        }
    }
}
