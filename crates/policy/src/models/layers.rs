//! The small parts that decoder and vision tower share. Parameters keep the names and layouts of the published files
//! (`weight` of a linear map is \[out, in\]), so that a checkpoint is read and written without a mapping.

use burn::module::{Module, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Distribution, FloatDType, Tensor};

use crate::ops::{self, Kernels};

/// Where fresh parameters come from: a seeded device generator with the given standard deviation.
#[derive(Clone, Debug)]
pub struct Init<'a, B: Backend> {
    /// Device that holds the parameters.
    pub device: &'a B::Device,
    /// Standard deviation of weights.
    pub std: f64,
}

impl<B: Backend> Init<'_, B> {
    /// Normal weights.
    pub fn weight<const D: usize>(&self, shape: [usize; D]) -> Param<Tensor<B, D>> {
        Param::from_tensor(Tensor::random(shape, Distribution::Normal(0.0, self.std), self.device))
    }

    /// Zeros.
    pub fn zeros<const D: usize>(&self, shape: [usize; D]) -> Param<Tensor<B, D>> {
        Param::from_tensor(Tensor::zeros(shape, self.device))
    }

    /// Ones.
    pub fn ones<const D: usize>(&self, shape: [usize; D]) -> Param<Tensor<B, D>> {
        Param::from_tensor(Tensor::ones(shape, self.device))
    }
}

/// `x W^T + b`.
#[derive(Module, Debug)]
pub struct Linear<B: Backend> {
    /// \[out, in\]
    pub weight: Param<Tensor<B, 2>>,
    /// \[out\]
    pub bias: Option<Param<Tensor<B, 1>>>,
}

impl<B: Kernels> Linear<B> {
    /// Fresh weights, bias zero if wanted.
    pub fn init(init: &Init<'_, B>, inputs: usize, outputs: usize, bias: bool) -> Self {
        Self { weight: init.weight([outputs, inputs]), bias: bias.then(|| init.zeros([outputs])) }
    }

    /// \[n, in\] to \[n, out\].
    pub fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let out = ops::project(x, self.weight.val());
        match &self.bias {
            Some(bias) => out + bias.val().unsqueeze(),
            None => out,
        }
    }
}

/// A table of vectors.
#[derive(Module, Debug)]
pub struct Embedding<B: Backend> {
    /// \[entries, width\]
    pub weight: Param<Tensor<B, 2>>,
}

/// RMS norm with a learned scale.
#[derive(Module, Debug)]
pub struct RmsNorm<B: Backend> {
    /// \[width\]
    pub weight: Param<Tensor<B, 1>>,
    eps: f64,
}

impl<B: Kernels> RmsNorm<B> {
    /// Scale one.
    pub fn init(init: &Init<'_, B>, width: usize, eps: f64) -> Self {
        Self { weight: init.ones([width]), eps }
    }

    /// Over the last dimension of \[n, width\].
    pub fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        ops::rms_norm(x, self.weight.val(), self.eps)
    }

    /// `x + y`, and the norm of that.
    pub fn after_sum(&self, x: Tensor<B, 2>, y: Tensor<B, 2>) -> (Tensor<B, 2>, Tensor<B, 2>) {
        ops::add_rms_norm(x, y, self.weight.val(), self.eps)
    }

    /// Over every head of \[n, heads * width\], which is then turned by tables \[n, width\].
    pub fn turned(&self, x: Tensor<B, 2>, cos: Tensor<B, 2>, sin: Tensor<B, 2>) -> Tensor<B, 2> {
        ops::norm_rotate(x, self.weight.val(), self.eps, cos, sin)
    }
}

/// Layer norm with learned scale and shift.
#[derive(Module, Debug)]
pub struct LayerNorm<B: Backend> {
    /// \[width\]
    pub weight: Param<Tensor<B, 1>>,
    /// \[width\]
    pub bias: Param<Tensor<B, 1>>,
}

impl<B: Backend> LayerNorm<B> {
    /// Epsilon of the reference's vision tower.
    const EPS: f64 = 1e-6;

    /// Scale one, shift zero.
    pub fn init(init: &Init<'_, B>, width: usize) -> Self {
        Self { weight: init.ones([width]), bias: init.zeros([width]) }
    }

    /// Over the last dimension of \[n, width\].
    pub fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let dtype = x.dtype();
        // In f32 whatever the model computes in.
        let x = if dtype == DType::F32 { x } else { x.cast(FloatDType::F32) };
        let centred = x.clone() - x.mean_dim(1);
        let inverse = (centred.clone().powi_scalar(2).mean_dim(1) + Self::EPS).sqrt().recip();
        let normed = centred * inverse;
        let normed = if dtype == DType::F32 { normed } else { normed.cast(FloatDType::from(dtype)) };
        normed * self.weight.val().unsqueeze() + self.bias.val().unsqueeze()
    }
}
