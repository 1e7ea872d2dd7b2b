//! The CPU's kernels at random odd shapes, among memory that is no number: what lies between rows, behind columns, beyond the
//! positions that count, and what scratch and results held before must not matter.

use hypereyes_policy::ops::attention::{Attend, AttendBackward, AttendSiblings, Positions, Queries};
use hypereyes_policy::ops::product::{RowsByColumns, RowsByRows, View};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const TRIES: u64 = 400;

/// A matrix whose rows lie apart; NaN is between them and behind the last.
struct Apart {
    values: Vec<f32>,
    stride: usize,
    columns: usize,
}

impl Apart {
    fn random(random: &mut StdRng, rows: usize, columns: usize) -> Self {
        let stride = columns + random.random_range(0..5);
        let mut values = vec![f32::NAN; rows * stride + 37];
        for row in 0..rows {
            values[row * stride..][..columns].iter_mut().for_each(|value| *value = random.random_range(-1.0..1.0));
        }
        Self { values, stride, columns }
    }

    fn view(&self) -> View<'_> {
        View::new(&self.values, self.stride)
    }

    fn at(&self, row: usize, column: usize) -> f64 {
        assert!(column < self.columns);
        f64::from(self.values[row * self.stride + column])
    }

    fn row(&self, row: usize) -> Vec<f64> {
        (0..self.columns).map(|column| self.at(row, column)).collect()
    }
}

#[track_caller]
fn close(got: f32, want: f64, what: &str) {
    assert!((f64::from(got) - want).abs() <= 1e-4 * (1.0 + want.abs()), "{what}: {got} for {want}");
}

/// Every element of a result is right, and what is beside its rows is as it was.
#[track_caller]
fn result(out: &[f32], stride: usize, rows: usize, columns: usize, right: impl Fn(usize, usize) -> f64, what: &str) {
    for (at, value) in out.iter().enumerate() {
        let (row, column) = (at / stride, at % stride);
        if row < rows && column < columns {
            close(*value, right(row, column), &format!("{what}, row {row}, column {column}"));
        } else {
            assert!(value.is_nan(), "{what}: something is written at row {row}, column {column}");
        }
    }
}

fn size(random: &mut StdRng, most: usize) -> usize {
    // Around what registers and blocks hold, more often than not.
    let near = [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65];
    if random.random_bool(0.6) { near[random.random_range(0..near.len())].min(most) } else { random.random_range(1..=most) }
}

#[test]
fn rows_by_rows() {
    for seed in 0..TRIES {
        let random = &mut StdRng::seed_from_u64(seed);
        let (n, m, k) = (size(random, 40), size(random, 90), size(random, 1100));
        let (x, w, stride) = (Apart::random(random, n, k), Apart::random(random, m, k), m + random.random_range(0..4));
        let mut out = vec![f32::NAN; n * stride];
        let mut rows: Vec<&mut [f32]> = out.chunks_exact_mut(stride).map(|row| &mut row[..m]).collect();
        pulp::Arch::new().dispatch(RowsByRows { x: x.view(), w: w.view(), inner: k, out: &mut rows });
        let right = |row: usize, column: usize| x.row(row).iter().zip(w.row(column)).map(|(x, w)| x * w).sum();
        result(&out, stride, n, m, right, &format!("{n}x{m}x{k}"));
    }
}

#[test]
fn rows_by_columns() {
    for seed in 0..TRIES {
        let random = &mut StdRng::seed_from_u64(seed);
        let (n, m, k) = (size(random, 40), size(random, 140), size(random, 70));
        let turned = random.random_bool(0.5);
        let (a, b) = (if turned { Apart::random(random, k, n) } else { Apart::random(random, n, k) }, Apart::random(random, k, m));
        let (a_strides, stride) = (if turned { (1, a.stride) } else { (a.stride, 1) }, m + random.random_range(0..4));
        let mut out = vec![f32::NAN; n * stride];
        let shape = (n, m, k);
        pulp::Arch::new().dispatch(RowsByColumns { a: &a.values, a_strides, b: b.view(), shape, out: &mut out, stride, add: false });
        let first = |row: usize, inner: usize| if turned { a.at(inner, row) } else { a.at(row, inner) };
        let right = |row: usize, column: usize| (0..k).map(|inner| first(row, inner) * b.at(inner, column)).sum();
        result(&out, stride, n, m, right, &format!("{n}x{m}x{k}, turned: {turned}"));
    }
}

/// Keys in pieces and values of some positions, with room for more, all of it NaN.
struct Run {
    keys: Vec<f32>,
    values: Apart,
    piece: usize,
    count: usize,
    e: usize,
}

impl Run {
    fn random(random: &mut StdRng, count: usize, e: usize) -> Self {
        let piece = [1, 3, 16, 32, count.max(1)][random.random_range(0..5)];
        let mut keys = vec![f32::NAN; (count.div_ceil(piece) + 1) * piece * e];
        for (position, lane) in (0..count).flat_map(|position| (0..e).map(move |lane| (position, lane))) {
            keys[position / piece * piece * e + lane * piece + position % piece] = random.random_range(-1.0..1.0);
        }
        Self { keys, values: Apart::random(random, count, e), piece, count, e }
    }

    fn positions(&self) -> Positions<'_> {
        Positions { keys_et: &self.keys, piece: self.piece, values_te: self.values.view(), count: self.count }
    }

    fn key(&self, position: usize) -> Vec<f64> {
        let from = position / self.piece * self.piece * self.e + position % self.piece;
        (0..self.e).map(|lane| f64::from(self.keys[from + lane * self.piece])).collect()
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn shares(scores: &[f64]) -> Vec<f64> {
    let all: Vec<f64> = scores.iter().map(|score| score.exp()).collect();
    let sum: f64 = all.iter().sum();
    all.into_iter().map(|share| share / sum).collect()
}

/// Attention of one query over positions of one run, and of another.
fn attended(q: &[f64], runs: [(&Run, usize); 2]) -> Vec<f64> {
    let seen: Vec<(&Run, usize)> = runs.iter().flat_map(|(run, count)| (0..*count).map(move |at| (*run, at))).collect();
    let scale = (q.len() as f64).sqrt();
    let p = shares(&seen.iter().map(|(run, at)| dot(q, &run.key(*at)) / scale).collect::<Vec<_>>());
    (0..q.len()).map(|lane| seen.iter().zip(&p).map(|((run, at), p)| p * run.values.at(*at, lane)).sum()).collect()
}

#[test]
fn attention_of_blocks_and_of_siblings() {
    for seed in 0..TRIES {
        let random = &mut StdRng::seed_from_u64(seed);
        let (rows, e, heads) = (size(random, 40), size(random, 80), random.random_range(1..4));
        let before = if random.random_bool(0.3) { 0 } else { size(random, 70) };
        let shared = Run::random(random, before, e);
        let mut scratch = vec![f32::NAN; random.random_range(0..3000)];
        // Rows of one sequence, each of which sees one position more.
        let more = random.random_range(0..4);
        let own = Run::random(random, rows + more, e);
        let (q, stride) = (Apart::random(random, rows, e), e + random.random_range(0..4));
        let mut out = vec![f32::NAN; rows * stride];
        pulp::Arch::new().dispatch(Attend {
            q: Queries { rows: q.view(), count: rows, e },
            shared: shared.positions(),
            own: own.positions(),
            seen: |row: usize| row + 1 + more,
            scratch: &mut scratch,
            out: &mut out,
            stride,
        });
        let right = |row: usize| attended(&q.row(row), [(&shared, before), (&own, row + 1 + more)]);
        let rights: Vec<Vec<f64>> = (0..rows).map(right).collect();
        result(&out, stride, rows, e, |row, lane| rights[row][lane], &format!("{rows} rows over {before} and {more}, heads of {e}"));
        // Rows of siblings, each with its own positions, of which some have none.
        let owns: Vec<Run> = (0..rows)
            .map(|_| {
                let count = if before > 0 && random.random_bool(0.2) { 0 } else { size(random, 40) };
                Run::random(random, count, e)
            })
            .collect();
        let (q, stride) = (Apart::random(random, rows, heads * e), heads * e + random.random_range(0..4));
        let mut out = vec![f32::NAN; rows * stride];
        pulp::Arch::new().dispatch(AttendSiblings {
            q: Queries { rows: q.view(), count: rows, e },
            heads,
            shared: shared.positions(),
            own: |row: usize| owns[row].positions(),
            scratch: &mut scratch,
            out: &mut out,
            stride,
        });
        let right = |row: usize, head: usize| attended(&q.row(row)[head * e..][..e], [(&shared, before), (&owns[row], owns[row].count)]);
        let rights: Vec<Vec<f64>> = (0..rows).map(|row| (0..heads).flat_map(|head| right(row, head)).collect()).collect();
        let what = format!("{rows} siblings after {before}, {heads} heads of {e}");
        result(&out, stride, rows, heads * e, |row, lane| rights[row][lane], &what);
    }
}

#[test]
fn gradients_of_attention() {
    for seed in 0..TRIES {
        let random = &mut StdRng::seed_from_u64(seed);
        let (t, e, causal) = (size(random, 40), size(random, 80), random.random_bool(0.5));
        let [q, g, k, v] = [(); 4].map(|()| Apart::random(random, t, e));
        let turned = |of: &Apart| {
            let mut values = vec![f32::NAN; e * t + 29];
            (0..e * t).for_each(|at| values[at] = of.at(at % t, at / t) as f32);
            values
        };
        let (keys_et, values_et, stride) = (turned(&k), turned(&v), e + random.random_range(0..4));
        let mut scratch = vec![f32::NAN; random.random_range(0..3000)];
        let (mut dq, mut dk, mut dv) = (vec![f32::NAN; t * stride], vec![0.5; t * e], vec![0.25; t * e]);
        pulp::Arch::new().dispatch(AttendBackward {
            q: Queries { rows: q.view(), count: t, e },
            grad: g.view(),
            keys_et: View::new(&keys_et, t),
            keys_te: k.view(),
            values_et: View::new(&values_et, t),
            causal,
            scratch: &mut scratch,
            dq: &mut dq,
            stride,
            dk: &mut dk,
            dv: &mut dv,
        });
        let scale = (e as f64).sqrt();
        let (mut to_q, mut to_k, mut to_v) = (vec![0.0; t * e], vec![0.5; t * e], vec![0.25; t * e]);
        for row in 0..t {
            let seen = if causal { row + 1 } else { t };
            let (query, grad) = (q.row(row), g.row(row));
            let p = shares(&(0..seen).map(|at| dot(&query, &k.row(at)) / scale).collect::<Vec<_>>());
            let dp: Vec<f64> = (0..seen).map(|at| dot(&grad, &v.row(at))).collect();
            let along = dot(&p, &dp);
            for at in 0..seen {
                let ds = p[at] * (dp[at] - along) / scale;
                for lane in 0..e {
                    to_q[row * e + lane] += ds * k.at(at, lane);
                    to_k[at * e + lane] += ds * query[lane];
                    to_v[at * e + lane] += p[at] * grad[lane];
                }
            }
        }
        let what = format!("{t} rows, heads of {e}, causal: {causal}");
        result(&dq, stride, t, e, |row, lane| to_q[row * e + lane], &what);
        result(&dk, e, t, e, |row, lane| to_k[row * e + lane], &what);
        result(&dv, e, t, e, |row, lane| to_v[row * e + lane], &what);
    }
}
