//! Kernels over rows and single values: norms, rotation, gated units, softmax, log-probs, the optimiser.

use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{DType, FloatDType, Int, Tensor, TensorData, TensorPrimitive};

use super::Sheet;
use super::held::{Lie, bell, lay, poison};
use super::reference::wide;
use crate::backend::Cpu;
use crate::ops::{AdamStep, Asked, Kernels, adam, plain};

const ROWS: &[(usize, bool)] =
    &[(1, true), (3, true), (7, false), (8, false), (9, true), (255, false), (256, false), (257, true), (700, false)];
const WIDTHS: &[(usize, bool)] =
    &[(1, true), (2, false), (31, true), (32, true), (33, true), (127, false), (128, true), (130, false), (1152, false)];
/// Widths of heads, which are even.
const HEADS: &[(usize, bool)] = &[(2, true), (16, false), (24, true), (64, true), (72, false), (80, false), (128, false)];
const EPS: f64 = 1e-6;

pub(super) fn run<B: Kernels>(sheet: &mut Sheet<'_, B>) {
    norms(sheet);
    rotations(sheet);
    softmax(sheet);
    logprobs(sheet);
    optimiser(sheet);
}

/// A tensor's values on the CPU.
fn right<const D: usize>(x: FloatTensor<Cpu>) -> Vec<f64> {
    let data = Tensor::<Cpu, D>::from_primitive(TensorPrimitive::Float(x)).into_data();
    wide(&data.into_vec::<f32>().expect("the CPU computes in f32"))
}

fn held<B: Backend, const D: usize>(values: &[f32], shape: [usize; D], device: &B::Device) -> FloatTensor<B> {
    Tensor::<B, D>::from_data(TensorData::new(values.to_vec(), shape), device).into_primitive().tensor()
}

fn here<const D: usize>(values: &[f32], shape: [usize; D]) -> FloatTensor<Cpu> {
    held::<Cpu, D>(values, shape, &Default::default())
}

const LIES: [Lie; 3] = [Lie::Plain, Lie::AmongRows, Lie::AmongColumns];

fn norms<B: Kernels>(sheet: &mut Sheet<'_, B>) {
    let (device, allowed) = (sheet.device.clone(), sheet.tolerances.rows);
    for width in sheet.sizes(WIDTHS) {
        let size = format!("width = {width}");
        for n in sheet.sizes(ROWS) {
            let (x, y, g, weight) = (bell(n * width, 1), bell(n * width, 2), bell(n * width, 3), bell(width, 4));
            let cpu = |values: &[f32]| here(values, [n, width]);
            let norm = right::<2>(plain::rms_norm::<Cpu>(cpu(&x), here(&weight, [width]), EPS));
            let [dx, dweight] = plain::rms_norm_backward::<Cpu>(cpu(&x), here(&weight, [width]), EPS, cpu(&g));
            let (dx, dweight) = (right::<2>(dx), right::<1>(dweight));
            let gated = right::<2>(plain::swiglu::<Cpu>(cpu(&x), cpu(&y)));
            let gates = plain::swiglu_backward::<Cpu>(cpu(&x), cpu(&y), cpu(&g)).map(right::<2>);
            for lie in LIES {
                let case = format!("{n} rows, {}", lie.words());
                let there = |values: &[f32]| lay::<B>(values, [n, width], lie, &device);
                let (there_x, there_y, there_g) = (there(&x), there(&y), there(&g));
                let by = held::<B, 1>(&weight, [width], &device);
                poison::<B>(&[n * width, n, width], &device);
                sheet.note::<2>(("rms_norm", allowed), &size, &case, B::rms_norm(there_x.clone(), by.clone(), EPS), &norm);
                let [to_x, to_weight] = B::rms_norm_backward(there_x.clone(), by.clone(), EPS, there_g.clone());
                sheet.note::<2>(("rms_norm_backward", allowed), &size, &case, to_x, &dx);
                sheet.note::<1>(("rms_norm_backward", allowed), &size, &case, to_weight, &dweight);
                let (sum, normed) = B::add_rms_norm(there_x.clone(), there_y.clone(), by, EPS);
                // The norm is of the sum as the device has rounded it.
                let rounded = crate::faults::floats_or_panic(Tensor::<B, 2>::from_primitive(TensorPrimitive::Float(sum)));
                let exact: Vec<f64> = x.iter().zip(&y).map(|(x, y)| f64::from(*x) + f64::from(*y)).collect();
                sheet.compare(("add_rms_norm", allowed), &size, &case, &rounded, &exact);
                let of_sum = right::<2>(plain::rms_norm::<Cpu>(cpu(&rounded), here(&weight, [width]), EPS));
                sheet.note::<2>(("add_rms_norm", allowed), &size, &case, normed, &of_sum);
                sheet.note::<2>(("swiglu", allowed), &size, &case, B::swiglu(there_x.clone(), there_y.clone()), &gated);
                for (got, want) in B::swiglu_backward(there_x, there_y, there_g).into_iter().zip(&gates) {
                    sheet.note::<2>(("swiglu_backward", allowed), &size, &case, got, want);
                }
            }
        }
        sheet.done(&size);
    }
}

fn rotations<B: Kernels>(sheet: &mut Sheet<'_, B>) {
    let (device, allowed) = (sheet.device.clone(), sheet.tolerances.rows);
    for e in sheet.sizes(HEADS) {
        let size = format!("heads of {e}");
        for (n, heads) in sheet.sizes(ROWS).into_iter().flat_map(|n| [1, 3, 8].map(|heads| (n, heads))) {
            let (x, cos, sin, weight) = (bell(n * heads * e, 1), bell(n * e, 2), bell(n * e, 3), bell(e, 4));
            let (shape, table) = ([n, heads * e], [n, e]);
            let turned = right::<2>(plain::rotate::<Cpu>(here(&x, shape), here(&cos, table), here(&sin, table)));
            let normed = plain::rms_norm::<Cpu>(here(&x, [n * heads, e]), here(&weight, [e]), EPS);
            let normed: Vec<f32> = right::<2>(normed).into_iter().map(|value| value as f32).collect();
            let both = right::<2>(plain::rotate::<Cpu>(here(&normed, shape), here(&cos, table), here(&sin, table)));
            for lie in LIES {
                let case = format!("{n} rows of {heads}, {}", lie.words());
                let there = |values: &[f32], shape| lay::<B>(values, shape, lie, &device);
                let (there_x, cos, sin) = (there(&x, shape), there(&cos, table), there(&sin, table));
                poison::<B>(&[n * heads * e], &device);
                sheet.note::<2>(("rotate", allowed), &size, &case, B::rotate(there_x.clone(), cos.clone(), sin.clone()), &turned);
                let got = B::norm_rotate(there_x, held::<B, 1>(&weight, [e], &device), EPS, cos, sin);
                sheet.note::<2>(("norm_rotate", allowed), &size, &case, got, &both);
            }
        }
        sheet.done(&size);
    }
}

/// Scores of which some are hidden: those are NaN, and must not matter.
fn softmax<B: Kernels>(sheet: &mut Sheet<'_, B>) {
    let (device, allowed) = (sheet.device.clone(), sheet.tolerances.rows);
    for p in sheet.sizes(WIDTHS) {
        let size = format!("{p} positions");
        for ([s, kv, share], l) in [[1, 1, 1], [2, 1, 3], [3, 2, 2]].into_iter().flat_map(|of| [1, 5, 33].map(|l| (of, l))) {
            let shape = [s, kv, share * l, p];
            let last: Vec<i64> = (0..s * l).map(|at| (at * 7 % p) as i64).collect();
            let hidden = |at: usize| {
                let (row, position) = (at / p, at % p);
                position as i64 > last[row / (kv * share * l) * l + row % l]
            };
            let mut scores: Vec<f32> = bell(s * kv * share * l * p, 1).into_iter().map(|score| score * 4.0).collect();
            (0..scores.len()).filter(|at| hidden(*at)).for_each(|at| scores[at] = f32::NAN);
            let lasts = |device: &B::Device| Tensor::<B, 2, Int>::from_data(TensorData::new(last.clone(), [s, l]), device).into_primitive();
            let of_cpu = Tensor::<Cpu, 2, Int>::from_data(TensorData::new(last.clone(), [s, l]), &Default::default()).into_primitive();
            let wanted = right::<4>(plain::probabilities::<Cpu>(here(&scores, shape), of_cpu, 0.3));
            let grad = bell(scores.len(), 2);
            let shares: Vec<f32> = wanted.iter().map(|share| *share as f32).collect();
            let back = right::<4>(plain::probabilities_backward::<Cpu>(here(&shares, shape), 0.3, here(&grad, shape)));
            let case = format!("{s} x {kv} x {share} x {l}");
            let there = held::<B, 4>(&scores, shape, &device);
            poison::<B>(&[scores.len()], &device);
            sheet.note::<4>(("probabilities", allowed), &size, &case, B::probabilities(there, lasts(&device), 0.3), &wanted);
            let (p, grad) = (held::<B, 4>(&shares, shape, &device), held::<B, 4>(&grad, shape, &device));
            sheet.note::<4>(("probabilities_backward", allowed), &size, &case, B::probabilities_backward(p, 0.3, grad), &back);
        }
        sheet.done(&size);
    }
}

fn logprobs<B: Kernels>(sheet: &mut Sheet<'_, B>) {
    let (device, allowed, of_products) = (sheet.device.clone(), sheet.tolerances.rows, sheet.tolerances.products);
    for vocab in sheet.sizes(WIDTHS) {
        let size = format!("vocabulary of {vocab}");
        for n in sheet.sizes(ROWS) {
            let logits: Vec<f32> = bell(n * vocab, 1).into_iter().map(|logit| logit * 2.0).collect();
            // The first, the last, and some between.
            let tokens: Vec<u32> = (0..n).map(|row| [0, vocab - 1, row * 5 % vocab][row % 3] as u32).collect();
            let grad = bell(n, 2);
            let picked = right::<1>(plain::pick_logprobs::<Cpu>(here(&logits, [n, vocab]), &tokens, 0.7));
            let back = right::<2>(plain::pick_logprobs_backward::<Cpu>(here(&logits, [n, vocab]), &tokens, 0.7, here(&grad, [n])));
            for lie in LIES {
                let case = format!("{n} rows, {}", lie.words());
                let there = lay::<B>(&logits, [n, vocab], lie, &device);
                poison::<B>(&[n, n * vocab], &device);
                sheet.note::<1>(("pick_logprobs", allowed), &size, &case, B::pick_logprobs(there.clone(), &tokens, 0.7), &picked);
                let got = B::pick_logprobs_backward(there, &tokens, 0.7, held::<B, 1>(&grad, [n], &device));
                sheet.note::<2>(("pick_logprobs_backward", allowed), &size, &case, got, &back);
            }
            // Through a head of 24, whose logits are held for some rows at a time.
            let (hidden, head) = (bell(n * 24, 3), bell(vocab * 24, 4).into_iter().map(|value| value / 4.0).collect::<Vec<f32>>());
            let through = plain::project::<Cpu>(here(&hidden, [n, 24]), here(&head, [vocab, 24]));
            let wanted = right::<1>(plain::pick_logprobs::<Cpu>(through, &tokens, 1.0));
            let asked = Asked { tokens, temperature: 1.0 };
            let (hidden, head) =
                (lay::<B>(&hidden, [n, 24], Lie::AmongRows, &device), lay::<B>(&head, [vocab, 24], Lie::AmongRows, &device));
            poison::<B>(&[n, n * vocab], &device);
            let got = B::token_logprobs(hidden, head, &asked);
            sheet.note::<1>(("token_logprobs", of_products), &size, &format!("{n} rows"), got, &wanted);
        }
        sheet.done(&size);
    }
}

fn optimiser<B: Kernels>(sheet: &mut Sheet<'_, B>) {
    let device = sheet.device.clone();
    let step = AdamStep { scale: 0.5, beta1: 0.9, beta2: 0.98, keep: 0.99, rate: 0.1, correction: 0.3, eps: 1e-8 };
    for n in sheet.sizes(&[
        (1, true),
        (31, true),
        (32, false),
        (33, true),
        (255, false),
        (256, true),
        (257, true),
        (1000, false),
        (32_769, false),
    ]) {
        let size = format!("{n} values");
        // Masters and moments are f32 whatever the device computes in.
        let row = |values: &[f32]| {
            Tensor::<B, 1>::from_data(TensorData::new(values.to_vec(), [n]), (&device, DType::F32)).into_primitive().tensor()
        };
        let (weight, first, gradient) = (bell(n, 1), bell(n, 2), bell(n, 4));
        let second: Vec<f32> = bell(n, 3).into_iter().map(f32::abs).collect();
        let held = || [&weight, &first, &second];
        let (wanted, rounded) = adam::plain::<Cpu>(held().map(|of| here(of, [n])), here(&gradient, [n]), &step, FloatDType::F32);
        poison::<B>(&[n], &device);
        let (got, got_rounded) = B::adam(held().map(|of| row(of)), row(&gradient), &step, FloatDType::F32);
        let (got, wanted) = (got.into_iter().chain([got_rounded]), wanted.into_iter().chain([rounded]));
        for (got, want) in got.zip(wanted) {
            sheet.note::<1>(("adam", 2e-5), &size, "masters, moments, weight", got, &right::<1>(want));
        }
        let exact: f64 = gradient.iter().chain(&weight).map(|value| f64::from(*value).powi(2)).sum();
        poison::<B>(&[2048, 1024], &device);
        let parts = Tensor::<B, 1>::from_primitive(TensorPrimitive::Float(B::squares(vec![row(&gradient), row(&weight)])));
        let sum: f32 = crate::faults::floats_or_panic(parts).iter().sum();
        sheet.compare(("squares", 1e-4), &size, "two tensors", &[sum], &[exact]);
        sheet.done(&size);
    }
}
