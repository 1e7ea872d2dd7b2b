//! Which row of a pass sees which. Families turn rows into queries, keys and values; whoever runs the pass says what they are attended
//! over: whole sequences, sequences with a shared prefix, or a cache.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use crate::ops::{self, Branches, Kernels, Segments};

/// How rows attend.
pub trait Attend<B: Backend> {
    /// `q` \[n, h * e\], `k` and `v` \[n, kv * e\], rotated; returns \[n, h * e\].
    fn attend(&mut self, layer: usize, q: Tensor<B, 2>, k: Tensor<B, 2>, v: Tensor<B, 2>) -> Tensor<B, 2>;
}

/// Whole sequences at once.
impl<B: Kernels> Attend<B> for &Segments {
    fn attend(&mut self, _: usize, q: Tensor<B, 2>, k: Tensor<B, 2>, v: Tensor<B, 2>) -> Tensor<B, 2> {
        ops::attention(q, k, v, self)
    }
}

/// Whole sequences at once, what siblings share only once.
impl<B: Kernels> Attend<B> for &Branches {
    fn attend(&mut self, _: usize, q: Tensor<B, 2>, k: Tensor<B, 2>, v: Tensor<B, 2>) -> Tensor<B, 2> {
        ops::branch_attention(q, k, v, self)
    }
}

/// Rotary tables of the rows, \[n, e\] each.
#[derive(Clone, Debug)]
pub struct Rotary<B: Backend> {
    /// Cosines.
    pub cos: Tensor<B, 2>,
    /// Sines.
    pub sin: Tensor<B, 2>,
}
