//! Kernels over single values: one unit each.
//!
//! In and out: contiguous arrays. Everything is computed in f32 and rounded to `F` when written.

use burn_cubecl::cubecl::prelude::*;

/// `x * cos + rotate_half(x) * sin` for heads of `e` values, `width` values to a row of the tables.
#[cube(launch)]
pub fn rotate<F: Float>(
    x: &Array<F>,
    cos: &Array<F>,
    sin: &Array<F>,
    out: &mut Array<F>,
    width: usize,
    e: usize,
    #[define(F)] _dtype: StorageType,
) {
    if ABSOLUTE_POS >= out.len() {
        terminate!();
    }
    let lane = ABSOLUTE_POS % e;
    let table = ABSOLUTE_POS / width * e + lane;
    let half = e / 2;
    let mut turned = f32::cast_from(sin[table]);
    if lane < half {
        turned *= -f32::cast_from(x[ABSOLUTE_POS + half]);
    } else {
        turned *= f32::cast_from(x[ABSOLUTE_POS - half]);
    }
    let straight = f32::cast_from(x[ABSOLUTE_POS]) * f32::cast_from(cos[table]);
    out[ABSOLUTE_POS] = F::cast_from(straight + turned);
}

#[cube]
fn sigmoid(x: f32) -> f32 {
    1.0f32 / (1.0f32 + (-x).exp())
}

/// `silu(gate) * up`.
#[cube(launch)]
pub fn swiglu<F: Float>(gate: &Array<F>, up: &Array<F>, out: &mut Array<F>, #[define(F)] _dtype: StorageType) {
    if ABSOLUTE_POS >= out.len() {
        terminate!();
    }
    let gate = f32::cast_from(gate[ABSOLUTE_POS]);
    out[ABSOLUTE_POS] = F::cast_from(gate * sigmoid(gate) * f32::cast_from(up[ABSOLUTE_POS]));
}

/// Gradients of [`swiglu`].
#[cube(launch)]
pub fn swiglu_backward<F: Float>(
    gate: &Array<F>,
    up: &Array<F>,
    grad: &Array<F>,
    dgate: &mut Array<F>,
    dup: &mut Array<F>,
    #[define(F)] _dtype: StorageType,
) {
    if ABSOLUTE_POS >= dup.len() {
        terminate!();
    }
    let gate = f32::cast_from(gate[ABSOLUTE_POS]);
    let grad = f32::cast_from(grad[ABSOLUTE_POS]);
    let sig = sigmoid(gate);
    dup[ABSOLUTE_POS] = F::cast_from(grad * gate * sig);
    dgate[ABSOLUTE_POS] = F::cast_from(grad * f32::cast_from(up[ABSOLUTE_POS]) * sig * (1.0f32 + gate * (1.0f32 - sig)));
}

/// [`AdamStep::one`](crate::ops::AdamStep::one) for each value, in place; `rounded` is the new weight in `W`.
#[cube(launch)]
pub fn adam<G: Float, W: Float>(
    weight: &mut Array<f32>,
    first: &mut Array<f32>,
    second: &mut Array<f32>,
    gradient: &Array<G>,
    rounded: &mut Array<W>,
    scale: f32,
    beta1: f32,
    beta2: f32,
    keep: f32,
    rate: f32,
    correction: f32,
    eps: f32,
    #[define(G, W)] _dtypes: [StorageType; 2],
) {
    if ABSOLUTE_POS >= weight.len() {
        terminate!();
    }
    let gradient = f32::cast_from(gradient[ABSOLUTE_POS]) * scale;
    let m = beta1 * first[ABSOLUTE_POS] + (1.0f32 - beta1) * gradient;
    let v = beta2 * second[ABSOLUTE_POS] + (1.0f32 - beta2) * gradient * gradient;
    let w = weight[ABSOLUTE_POS] * keep - rate * m / (v.sqrt() / correction + eps);
    first[ABSOLUTE_POS] = m;
    second[ABSOLUTE_POS] = v;
    weight[ABSOLUTE_POS] = w;
    rounded[ABSOLUTE_POS] = W::cast_from(w);
}
