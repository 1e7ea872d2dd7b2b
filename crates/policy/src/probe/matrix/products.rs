//! Products of every layout: rows with weights, and gradients to both.

use super::Sheet;
use super::held::{Lie, eighths, lay, poison};
use super::reference::{product, wide};
use crate::ops::Kernels;

/// Rows, columns and inner sizes around those of tiles (8, 16, 32), of stages (32, and two of them) and of what is chosen by (64
/// rows, 32 columns); those marked are tried always.
const M: &[(usize, bool)] = &[
    (1, true),
    (2, false),
    (3, true),
    (7, false),
    (16, false),
    (17, true),
    (33, false),
    (63, false),
    (64, true),
    (65, true),
    (100, false),
    (129, false),
    (130, true),
    (257, false),
];
const N: &[(usize, bool)] = &[
    (1, true),
    (8, true),
    (16, false),
    (24, false),
    (31, true),
    (32, false),
    (33, true),
    (48, false),
    (64, false),
    (96, true),
    (128, false),
    (333, false),
];
const K: &[(usize, bool)] = &[
    (1, true),
    (8, false),
    (31, true),
    (32, true),
    (33, true),
    (48, false),
    (63, true),
    (64, true),
    (65, false),
    (72, false),
    (95, false),
    (96, true),
    (127, false),
    (128, false),
    (160, true),
    (416, false),
    (1152, false),
];

pub(super) fn run<B: Kernels>(sheet: &mut Sheet<'_, B>) {
    let (ms, ns, ks, exact) = (sheet.sizes(M), sheet.sizes(N), sheet.sizes(K), sheet.tolerances.exact);
    for m in ms {
        let size = format!("m = {m}");
        for (n, k) in ns.iter().flat_map(|n| ks.iter().map(move |k| (*n, *k))) {
            let (x, w, g) = (eighths(m * k, 1), eighths(n * k, 2), eighths(m * n, 3));
            let (wide_x, wide_w, wide_g) = (wide(&x), wide(&w), wide(&g));
            let out = product((&wide_x, (k, 1)), (&wide_w, (1, k)), [m, k, n]);
            let dx = product((&wide_g, (n, 1)), (&wide_w, (k, 1)), [m, n, k]);
            let dw = product((&wide_g, (1, n)), (&wide_x, (k, 1)), [n, m, k]);
            for lie in Lie::ALL {
                let case = format!("k = {k}, n = {n}, {}", lie.words());
                let device = sheet.device.clone();
                let held = |values: &[f32], shape| lay::<B>(values, shape, lie, &device);
                let (x, w, g) = (held(&x, [m, k]), held(&w, [n, k]), held(&g, [m, n]));
                poison::<B>(&[m * n, m * k, n * k], &device);
                let got = B::project(x.clone(), w.clone());
                sheet.note::<2>(("project", exact), &size, &case, got, &out);
                let [to_x, to_w] = B::project_backward(x, w, g);
                sheet.note::<2>(("project_backward to x", exact), &size, &case, to_x, &dx);
                sheet.note::<2>(("project_backward to w", exact), &size, &case, to_w, &dw);
            }
        }
        sheet.done(&size);
    }
}
