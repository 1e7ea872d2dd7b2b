//! Log-probs of given tokens from hidden states, fused with the head.
//!
//! In: hidden states \[n, d\], the head \[vocab, d\], one token per row. Out: log-probs \[n\], and the gradients to both.
//! Logits exist for a chunk of rows at a time, forwards and backwards: \[n, vocab\] of a batch would be the largest tensor of
//! a training step by far.

use burn::tensor::Tensor;
use burn::tensor::ops::FloatTensor;

use super::{Kernels, unwrap, wrap};

/// The given tokens and the temperature that logits are divided by.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// One token id per row.
    pub tokens: Vec<u32>,
    /// Above 0.
    pub temperature: f64,
}

impl Asked {
    /// (first row, rows) of each chunk, of at most `values` logits and `rows`.
    fn chunks(&self, vocab: usize, (values, rows): (usize, usize)) -> impl Iterator<Item = (usize, usize)> {
        let (n, most) = (self.tokens.len(), (values / vocab.max(1)).clamp(1, rows));
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
    unwrap(Tensor::cat(asked.chunks(head.dims()[0], B::LOGITS).map(one).collect::<Vec<Tensor<B, 1>>>(), 0))
}

/// Gradients to `hidden` and `head`; logits are computed again, chunk by chunk.
pub fn backward<B: Kernels>(hidden: FloatTensor<B>, head: FloatTensor<B>, asked: &Asked, grad: FloatTensor<B>) -> [FloatTensor<B>; 2] {
    let (hidden, head, grad) = (wrap::<B, 2>(hidden), wrap::<B, 2>(head), wrap::<B, 1>(grad));
    let mut dhead: Option<Tensor<B, 2>> = None;
    let mut dhidden: Vec<Tensor<B, 2>> = vec![];
    for chunk in asked.chunks(head.dims()[0], B::LOGITS) {
        let grad = grad.clone().narrow(0, chunk.0, chunk.1);
        let logits = unwrap(logits(&hidden, &head, chunk));
        let dlogits = B::pick_logprobs_backward(logits, asked.tokens_of(chunk), asked.temperature, unwrap(grad));
        let [to_hidden, to_head] = B::project_backward(unwrap(hidden.clone().narrow(0, chunk.0, chunk.1)), unwrap(head.clone()), dlogits);
        dhead = Some(match dhead {
            Some(sum) => sum + wrap(to_head),
            None => wrap(to_head),
        });
        dhidden.push(wrap(to_hidden));
    }
    let dhead = dhead.unwrap_or_else(|| head.zeros_like());
    [unwrap(Tensor::cat(dhidden, 0)), unwrap(dhead)]
}
