//! Experts: a few rows each, or none.

use burn::tensor::Tensor;

use super::Sheet;
use super::held::{Lie, bell, lay, poison};
use super::reference::{product, wide};
use crate::ops::Kernels;

/// Rows of each expert.
const COUNTS: &[(&[usize], bool)] =
    &[(&[3, 0, 5, 1], true), (&[0, 0, 1], true), (&[7, 2, 0, 65, 3, 1, 17, 2], true), (&[130, 1, 0, 64], false), (&[20; 8], false)];
/// Width of rows, inner width of an expert.
const WIDTHS: &[((usize, usize), bool)] =
    &[((12, 10), true), ((33, 17), true), ((64, 48), true), ((64, 32), false), ((128, 96), false), ((160, 72), false)];

pub(super) fn run<B: Kernels>(sheet: &mut Sheet<'_, B>) {
    let full = sheet.extent == super::Extent::Full;
    for (d, inner) in WIDTHS.iter().filter(|(_, quick)| *quick || full).map(|(widths, _)| *widths) {
        let size = format!("experts of {d} and {inner}");
        for counts in COUNTS.iter().filter(|(_, quick)| *quick || full).map(|(counts, _)| *counts) {
            of(sheet, &size, (d, inner), counts);
        }
        sheet.done(&size);
    }
}

fn of<B: Kernels>(sheet: &mut Sheet<'_, B>, size: &str, (d, inner): (usize, usize), counts: &[usize]) {
    let (device, allowed) = (sheet.device.clone(), sheet.tolerances.products);
    let (experts, rows) = (counts.len(), counts.iter().sum::<usize>());
    let small = |values: Vec<f32>| -> Vec<f32> { values.into_iter().map(|value| value / 8.0).collect() };
    let (x, g) = (bell(rows * d, 1), bell(rows * d, 2));
    let (gate_up, down) = (small(bell(experts * 2 * inner * d, 3)), small(bell(experts * d * inner, 4)));
    let right = Right { x: wide(&x), g: wide(&g), gate_up: wide(&gate_up), down: wide(&down), d, inner };
    let (out, back) = right.both(counts);
    for lie in [Lie::Plain, Lie::AmongRows, Lie::Pitched] {
        let case = format!("{counts:?}, {}", lie.words());
        // Weights lie as the product of a checkpoint's tensors does: stacked, of which each expert is a part.
        let stacked = |values: &[f32], shape: [usize; 3]| {
            let x = lay::<B>(values, [shape[0] * shape[1], shape[2]], lie, &device);
            let x = Tensor::<B, 2>::from_primitive(burn::tensor::TensorPrimitive::Float(x));
            x.reshape(shape).into_primitive().tensor()
        };
        let (gate_up, down) = (stacked(&gate_up, [experts, 2 * inner, d]), stacked(&down, [experts, d, inner]));
        let (x, g) = (lay::<B>(&x, [rows, d], lie, &device), lay::<B>(&g, [rows, d], lie, &device));
        poison::<B>(&[rows * d, rows * inner, 2 * inner * d], &device);
        let got = B::experts(x.clone(), gate_up.clone(), down.clone(), counts);
        sheet.note::<2>(("experts", allowed), size, &case, got, &out);
        let [to_x, to_gate_up, to_down] = B::experts_backward(x, gate_up, down, counts, g);
        sheet.note::<2>(("experts_backward", allowed), size, &case, to_x, &back[0]);
        sheet.note::<3>(("experts_backward", allowed), size, &case, to_gate_up, &back[1]);
        sheet.note::<3>(("experts_backward", allowed), size, &case, to_down, &back[2]);
    }
}

struct Right {
    x: Vec<f64>,
    g: Vec<f64>,
    gate_up: Vec<f64>,
    down: Vec<f64>,
    d: usize,
    inner: usize,
}

impl Right {
    /// What comes out, and the gradients to rows and weights.
    fn both(&self, counts: &[usize]) -> (Vec<f64>, [Vec<f64>; 3]) {
        let Self { d, inner, .. } = *self;
        let (mut out, mut dx) = (vec![], vec![]);
        let (mut dgate_up, mut ddown) = (vec![0.0; self.gate_up.len()], vec![0.0; self.down.len()]);
        let mut first = 0;
        for (expert, &m) in counts.iter().enumerate() {
            let (x, g) = (&self.x[first * d..][..m * d], &self.g[first * d..][..m * d]);
            first += m;
            let gate_up = &self.gate_up[expert * 2 * inner * d..][..2 * inner * d];
            let down = &self.down[expert * d * inner..][..d * inner];
            let both = product((x, (d, 1)), (gate_up, (1, d)), [m, d, 2 * inner]);
            let parts = |at: usize| (both[at / inner * 2 * inner + at % inner], both[at / inner * 2 * inner + inner + at % inner]);
            let sigmoid = |gate: f64| 1.0 / (1.0 + (-gate).exp());
            let mixed: Vec<f64> = (0..m * inner).map(|at| parts(at).0 * sigmoid(parts(at).0) * parts(at).1).collect();
            out.extend(product((&mixed, (inner, 1)), (down, (1, inner)), [m, inner, d]));
            ddown[expert * d * inner..][..d * inner].copy_from_slice(&product((g, (1, d)), (&mixed, (inner, 1)), [d, m, inner]));
            let dmixed = product((g, (d, 1)), (down, (inner, 1)), [m, d, inner]);
            let mut dboth = vec![0.0; m * 2 * inner];
            for (at, dmixed) in dmixed.iter().enumerate() {
                let ((gate, up), to) = (parts(at), at / inner * 2 * inner + at % inner);
                dboth[to] = dmixed * up * sigmoid(gate) * (1.0 + gate * (1.0 - sigmoid(gate)));
                dboth[to + inner] = dmixed * gate * sigmoid(gate);
            }
            dx.extend(product((&dboth, (2 * inner, 1)), (gate_up, (d, 1)), [m, 2 * inner, d]));
            let to = &mut dgate_up[expert * 2 * inner * d..][..2 * inner * d];
            to.copy_from_slice(&product((&dboth, (1, 2 * inner)), (x, (d, 1)), [2 * inner, m, d]));
        }
        (out, [dx, dgate_up, ddown])
    }
}
