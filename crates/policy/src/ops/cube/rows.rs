//! Kernels over rows: one plane (warp) reads a row with neighbouring lanes on neighbouring values, and sums go over the plane.
//!
//! In and out: contiguous arrays. Everything is computed in f32 and rounded to `F` when written.

use burn_cubecl::cubecl::prelude::*;

/// `x / sqrt(mean(x^2) + eps) * weight` per row of `width`.
#[cube(launch)]
pub fn rms_norm<F: Float>(
    x: &Array<F>,
    weight: &Array<F>,
    out: &mut Array<F>,
    rows: usize,
    width: usize,
    eps: f32,
    #[define(F)] _dtype: StorageType,
) {
    let row = CUBE_POS * CUBE_DIM_Y as usize + UNIT_POS_Y as usize;
    if row >= rows {
        terminate!();
    }
    let inverse = inverse_rms::<F>(x, row * width, width, eps);
    let mut at = UNIT_POS_X as usize;
    while at < width {
        out[row * width + at] = F::cast_from(f32::cast_from(x[row * width + at]) * inverse * f32::cast_from(weight[at]));
        at += CUBE_DIM_X as usize;
    }
}

/// `sum = x + y`, and [`rms_norm`] of it.
#[cube(launch)]
pub fn add_rms_norm<F: Float>(
    x: &Array<F>,
    y: &Array<F>,
    weight: &Array<F>,
    sum: &mut Array<F>,
    out: &mut Array<F>,
    rows: usize,
    width: usize,
    eps: f32,
    #[define(F)] _dtype: StorageType,
) {
    let row = CUBE_POS * CUBE_DIM_Y as usize + UNIT_POS_Y as usize;
    if row >= rows {
        terminate!();
    }
    let start = row * width;
    let mut squares = 0.0f32;
    let mut at = UNIT_POS_X as usize;
    while at < width {
        // Rounded first, as the sum alone would be.
        let value = F::cast_from(f32::cast_from(x[start + at]) + f32::cast_from(y[start + at]));
        sum[start + at] = value;
        squares += f32::cast_from(value) * f32::cast_from(value);
        at += CUBE_DIM_X as usize;
    }
    let inverse = 1.0f32 / (plane_sum(squares) / f32::cast_from(width) + eps).sqrt();
    at = UNIT_POS_X as usize;
    while at < width {
        // A lane reads what it has written itself.
        out[start + at] = F::cast_from(f32::cast_from(sum[start + at]) * inverse * f32::cast_from(weight[at]));
        at += CUBE_DIM_X as usize;
    }
}

/// [`rms_norm`] of heads of `width` values, then [`rotate`](super::elements::rotate): `heads` heads to a row of the tables.
#[cube(launch)]
pub fn norm_rotate<F: Float>(
    x: &Array<F>,
    weight: &Array<F>,
    cos: &Array<F>,
    sin: &Array<F>,
    out: &mut Array<F>,
    rows: usize,
    width: usize,
    heads: usize,
    eps: f32,
    #[define(F)] _dtype: StorageType,
) {
    let row = CUBE_POS * CUBE_DIM_Y as usize + UNIT_POS_Y as usize;
    if row >= rows {
        terminate!();
    }
    let (start, table, half) = (row * width, row / heads * width, width / 2);
    let inverse = inverse_rms::<F>(x, start, width, eps);
    let mut at = UNIT_POS_X as usize;
    while at < half {
        // Rounded in between, as the norm alone would be.
        let low = F::cast_from(f32::cast_from(x[start + at]) * inverse * f32::cast_from(weight[at]));
        let high = F::cast_from(f32::cast_from(x[start + at + half]) * inverse * f32::cast_from(weight[at + half]));
        let (low, high) = (f32::cast_from(low), f32::cast_from(high));
        let turned = low * f32::cast_from(cos[table + at]) - high * f32::cast_from(sin[table + at]);
        out[start + at] = F::cast_from(turned);
        let turned = high * f32::cast_from(cos[table + at + half]) + low * f32::cast_from(sin[table + at + half]);
        out[start + at + half] = F::cast_from(turned);
        at += CUBE_DIM_X as usize;
    }
}

#[cube]
fn inverse_rms<F: Float>(x: &Array<F>, start: usize, width: usize, eps: f32) -> f32 {
    let mut sum = 0.0f32;
    let mut at = UNIT_POS_X as usize;
    while at < width {
        let value = f32::cast_from(x[start + at]);
        sum += value * value;
        at += CUBE_DIM_X as usize;
    }
    1.0f32 / (plane_sum(sum) / f32::cast_from(width) + eps).sqrt()
}

/// Gradient of [`rms_norm`] to `x`; `inverse` \[rows\] is what the row was multiplied by, for [`rms_norm_weight`].
#[cube(launch)]
pub fn rms_norm_backward<F: Float>(
    x: &Array<F>,
    weight: &Array<F>,
    grad: &Array<F>,
    dx: &mut Array<F>,
    inverse: &mut Array<f32>,
    rows: usize,
    width: usize,
    eps: f32,
    #[define(F)] _dtype: StorageType,
) {
    let row = CUBE_POS * CUBE_DIM_Y as usize + UNIT_POS_Y as usize;
    if row >= rows {
        terminate!();
    }
    let start = row * width;
    let scale = inverse_rms::<F>(x, start, width, eps);
    let mut along = 0.0f32;
    let mut at = UNIT_POS_X as usize;
    while at < width {
        along += f32::cast_from(grad[start + at]) * f32::cast_from(weight[at]) * f32::cast_from(x[start + at]) * scale;
        at += CUBE_DIM_X as usize;
    }
    let along = plane_sum(along) / f32::cast_from(width);
    at = UNIT_POS_X as usize;
    while at < width {
        let scaled = f32::cast_from(grad[start + at]) * f32::cast_from(weight[at]);
        dx[start + at] = F::cast_from((scaled - f32::cast_from(x[start + at]) * scale * along) * scale);
        at += CUBE_DIM_X as usize;
    }
    if UNIT_POS_X == 0 {
        inverse[row] = scale;
    }
}

/// Parts \[blocks, width\] of the gradient of [`rms_norm`] to its weight: a unit adds one column over `block` rows.
#[cube(launch)]
pub fn rms_norm_weight<F: Float>(
    x: &Array<F>,
    grad: &Array<F>,
    inverse: &Array<f32>,
    parts: &mut Array<f32>,
    rows: usize,
    width: usize,
    block: usize,
    #[define(F)] _dtype: StorageType,
) {
    if ABSOLUTE_POS >= parts.len() {
        terminate!();
    }
    let (first, column) = (ABSOLUTE_POS / width * block, ABSOLUTE_POS % width);
    let mut end = first + block;
    if end > rows {
        end = rows;
    }
    let mut sum = 0.0f32;
    for row in first..end {
        let at = row * width + column;
        sum += f32::cast_from(grad[at]) * f32::cast_from(x[at]) * inverse[row];
    }
    parts[ABSOLUTE_POS] = sum;
}

/// Softmax of `scores * scale` over the first `last + 1` of `width` values, 0 after them. Row `r` of a matrix of `lines` rows
/// has the `last` of line `r % lines` of its group of `share` matrices.
#[cube(launch)]
pub fn probabilities<F: Float, I: Int>(
    scores: &Array<F>,
    last: &Array<I>,
    out: &mut Array<F>,
    rows: usize,
    width: usize,
    lines: usize,
    share: usize,
    scale: f32,
    #[define(F, I)] _dtypes: [StorageType; 2],
) {
    let row = CUBE_POS * CUBE_DIM_Y as usize + UNIT_POS_Y as usize;
    if row >= rows {
        terminate!();
    }
    let start = row * width;
    let seen = usize::cast_from(last[row / (lines * share) * lines + row % lines]) + 1;
    let (top, sum) = top_and_sum::<F>(scores, start, seen, scale);
    let mut at = UNIT_POS_X as usize;
    while at < width {
        let mut share = 0.0f32;
        if at < seen {
            share = (f32::cast_from(scores[start + at]) * scale - top).exp() / sum;
        }
        out[start + at] = F::cast_from(share);
        at += CUBE_DIM_X as usize;
    }
}

/// Gradient of [`probabilities`] to the scores: `(grad - sum(grad * p)) * p * scale`.
#[cube(launch)]
pub fn probabilities_backward<F: Float>(
    p: &Array<F>,
    grad: &Array<F>,
    out: &mut Array<F>,
    rows: usize,
    width: usize,
    scale: f32,
    #[define(F)] _dtype: StorageType,
) {
    let row = CUBE_POS * CUBE_DIM_Y as usize + UNIT_POS_Y as usize;
    if row >= rows {
        terminate!();
    }
    let start = row * width;
    let mut sum = 0.0f32;
    let mut at = UNIT_POS_X as usize;
    while at < width {
        sum += f32::cast_from(grad[start + at]) * f32::cast_from(p[start + at]);
        at += CUBE_DIM_X as usize;
    }
    let sum = plane_sum(sum);
    at = UNIT_POS_X as usize;
    while at < width {
        out[start + at] = F::cast_from((f32::cast_from(grad[start + at]) - sum) * f32::cast_from(p[start + at]) * scale);
        at += CUBE_DIM_X as usize;
    }
}

/// The highest of `width` scaled logits, and the sum of what they are after it, exponentiated.
#[cube]
fn top_and_sum<F: Float>(logits: &Array<F>, start: usize, width: usize, scale: f32) -> (f32, f32) {
    let mut top = f32::cast_from(logits[start]) * scale;
    let mut at = UNIT_POS_X as usize;
    while at < width {
        top = max(top, f32::cast_from(logits[start + at]) * scale);
        at += CUBE_DIM_X as usize;
    }
    let top = plane_max(top);
    let mut sum = 0.0f32;
    at = UNIT_POS_X as usize;
    while at < width {
        sum += (f32::cast_from(logits[start + at]) * scale - top).exp();
        at += CUBE_DIM_X as usize;
    }
    (top, plane_sum(sum))
}

/// Log-prob of each row's token under `logits * scale`.
#[cube(launch)]
pub fn pick_logprobs<F: Float, I: Int>(
    logits: &Array<F>,
    tokens: &Array<I>,
    out: &mut Array<f32>,
    rows: usize,
    width: usize,
    scale: f32,
    #[define(F, I)] _dtypes: [StorageType; 2],
) {
    let row = CUBE_POS * CUBE_DIM_Y as usize + UNIT_POS_Y as usize;
    if row >= rows {
        terminate!();
    }
    let (top, sum) = top_and_sum::<F>(logits, row * width, width, scale);
    if UNIT_POS_X == 0 {
        out[row] = f32::cast_from(logits[row * width + usize::cast_from(tokens[row])]) * scale - top - sum.ln();
    }
}

/// Gradient of [`pick_logprobs`] to the logits: `(onehot - p) * grad * scale`.
#[cube(launch)]
pub fn pick_logprobs_backward<F: Float, I: Int>(
    logits: &Array<F>,
    tokens: &Array<I>,
    grad: &Array<f32>,
    out: &mut Array<F>,
    rows: usize,
    width: usize,
    scale: f32,
    #[define(F, I)] _dtypes: [StorageType; 2],
) {
    let row = CUBE_POS * CUBE_DIM_Y as usize + UNIT_POS_Y as usize;
    if row >= rows {
        terminate!();
    }
    let start = row * width;
    let (top, sum) = top_and_sum::<F>(logits, start, width, scale);
    let (token, grad) = (usize::cast_from(tokens[row]), grad[row] * scale);
    let mut at = UNIT_POS_X as usize;
    while at < width {
        let mut value = -grad * (f32::cast_from(logits[start + at]) * scale - top).exp() / sum;
        if at == token {
            value += grad;
        }
        out[start + at] = F::cast_from(value);
        at += CUBE_DIM_X as usize;
    }
}

/// Parts of the sum of squares of `x`, one per plane, from place `first` of `parts` on.
#[cube(launch)]
pub fn squares<F: Float>(x: &Array<F>, parts: &mut Array<f32>, first: usize, planes: usize, #[define(F)] _dtype: StorageType) {
    let plane = CUBE_POS * CUBE_DIM_Y as usize + UNIT_POS_Y as usize;
    if plane >= planes {
        terminate!();
    }
    let mut sum = 0.0f32;
    let mut at = plane * CUBE_DIM_X as usize + UNIT_POS_X as usize;
    while at < x.len() {
        let value = f32::cast_from(x[at]);
        sum += value * value;
        at += planes * CUBE_DIM_X as usize;
    }
    let sum = plane_sum(sum);
    if UNIT_POS_X == 0 {
        parts[first + plane] = sum;
    }
}
