//! What a vision tower makes of pictures. Rows of several pictures are cut apart and laid end to end without being computed again.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use crate::ops::Kernels;

/// Visual tokens of a list of pictures, end to end.
#[derive(Clone, Debug)]
pub struct VisualTokens<B: Backend> {
    /// \[m, d\], put in place of the placeholder embeddings.
    pub embeddings: Tensor<B, 2>,
    /// \[m, d\] per tap, added after the first text layers.
    pub deepstack: Vec<Tensor<B, 2>>,
}

impl<B: Kernels> VisualTokens<B> {
    /// How many there are.
    pub fn rows(&self) -> usize {
        self.embeddings.dims()[0]
    }

    /// Those of each picture; `lengths` are how many each has, and sum to all of them.
    pub fn split(&self, lengths: &[usize]) -> Vec<Self> {
        let mut start = 0;
        let own = |length: &usize| {
            let of = |all: &Tensor<B, 2>| all.clone().narrow(0, start, *length);
            let own = Self { embeddings: of(&self.embeddings), deepstack: self.deepstack.iter().map(of).collect() };
            start += length;
            own
        };
        lengths.iter().map(own).collect()
    }

    /// Those of several lists end to end; `None` where there are none.
    pub fn join(parts: Vec<Self>) -> Option<Self> {
        let taps = parts.first()?.deepstack.len();
        let deepstack = (0..taps).map(|tap| Tensor::cat(parts.iter().map(|part| part.deepstack[tap].clone()).collect(), 0)).collect();
        Some(Self { embeddings: Tensor::cat(parts.into_iter().map(|part| part.embeddings).collect(), 0), deepstack })
    }
}
