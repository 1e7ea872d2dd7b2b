//! The kernels on the CPU backend: single passes over contiguous rows, vectorised for the CPU at hand (`pulp` picks the
//! instruction set at run time), rows or segments spread over the threads of rayon's pool.
//!
//! Not known here: what the rows mean. Every function is tested against the plain version of the trait.

use std::ops::Range;

use burn::tensor::ops::FloatTensor;
use burn::tensor::{Shape, TensorData};
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::attention::{Attend, AttendBackward, Positions, Queries};
use super::product::{RowsByRows, View};
use super::vector::{LANES, dot, exp, highest, sum_exp, total};
use super::{Branches, Kernels, Segments};
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
    fn project(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x, weight) = (x.to_contiguous(), weight.to_contiguous());
        let ((n, k), (m, _)) = (dims(&x), dims(&weight));
        let (xs, ws) = (x.storage::<f32>(), weight.storage::<f32>());
        let arch = pulp::Arch::new();
        let threads = rayon::current_num_threads();
        let product = |xs: &[f32], ws: &[f32], out: &mut [&mut [f32]]| {
            arch.dispatch(RowsByRows { x: View::new(xs, k), w: View::new(ws, k), inner: k, out });
        };
        let mut out = vec![0.0f32; n * m];
        let mut rows: Vec<&mut [f32]> = out.chunks_exact_mut(m.max(1)).collect();
        if threads == 1 || n * m * k < PRODUCT_PER_TASK {
            product(xs, ws, &mut rows);
        } else if 4 * n >= m {
            let share = n.div_ceil(threads).next_multiple_of(4);
            rows.par_chunks_mut(share).zip(xs.par_chunks(share * k)).for_each(|(out, xs)| product(xs, ws, out));
        } else {
            // Few rows: each thread takes part of the weights, which are then read once by all threads together.
            let columns = m.div_ceil(threads);
            let mut parts: Vec<Vec<&mut [f32]>> = (0..m.div_ceil(columns)).map(|_| Vec::with_capacity(n)).collect();
            for row in rows {
                row.chunks_mut(columns).zip(&mut parts).for_each(|(piece, part)| part.push(piece));
            }
            parts.par_iter_mut().zip(ws.par_chunks(columns * k)).for_each(|(out, ws)| product(xs, ws, out));
        }
        tensor(out, [n, m])
    }

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
        attention_after(q, k, v, segments, |_| None)
    }

    fn branch_attention(q: FloatTensor<Self>, k: FloatTensor<Self>, v: FloatTensor<Self>, branches: &Branches) -> FloatTensor<Self> {
        let segments = &branches.segments;
        attention_after(q, k, v, segments, |segment| branches.trunks[segment].map(|trunk| segments.ranges[trunk].clone()))
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
            // Nothing to do, and at the end of the rows no place to look at.
            if t == 0 {
                return;
            }
            let (mut keys_et, mut values_et) = (vec![0.0f32; e * t], vec![0.0f32; e * t]);
            let (mut dkeys, mut dvalues) = (vec![0.0f32; e * t], vec![0.0f32; e * t]);
            let mut scratch = vec![];
            for kv in 0..segments.kv_heads {
                let at = range.start * kv_width + kv * e;
                transpose(&mut keys_et, &ks[at..], kv_width, e, t);
                transpose(&mut values_et, &vs[at..], kv_width, e, t);
                dkeys.fill(0.0);
                dvalues.fill(0.0);
                for head in query_heads(segments, kv) {
                    let at_head = range.start * width + head * e;
                    arch.dispatch(AttendBackward {
                        q: Queries { rows: View::new(&qs[at_head..], width), count: t, e },
                        grad: View::new(&gs[at_head..], width),
                        keys_et: View::new(&keys_et, t),
                        keys_te: View::new(&ks[at..], kv_width),
                        values_et: View::new(&values_et, t),
                        causal: segments.causal,
                        scratch: &mut scratch,
                        dq: &mut dq[head * e..],
                        stride: width,
                        dk: &mut dkeys,
                        dv: &mut dvalues,
                    });
                }
                for row in 0..t {
                    dk[row * kv_width + kv * e..][..e].copy_from_slice(&dkeys[row * e..][..e]);
                    dv[row * kv_width + kv * e..][..e].copy_from_slice(&dvalues[row * e..][..e]);
                }
            }
        });
        [tensor(dq, [n, width]), tensor(dk, [n, kv_width]), tensor(dv, [n, kv_width])]
    }

    fn pick_logprobs(logits: FloatTensor<Self>, tokens: &[u32], temperature: f64) -> FloatTensor<Self> {
        let logits = logits.to_contiguous();
        let (n, vocab) = dims(&logits);
        let (ls, scale) = (logits.storage::<f32>(), temperature.recip() as f32);
        let mut out = vec![0.0f32; n];
        let arch = pulp::Arch::new();
        out.par_iter_mut().enumerate().with_min_len(LOGIT_ROWS_PER_TASK).for_each(|(row, out)| {
            let logits = &ls[row * vocab..][..vocab];
            let (top, sum) = arch.dispatch(|| {
                let top = highest(logits);
                (top, sum_exp(logits, scale, top))
            });
            *out = (logits[tokens[row] as usize] - top) * scale - sum.ln();
        });
        tensor(out, [n])
    }

    fn pick_logprobs_backward(logits: FloatTensor<Self>, tokens: &[u32], temperature: f64, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        let (logits, grad) = (logits.to_contiguous(), grad.to_contiguous());
        let (n, vocab) = dims(&logits);
        let (ls, gs, scale) = (logits.storage::<f32>(), grad.storage::<f32>(), temperature.recip() as f32);
        let mut out = vec![0.0f32; n * vocab];
        let arch = pulp::Arch::new();
        out.par_chunks_mut(vocab.max(1)).enumerate().with_min_len(LOGIT_ROWS_PER_TASK).for_each(|(row, out)| {
            let logits = &ls[row * vocab..][..vocab];
            let grad = gs[row] * scale;
            arch.dispatch(|| {
                let top = highest(logits);
                for (out, logit) in out.iter_mut().zip(logits) {
                    *out = exp((logit - top) * scale);
                }
                let share = -grad / total(out);
                for out in out.iter_mut() {
                    *out *= share;
                }
            });
            out[tokens[row] as usize] += grad;
        });
        tensor(out, [n, vocab])
    }
}

/// Attention of every segment's rows over the rows `trunk(segment)`, if any, and then the segment's own.
fn attention_after(
    q: FloatTensor<Cpu>,
    k: FloatTensor<Cpu>,
    v: FloatTensor<Cpu>,
    segments: &Segments,
    trunk: impl Fn(usize) -> Option<Range<usize>> + Sync,
) -> FloatTensor<Cpu> {
    let (q, k, v) = (q.to_contiguous(), k.to_contiguous(), v.to_contiguous());
    let (n, width) = dims(&q);
    let e = width / segments.heads;
    let kv_width = segments.kv_heads * e;
    let (qs, ks, vs) = (q.storage::<f32>(), k.storage::<f32>(), v.storage::<f32>());
    let mut out = vec![0.0f32; n * width];
    let arch = pulp::Arch::new();
    split_segments(&mut out, width, segments).into_par_iter().enumerate().for_each(|(segment, (range, out))| {
        if range.is_empty() {
            return;
        }
        let shared = trunk(segment).unwrap_or(0..0);
        let (mut own_et, mut shared_et) = (vec![0.0f32; e * range.len()], vec![0.0f32; e * shared.len()]);
        let mut scratch = vec![];
        for kv in 0..segments.kv_heads {
            let positions = |keys_et, range: &Range<usize>| {
                let at = range.start * kv_width + kv * e;
                Positions { keys_et, piece: range.len(), values_te: View::new(&vs[at..], kv_width), count: range.len() }
            };
            for (keys_et, range) in [(&mut own_et, &range), (&mut shared_et, &shared)] {
                transpose(keys_et, &ks[range.start * kv_width + kv * e..], kv_width, e, range.len());
            }
            for head in query_heads(segments, kv) {
                let rows = View::new(&qs[range.start * width + head * e..], width);
                arch.dispatch(Attend {
                    q: Queries { rows, count: range.len(), e },
                    shared: positions(&shared_et, &shared),
                    own: positions(&own_et, &range),
                    seen: |row| if segments.causal { row + 1 } else { range.len() },
                    scratch: &mut scratch,
                    out: &mut out[head * e..],
                    stride: width,
                });
            }
        }
    });
    tensor(out, [n, width])
}

/// Multiplications below which a product is not worth a second thread.
const PRODUCT_PER_TASK: usize = 1 << 20;
/// Rows of logits that one task of the pool handles.
const LOGIT_ROWS_PER_TASK: usize = 32;

#[inline(always)]
fn inverse_rms(x: &[f32], eps: f64) -> f32 {
    (dot(x, x) / x.len() as f32 + eps as f32).sqrt().recip()
}

fn query_heads(segments: &Segments, kv: usize) -> Range<usize> {
    let share = segments.heads / segments.kv_heads;
    kv * share..(kv + 1) * share
}

/// `out[lane, at] = rows[at, lane]` for `t` rows of `e` values.
fn transpose(out_et: &mut [f32], rows: &[f32], stride: usize, e: usize, t: usize) {
    // Sixteen rows at a time: their lines stay in the cache until each of their values is written.
    for start in (0..t).step_by(16) {
        let end = t.min(start + 16);
        for lane in 0..e {
            for (at, out) in (start..end).zip(&mut out_et[lane * t + start..lane * t + end]) {
                *out = rows[at * stride + lane];
            }
        }
    }
}

/// Cuts a row-major buffer into the parts of its segments.
fn split_segments<'a>(mut buffer: &'a mut [f32], width: usize, segments: &Segments) -> Vec<(Range<usize>, &'a mut [f32])> {
    let mut parts = Vec::with_capacity(segments.ranges.len());
    for range in &segments.ranges {
        let (part, rest) = std::mem::take(&mut buffer).split_at_mut(range.len() * width);
        parts.push((range.clone(), part));
        buffer = rest;
    }
    parts
}

/// Elements that one task of the pool handles in elementwise kernels: big enough to pay for the task.
const ELEMENTS_PER_TASK: usize = 32 << 10;

/// Runs `task(first row, rows)` over blocks of rows, vectorised and in parallel when there is more than one block.
fn over_rows(out: &mut [f32], width: usize, task: impl Fn(usize, &mut [f32]) + Sync) {
    let arch = pulp::Arch::new();
    let rows = (ELEMENTS_PER_TASK / width.max(1)).max(1);
    // The one place where the task is called: called from two, it would not be inlined, and not vectorised for this processor.
    let run = |(block, part): (usize, &mut [f32])| arch.dispatch(|| task(block * rows, part));
    if out.len() <= rows * width {
        run((0, out));
    } else {
        out.par_chunks_mut(rows * width).enumerate().for_each(run);
    }
}
