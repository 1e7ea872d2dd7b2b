//! The kernels on the CPU backend: single passes over contiguous rows, vectorised for the CPU at hand (`pulp` picks the
//! instruction set at run time), rows or segments spread over the threads of rayon's pool.
//!
//! Not known here: what the rows mean. Every function is tested against the plain version of the trait.

use burn::tensor::ops::FloatTensor;
use burn::tensor::{Shape, TensorData};
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::{Kernels, Segments};
use crate::backend::Cpu;

/// Rows that one task of the pool handles in elementwise kernels: big enough to pay for the task, small enough to share.
const ROWS_PER_TASK: usize = 256;

fn dims(tensor: &FlexTensor) -> (usize, usize) {
    let shape = tensor.layout().shape();
    (shape[0], shape[1])
}

fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape.into()))
}

impl Kernels for Cpu {
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        let (x, weight) = (x.to_contiguous(), weight.to_contiguous());
        let (n, d) = dims(&x);
        let (xs, ws) = (x.storage::<f32>(), weight.storage::<f32>());
        let mut out = vec![0.0f32; n * d];
        over_rows(&mut out, d, |first, out| {
            for (row, out) in out.chunks_exact_mut(d).enumerate() {
                let x = &xs[(first + row) * d..][..d];
                let inverse = inverse_rms(x, eps);
                for ((out, x), w) in out.iter_mut().zip(x).zip(ws) {
                    *out = x * inverse * w;
                }
            }
        });
        tensor(out, [n, d])
    }

    fn rms_norm_backward(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64, grad: FloatTensor<Self>) -> [FloatTensor<Self>; 2] {
        let (x, weight, grad) = (x.to_contiguous(), weight.to_contiguous(), grad.to_contiguous());
        let (n, d) = dims(&x);
        let (xs, ws, gs) = (x.storage::<f32>(), weight.storage::<f32>(), grad.storage::<f32>());
        let mut dx = vec![0.0f32; n * d];
        let arch = pulp::Arch::new();
        let partial: Vec<Vec<f32>> = dx
            .par_chunks_mut(ROWS_PER_TASK * d)
            .enumerate()
            .map(|(task, dx)| {
                let mut dweight = vec![0.0f32; d];
                arch.dispatch(|| {
                    for (row, dx) in dx.chunks_exact_mut(d).enumerate() {
                        let at = (task * ROWS_PER_TASK + row) * d;
                        let (x, g) = (&xs[at..][..d], &gs[at..][..d]);
                        let inverse = inverse_rms(x, eps);
                        let mut lanes = [0.0f32; LANES];
                        let whole = d / LANES * LANES;
                        for at in (0..whole).step_by(LANES) {
                            for lane in 0..LANES {
                                lanes[lane] += x[at + lane] * g[at + lane] * ws[at + lane];
                            }
                        }
                        let mut along: f32 = lanes.iter().sum();
                        for at in whole..d {
                            along += x[at] * g[at] * ws[at];
                        }
                        let pull = along / d as f32 * inverse * inverse;
                        for at in 0..d {
                            dx[at] = (g[at] * ws[at] - x[at] * pull) * inverse;
                            dweight[at] += g[at] * x[at] * inverse;
                        }
                    }
                });
                dweight
            })
            .collect();
        let mut dweight = vec![0.0f32; d];
        for part in partial {
            for (sum, part) in dweight.iter_mut().zip(part) {
                *sum += part;
            }
        }
        [tensor(dx, [n, d]), tensor(dweight, [d])]
    }

    fn rotate(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x, cos, sin) = (x.to_contiguous(), cos.to_contiguous(), sin.to_contiguous());
        let (n, width) = dims(&x);
        let (_, e) = dims(&cos);
        let half = e / 2;
        let (xs, cs, ss) = (x.storage::<f32>(), cos.storage::<f32>(), sin.storage::<f32>());
        let mut out = vec![0.0f32; n * width];
        over_rows(&mut out, width, |first, out| {
            for (row, out) in out.chunks_exact_mut(width).enumerate() {
                let row = first + row;
                let (c, s) = (&cs[row * e..][..e], &ss[row * e..][..e]);
                for (out, x) in out.chunks_exact_mut(e).zip(xs[row * width..][..width].chunks_exact(e)) {
                    let (out_low, out_high) = out.split_at_mut(half);
                    let (low, high) = x.split_at(half);
                    for at in 0..half {
                        out_low[at] = low[at] * c[at] - high[at] * s[at];
                        out_high[at] = high[at] * c[half + at] + low[at] * s[half + at];
                    }
                }
            }
        });
        tensor(out, [n, width])
    }

    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        let (gate, up) = (gate.to_contiguous(), up.to_contiguous());
        let (n, d) = dims(&gate);
        let (gs, us) = (gate.storage::<f32>(), up.storage::<f32>());
        let mut out = vec![0.0f32; n * d];
        over_rows(&mut out, d, |first, out| {
            let at = first * d;
            for ((out, g), u) in out.iter_mut().zip(&gs[at..]).zip(&us[at..]) {
                *out = g / (1.0 + exp(-g)) * u;
            }
        });
        tensor(out, [n, d])
    }

    fn swiglu_backward(gate: FloatTensor<Self>, up: FloatTensor<Self>, grad: FloatTensor<Self>) -> [FloatTensor<Self>; 2] {
        let (gate, up, grad) = (gate.to_contiguous(), up.to_contiguous(), grad.to_contiguous());
        let (n, d) = dims(&gate);
        let (gs, us, os) = (gate.storage::<f32>(), up.storage::<f32>(), grad.storage::<f32>());
        let (mut dgate, mut dup) = (vec![0.0f32; n * d], vec![0.0f32; n * d]);
        let arch = pulp::Arch::new();
        dgate.par_chunks_mut(ROWS_PER_TASK * d).zip(dup.par_chunks_mut(ROWS_PER_TASK * d)).enumerate().for_each(|(task, (dgate, dup))| {
            let at = task * ROWS_PER_TASK * d;
            arch.dispatch(|| {
                for ((((dgate, dup), g), u), o) in dgate.iter_mut().zip(dup.iter_mut()).zip(&gs[at..]).zip(&us[at..]).zip(&os[at..]) {
                    let sigmoid = 1.0 / (1.0 + exp(-g));
                    *dup = o * g * sigmoid;
                    *dgate = o * u * sigmoid * (1.0 + g * (1.0 - sigmoid));
                }
            });
        });
        [tensor(dgate, [n, d]), tensor(dup, [n, d])]
    }

    fn segment_attention(q: FloatTensor<Self>, k: FloatTensor<Self>, v: FloatTensor<Self>, segments: &Segments) -> FloatTensor<Self> {
        let (q, k, v) = (q.to_contiguous(), k.to_contiguous(), v.to_contiguous());
        let (n, width) = dims(&q);
        let e = width / segments.heads;
        let kv_width = segments.kv_heads * e;
        let (qs, ks, vs) = (q.storage::<f32>(), k.storage::<f32>(), v.storage::<f32>());
        let mut out = vec![0.0f32; n * width];
        let arch = pulp::Arch::new();
        split_segments(&mut out, width, segments).into_par_iter().for_each(|(range, out)| {
            let t = range.len();
            let mut keys_et = vec![0.0f32; e * t];
            let mut values_te = vec![0.0f32; e * t];
            let mut scores = vec![0.0f32; t];
            arch.dispatch(|| {
                for kv in 0..segments.kv_heads {
                    gather_transposed(&mut keys_et, &ks[range.start * kv_width..], kv_width, kv * e, e, t);
                    gather(&mut values_te, &vs[range.start * kv_width..], kv_width, kv * e, e, t);
                    for head in query_heads(segments, kv) {
                        for row in 0..t {
                            let seen = if segments.causal { row + 1 } else { t };
                            let q = &qs[(range.start + row) * width + head * e..][..e];
                            let out = &mut out[row * width + head * e..][..e];
                            attend_row(q, &keys_et, &values_te, t, seen, &mut scores, out);
                        }
                    }
                }
            });
        });
        tensor(out, [n, width])
    }

    fn segment_attention_backward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        segments: &Segments,
        grad: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 3] {
        let (q, k, v, grad) = (q.to_contiguous(), k.to_contiguous(), v.to_contiguous(), grad.to_contiguous());
        let (n, width) = dims(&q);
        let e = width / segments.heads;
        let kv_width = segments.kv_heads * e;
        let scale = (e as f32).powf(-0.5);
        let (qs, ks, vs, gs) = (q.storage::<f32>(), k.storage::<f32>(), v.storage::<f32>(), grad.storage::<f32>());
        let mut dq = vec![0.0f32; n * width];
        let (mut dk, mut dv) = (vec![0.0f32; n * kv_width], vec![0.0f32; n * kv_width]);
        let arch = pulp::Arch::new();
        let parts = split_segments(&mut dq, width, segments)
            .into_iter()
            .zip(split_segments(&mut dk, kv_width, segments))
            .zip(split_segments(&mut dv, kv_width, segments));
        parts.collect::<Vec<_>>().into_par_iter().for_each(|(((range, dq), (_, dk)), (_, dv))| {
            let t = range.len();
            let (mut keys_et, mut keys_te) = (vec![0.0f32; e * t], vec![0.0f32; e * t]);
            let mut values_et = vec![0.0f32; e * t];
            let (mut dkeys_te, mut dvalues_te) = (vec![0.0f32; e * t], vec![0.0f32; e * t]);
            let (mut p, mut dp) = (vec![0.0f32; t], vec![0.0f32; t]);
            arch.dispatch(|| {
                for kv in 0..segments.kv_heads {
                    gather_transposed(&mut keys_et, &ks[range.start * kv_width..], kv_width, kv * e, e, t);
                    gather(&mut keys_te, &ks[range.start * kv_width..], kv_width, kv * e, e, t);
                    gather_transposed(&mut values_et, &vs[range.start * kv_width..], kv_width, kv * e, e, t);
                    dkeys_te.fill(0.0);
                    dvalues_te.fill(0.0);
                    for head in query_heads(segments, kv) {
                        for row in 0..t {
                            let seen = if segments.causal { row + 1 } else { t };
                            let at = (range.start + row) * width + head * e;
                            let (q, g) = (&qs[at..][..e], &gs[at..][..e]);
                            let (p, dp) = (&mut p[..seen], &mut dp[..seen]);
                            dot_columns(q, &keys_et, t, p);
                            softmax_scaled(p, scale);
                            dot_columns(g, &values_et, t, dp);
                            let along = dot(p, dp);
                            for (dp, p) in dp.iter_mut().zip(p.iter()) {
                                *dp = *p * (*dp - along) * scale;
                            }
                            let dq = &mut dq[row * width + head * e..][..e];
                            weighted_rows(dp, &keys_te, e, dq);
                            for (at, (p, ds)) in p.iter().zip(dp.iter()).enumerate() {
                                let (dk, dv) = (&mut dkeys_te[at * e..][..e], &mut dvalues_te[at * e..][..e]);
                                for lane in 0..e {
                                    dk[lane] += ds * q[lane];
                                    dv[lane] += p * g[lane];
                                }
                            }
                        }
                    }
                    for row in 0..t {
                        dk[row * kv_width + kv * e..][..e].copy_from_slice(&dkeys_te[row * e..][..e]);
                        dv[row * kv_width + kv * e..][..e].copy_from_slice(&dvalues_te[row * e..][..e]);
                    }
                }
            });
        });
        [tensor(dq, [n, width]), tensor(dk, [n, kv_width]), tensor(dv, [n, kv_width])]
    }
}

/// Attention of one query over the first `seen` of `capacity` cached positions. `keys_et` is \[e, capacity\] (so that the
/// scores of all positions are built by contiguous passes), `values_te` is \[capacity, e\]; `scores` is scratch of at
/// least `seen`; `out` \[e\].
#[inline(always)]
pub fn attend_row(q: &[f32], keys_et: &[f32], values_te: &[f32], capacity: usize, seen: usize, scores: &mut [f32], out: &mut [f32]) {
    let scores = &mut scores[..seen];
    dot_columns(q, keys_et, capacity, scores);
    softmax_scaled(scores, (q.len() as f32).powf(-0.5));
    weighted_rows(scores, values_te, q.len(), out);
}

/// Independent partial sums per pass: enough for one AVX-512 register of floats, so that sums vectorise.
const LANES: usize = 16;

#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for lane in 0..LANES {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    lanes.iter().sum::<f32>() + rest
}

#[inline(always)]
fn inverse_rms(x: &[f32], eps: f64) -> f32 {
    (dot(x, x) / x.len() as f32 + eps as f32).sqrt().recip()
}

/// `out[j] = sum_e q[e] * columns[e, j]` for the first `out.len()` columns.
#[inline(always)]
fn dot_columns(q: &[f32], columns: &[f32], stride: usize, out: &mut [f32]) {
    let n = out.len();
    out.fill(0.0);
    let mut rows = q.chunks_exact(4).enumerate();
    for (block, q) in rows.by_ref() {
        let base = block * 4 * stride;
        let (a, b) = (&columns[base..][..n], &columns[base + stride..][..n]);
        let (c, d) = (&columns[base + 2 * stride..][..n], &columns[base + 3 * stride..][..n]);
        for at in 0..n {
            out[at] += q[0] * a[at] + q[1] * b[at] + q[2] * c[at] + q[3] * d[at];
        }
    }
    for row in q.len() / 4 * 4..q.len() {
        for (out, column) in out.iter_mut().zip(&columns[row * stride..]) {
            *out += q[row] * column;
        }
    }
}

/// `out[e] = sum_j weights[j] * rows[j, e]`.
#[inline(always)]
fn weighted_rows(weights: &[f32], rows: &[f32], e: usize, out: &mut [f32]) {
    out.fill(0.0);
    let whole = weights.len() / 4 * 4;
    for at in (0..whole).step_by(4) {
        let w = &weights[at..at + 4];
        let block = &rows[at * e..][..4 * e];
        for lane in 0..e {
            out[lane] += w[0] * block[lane] + w[1] * block[e + lane] + w[2] * block[2 * e + lane] + w[3] * block[3 * e + lane];
        }
    }
    for at in whole..weights.len() {
        for lane in 0..e {
            out[lane] += weights[at] * rows[at * e + lane];
        }
    }
}

#[inline(always)]
fn softmax_scaled(scores: &mut [f32], scale: f32) {
    let mut top = f32::NEG_INFINITY;
    for score in scores.iter_mut() {
        *score *= scale;
        top = if *score > top { *score } else { top };
    }
    for score in scores.iter_mut() {
        *score = exp(*score - top);
    }
    let mut lanes = [0.0f32; LANES];
    let chunks = scores.chunks_exact(LANES);
    let mut sum: f32 = chunks.remainder().iter().sum();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] += chunk[lane];
        }
    }
    sum += lanes.iter().sum::<f32>();
    let inverse = 1.0 / sum;
    for score in scores.iter_mut() {
        *score *= inverse;
    }
}

/// e^x by range reduction to `|r| <= ln(2)/2` and a polynomial of degree 6; relative error below 3e-7 over the floats
/// whose result is normal, and free of calls so that loops over it vectorise.
#[inline(always)]
fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to a whole number.
    let x = x.clamp(-87.0, 88.0);
    let whole = (x * std::f32::consts::LOG2_E + ROUND) - ROUND;
    let r = (x - whole * 0.693_359_4) + whole * 2.121_944_4e-4;
    let poly = 1.388_888_9e-3f32;
    let poly = poly * r + 8.333_334e-3;
    let poly = poly * r + 4.166_666_6e-2;
    let poly = poly * r + 1.666_666_7e-1;
    let poly = poly * r + 0.5;
    let poly = poly * r + 1.0;
    let poly = poly * r + 1.0;
    poly * f32::from_bits(((whole as i32 + 127) as u32) << 23)
}

fn query_heads(segments: &Segments, kv: usize) -> std::ops::Range<usize> {
    let share = segments.heads / segments.kv_heads;
    kv * share..(kv + 1) * share
}

#[inline(always)]
fn gather(out_te: &mut [f32], rows: &[f32], width: usize, offset: usize, e: usize, t: usize) {
    for at in 0..t {
        out_te[at * e..][..e].copy_from_slice(&rows[at * width + offset..][..e]);
    }
}

#[inline(always)]
fn gather_transposed(out_et: &mut [f32], rows: &[f32], width: usize, offset: usize, e: usize, t: usize) {
    for at in 0..t {
        for (lane, value) in rows[at * width + offset..][..e].iter().enumerate() {
            out_et[lane * t + at] = *value;
        }
    }
}

/// Cuts a row-major buffer into the parts of its segments.
fn split_segments<'a>(mut buffer: &'a mut [f32], width: usize, segments: &Segments) -> Vec<(std::ops::Range<usize>, &'a mut [f32])> {
    let mut parts = Vec::with_capacity(segments.ranges.len());
    for range in &segments.ranges {
        let (part, rest) = std::mem::take(&mut buffer).split_at_mut(range.len() * width);
        parts.push((range.clone(), part));
        buffer = rest;
    }
    parts
}

/// Runs `task(first row, rows)` over blocks of rows, vectorised and in parallel when there is more than one block.
fn over_rows(out: &mut [f32], width: usize, task: impl Fn(usize, &mut [f32]) + Sync) {
    let arch = pulp::Arch::new();
    if out.len() <= ROWS_PER_TASK * width {
        arch.dispatch(|| task(0, out));
    } else {
        out.par_chunks_mut(ROWS_PER_TASK * width).enumerate().for_each(|(block, rows)| arch.dispatch(|| task(block * ROWS_PER_TASK, rows)));
    }
}
