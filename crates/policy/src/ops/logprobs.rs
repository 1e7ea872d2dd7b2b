//! Log-probs of given tokens from hidden states, fused with the head.
//!
//! In: hidden states \[n, d\], the head \[vocab, d\], one token per row. Out: log-probs \[n\], and the gradients to both.
//! Logits exist for a chunk of rows at a time, forwards and backwards: \[n, vocab\] of a batch would be the largest tensor of
//! a training step by far.

use burn::tensor::Tensor;
use burn::tensor::ops::FloatTensor;

use super::{Kernels, unwrap, wrap};

/// Logits held at one time: 16 MiB in f32.
const CHUNK_VALUES: usize = 4 << 20;
/// Most rows of a chunk: enough for a matrix product at full speed, few enough that the logits of a small vocabulary stay
/// in the cache.
const CHUNK_ROWS: usize = 256;

/// The given tokens and the temperature that logits are divided by.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// One token id per row.
    pub tokens: Vec<u32>,
    /// Above 0.
    pub temperature: f64,
}

impl Asked {
    /// (first row, rows) of each chunk.
    fn chunks(&self, vocab: usize) -> impl Iterator<Item = (usize, usize)> {
        let (n, most) = (self.tokens.len(), (CHUNK_VALUES / vocab.max(1)).clamp(1, CHUNK_ROWS));
        (0..n).step_by(most).map(move |start| (start, most.min(n - start)))
    }

    fn tokens_of(&self, (start, rows): (usize, usize)) -> &[u32] {
        &self.tokens[start..start + rows]
    }
}

fn logits<B: Kernels>(hidden: &Tensor<B, 2>, head: &Tensor<B, 2>, (start, rows): (usize, usize)) -> Tensor<B, 2> {
    wrap(B::project(unwrap(hidden.clone().narrow(0, start, rows)), unwrap(head.clone())))
}

/// Log-prob of each row's token.
pub fn forward<B: Kernels>(hidden: FloatTensor<B>, head: FloatTensor<B>, asked: &Asked) -> FloatTensor<B> {
    let (hidden, head) = (wrap::<B, 2>(hidden), wrap::<B, 2>(head));
    let one =
        |chunk: (usize, usize)| wrap(B::pick_logprobs(unwrap(logits(&hidden, &head, chunk)), asked.tokens_of(chunk), asked.temperature));
    unwrap(Tensor::cat(asked.chunks(head.dims()[0]).map(one).collect::<Vec<Tensor<B, 1>>>(), 0))
}

/// Gradients to `hidden` and `head`; logits are computed again, chunk by chunk.
pub fn backward<B: Kernels>(hidden: FloatTensor<B>, head: FloatTensor<B>, asked: &Asked, grad: FloatTensor<B>) -> [FloatTensor<B>; 2] {
    let (hidden, head, grad) = (wrap::<B, 2>(hidden), wrap::<B, 2>(head), wrap::<B, 1>(grad));
    let mut dhead: Option<Tensor<B, 2>> = None;
    let mut dhidden = vec![];
    for chunk in asked.chunks(head.dims()[0]) {
        let grad = grad.clone().narrow(0, chunk.0, chunk.1);
        let logits = unwrap(logits(&hidden, &head, chunk));
        let dlogits = wrap::<B, 2>(B::pick_logprobs_backward(logits, asked.tokens_of(chunk), asked.temperature, unwrap(grad)));
        let part = dlogits.clone().transpose().matmul(hidden.clone().narrow(0, chunk.0, chunk.1));
        dhead = Some(dhead.map_or(part.clone(), |sum| sum + part));
        dhidden.push(dlogits.matmul(head.clone()));
    }
    let dhead = dhead.unwrap_or_else(|| head.zeros_like());
    [unwrap(Tensor::cat(dhidden, 0)), unwrap(dhead)]
}
