//! Log-probs of given tokens from hidden states, fused with the head.
//!
//! In: hidden states \[n, d\], the head \[vocab, d\], one token per row. Out: log-probs \[n\], and the gradients to both.
//! Logits exist for a chunk of rows at a time, forwards and backwards: \[n, vocab\] of a batch would be the largest tensor of
//! a training step by far.

use burn::tensor::activation::log_softmax;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData};

use super::{Kernels, unwrap, wrap};

/// Logits held at one time: 16 MiB in f32.
const CHUNK_VALUES: usize = 4 << 20;

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
        let (n, most) = (self.tokens.len(), (CHUNK_VALUES / vocab.max(1)).max(1));
        (0..n).step_by(most).map(move |start| (start, most.min(n - start)))
    }

    fn column<B: Kernels>(&self, (start, rows): (usize, usize), device: &B::Device) -> Tensor<B, 2, Int> {
        let ids: Vec<i64> = self.tokens[start..start + rows].iter().map(|id| i64::from(*id)).collect();
        Tensor::from_data(TensorData::new(ids, [rows, 1]), device)
    }
}

fn logits<B: Kernels>(hidden: &Tensor<B, 2>, head: &Tensor<B, 2>, (start, rows): (usize, usize), temperature: f64) -> Tensor<B, 2> {
    let logits = hidden.clone().narrow(0, start, rows).matmul(head.clone().transpose());
    if temperature == 1.0 { logits } else { logits / temperature }
}

/// Log-prob of each row's token.
pub fn forward<B: Kernels>(hidden: FloatTensor<B>, head: FloatTensor<B>, asked: &Asked) -> FloatTensor<B> {
    let (hidden, head) = (wrap::<B, 2>(hidden), wrap::<B, 2>(head));
    let device = hidden.device();
    let one = |chunk: (usize, usize)| {
        let logits = logits(&hidden, &head, chunk, asked.temperature);
        log_softmax(logits, 1).gather(1, asked.column::<B>(chunk, &device)).reshape([chunk.1])
    };
    unwrap(Tensor::cat(asked.chunks(head.dims()[0]).map(one).collect::<Vec<Tensor<B, 1>>>(), 0))
}

/// Gradients to `hidden` and `head`; logits are computed again, chunk by chunk.
pub fn backward<B: Kernels>(hidden: FloatTensor<B>, head: FloatTensor<B>, asked: &Asked, grad: FloatTensor<B>) -> [FloatTensor<B>; 2] {
    let (hidden, head, grad) = (wrap::<B, 2>(hidden), wrap::<B, 2>(head), wrap::<B, 1>(grad));
    let device = hidden.device();
    let mut dhead = Tensor::zeros(head.dims(), &device);
    let mut dhidden = vec![];
    for chunk in asked.chunks(head.dims()[0]) {
        let grad = (grad.clone().narrow(0, chunk.0, chunk.1) / asked.temperature).reshape([chunk.1, 1]);
        let probabilities = log_softmax(logits(&hidden, &head, chunk, asked.temperature), 1).exp();
        // d log p(token) / d logits = onehot(token) - p.
        let dlogits = (probabilities.neg() * grad.clone()).scatter(1, asked.column::<B>(chunk, &device), grad, IndexingUpdateOp::Add);
        dhead = dhead + dlogits.clone().transpose().matmul(hidden.clone().narrow(0, chunk.0, chunk.1));
        dhidden.push(dlogits.matmul(head.clone()));
    }
    [unwrap(Tensor::cat(dhidden, 0)), unwrap(dhead)]
}
