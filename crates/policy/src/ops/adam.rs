//! One AdamW update of a parameter.
//!
//! In: master and moments, f32 and \[n\], and a gradient. Out: master, moments, and the weight that the model computes with.
//! Follows Loshchilov & Hutter 2019 with PyTorch's order of operations; whoever calls has put the step count and the gradient norm into the numbers.

use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{FloatDType, Tensor};

use super::{unwrap, wrap};

/// The numbers of an update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamStep {
    /// What gradients are multiplied by: below 1 where their norm is clipped.
    pub scale: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// What the weight is multiplied by: 1 less its decay.
    pub keep: f32,
    /// Learning rate, the first moment's bias corrected.
    pub rate: f32,
    /// The root of the second moment's bias correction.
    pub correction: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
}

impl AdamStep {
    /// The update of one value.
    #[inline]
    pub fn one(&self, weight: &mut f32, first: &mut f32, second: &mut f32, gradient: f32) {
        let gradient = gradient * self.scale;
        *first = self.beta1 * *first + (1.0 - self.beta1) * gradient;
        *second = self.beta2 * *second + (1.0 - self.beta2) * gradient * gradient;
        *weight = *weight * self.keep - self.rate * *first / (second.sqrt() / self.correction + self.eps);
    }
}

/// [`Kernels::adam`](super::Kernels::adam) as a chain of operations.
pub fn plain<B: Backend>(
    held: [FloatTensor<B>; 3],
    gradient: FloatTensor<B>,
    step: &AdamStep,
    dtype: FloatDType,
) -> ([FloatTensor<B>; 3], FloatTensor<B>) {
    let [weight, first, second] = held.map(wrap::<B, 1>);
    let gradient = wrap::<B, 1>(gradient).cast(FloatDType::F32) * step.scale;
    let first = first * step.beta1 + gradient.clone() * (1.0 - step.beta1);
    let second = second * step.beta2 + gradient.powi_scalar(2) * (1.0 - step.beta2);
    let down = second.clone().sqrt() / step.correction + step.eps;
    let weight = weight * step.keep - first.clone() * step.rate / down;
    let rounded = weight.clone().cast(dtype);
    ([weight, first, second].map(unwrap), unwrap(rounded))
}

/// [`Kernels::squares`](super::Kernels::squares) as a chain of operations.
pub fn squares<B: Backend>(of: Vec<FloatTensor<B>>) -> FloatTensor<B> {
    let one = |x| wrap::<B, 1>(x).cast(FloatDType::F32).powi_scalar(2).sum();
    unwrap(Tensor::cat(of.into_iter().map(one).collect(), 0))
}
