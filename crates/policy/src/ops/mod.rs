//! The policy's kernels: operations that would be chains of passes or would hold far more than they give, each with its gradient.
//!
//! [`Kernels`] gives every backend a plain version made of Burn operations, which is also the definition that the fused
//! ones are tested against. The CPU backend overrides them with single passes over the rows ([`flex`]); [`autodiff`]
//! makes all of them differentiable.
//!
//! Shapes: `n` rows (tokens of all sequences, end to end, without padding), `h` heads, `e` width of a head, `d` width, `E`
//! experts of inner width `i`.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{Tensor, TensorPrimitive};

pub mod attention;
pub mod autodiff;
pub mod experts;
pub mod flex;
pub mod logprobs;
pub mod plain;
pub mod product;
mod vector;

pub use logprobs::Asked;

/// Which rows attend to which.
#[derive(Clone, Debug, PartialEq)]
pub struct Segments {
    /// Row ranges of the sequences; they cover all rows in order.
    pub ranges: Vec<Range<usize>>,
    /// Whether a row sees only itself and the rows before it in its segment.
    pub causal: bool,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
}

impl Segments {
    /// Consecutive sequences of these lengths.
    pub fn of_lengths(lengths: &[usize], causal: bool, heads: usize, kv_heads: usize) -> Arc<Self> {
        let mut start = 0;
        let ranges = lengths
            .iter()
            .map(|length| {
                let range = start..start + length;
                start = range.end;
                range
            })
            .collect();
        Arc::new(Self { ranges, causal, heads, kv_heads })
    }

    /// Rows of all segments.
    pub fn rows(&self) -> usize {
        self.ranges.last().map_or(0, |range| range.end)
    }
}

/// Segments of which some go on after an earlier one: siblings after what they share, which is then computed once.
#[derive(Clone, Debug, PartialEq)]
pub struct Branches {
    /// The rows.
    pub segments: Segments,
    /// Per segment, the earlier one that it goes on after, all of whose rows its rows see as well. That one goes on after none.
    pub trunks: Vec<Option<usize>>,
}

fn wrap<B: Backend, const D: usize>(x: FloatTensor<B>) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(x))
}

fn unwrap<B: Backend, const D: usize>(x: Tensor<B, D>) -> FloatTensor<B> {
    x.into_primitive().tensor()
}

/// A backend with the policy's kernels. All tensors are float.
pub trait Kernels: Backend {
    /// `x W^T`. `x` \[n, in\], `weight` \[out, in\]; out \[n, out\].
    fn project(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        plain::project::<Self>(x, weight)
    }

    /// Gradients of [`Kernels::project`] to `x` and `weight`.
    fn project_backward(x: FloatTensor<Self>, weight: FloatTensor<Self>, grad: FloatTensor<Self>) -> [FloatTensor<Self>; 2] {
        plain::project_backward::<Self>(x, weight, grad)
    }

    /// RMS norm over the last dimension: `x / sqrt(mean(x^2) + eps) * weight`. `x` \[n, d\], `weight` \[d\].
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        plain::rms_norm::<Self>(x, weight, eps)
    }

    /// Gradients of [`Kernels::rms_norm`] to `x` and `weight`.
    fn rms_norm_backward(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64, grad: FloatTensor<Self>) -> [FloatTensor<Self>; 2] {
        plain::rms_norm_backward::<Self>(x, weight, eps, grad)
    }

    /// Rotary embedding, halves convention: `x * cos + rotate_half(x) * sin`. `x` \[n, h * e\], `cos` and `sin` \[n, e\].
    fn rotate(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>) -> FloatTensor<Self> {
        plain::rotate::<Self>(x, cos, sin)
    }

    /// Gated unit `silu(gate) * up`; all \[n, d\].
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        plain::swiglu::<Self>(gate, up)
    }

    /// Gradients of [`Kernels::swiglu`] to `gate` and `up`.
    fn swiglu_backward(gate: FloatTensor<Self>, up: FloatTensor<Self>, grad: FloatTensor<Self>) -> [FloatTensor<Self>; 2] {
        plain::swiglu_backward::<Self>(gate, up, grad)
    }

    /// Scaled dot-product attention within segments. `q` \[n, h * e\], `k` and `v` \[n, kv * e\]; out \[n, h * e\].
    /// Memory is linear in rows: scores exist for one segment at a time.
    fn segment_attention(q: FloatTensor<Self>, k: FloatTensor<Self>, v: FloatTensor<Self>, segments: &Segments) -> FloatTensor<Self> {
        plain::segment_attention::<Self>(q, k, v, segments)
    }

    /// Gradients of [`Kernels::segment_attention`] to `q`, `k` and `v`; the scores are computed again, segment by segment.
    fn segment_attention_backward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        segments: &Segments,
        grad: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 3] {
        plain::segment_attention_backward::<Self>(q, k, v, segments, grad)
    }

    /// [`Kernels::segment_attention`] where rows also see their segment's trunk. Training lays whole sequences out; this is for
    /// models that are only asked.
    fn branch_attention(q: FloatTensor<Self>, k: FloatTensor<Self>, v: FloatTensor<Self>, branches: &Branches) -> FloatTensor<Self> {
        plain::branch_attention::<Self>(q, k, v, branches)
    }

    /// Rows \[m, d\], sorted by expert, each through its own expert's gated MLP. `gate_up` \[E, 2i, d\], `down` \[E, d, i\];
    /// `counts` says how many rows each of the E experts has.
    fn experts(x: FloatTensor<Self>, gate_up: FloatTensor<Self>, down: FloatTensor<Self>, counts: &[usize]) -> FloatTensor<Self> {
        experts::forward::<Self>(x, gate_up, down, counts)
    }

    /// Gradients of [`Kernels::experts`] to `x`, `gate_up` and `down`.
    fn experts_backward(
        x: FloatTensor<Self>,
        gate_up: FloatTensor<Self>,
        down: FloatTensor<Self>,
        counts: &[usize],
        grad: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 3] {
        experts::backward::<Self>(x, gate_up, down, counts, grad)
    }

    /// Log-prob \[n\] of one token per row of `logits` \[n, vocab\], which are divided by `temperature` first.
    fn pick_logprobs(logits: FloatTensor<Self>, tokens: &[u32], temperature: f64) -> FloatTensor<Self> {
        plain::pick_logprobs::<Self>(logits, tokens, temperature)
    }

    /// Gradient of [`Kernels::pick_logprobs`] to `logits`; `grad` \[n\].
    fn pick_logprobs_backward(logits: FloatTensor<Self>, tokens: &[u32], temperature: f64, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        plain::pick_logprobs_backward::<Self>(logits, tokens, temperature, grad)
    }

    /// Log-prob \[n\] of one token per row of `hidden` \[n, d\] under the head \[vocab, d\].
    fn token_logprobs(hidden: FloatTensor<Self>, head: FloatTensor<Self>, asked: &Asked) -> FloatTensor<Self> {
        logprobs::forward::<Self>(hidden, head, asked)
    }

    /// Gradients of [`Kernels::token_logprobs`] to `hidden` and `head`.
    fn token_logprobs_backward(
        hidden: FloatTensor<Self>,
        head: FloatTensor<Self>,
        asked: &Asked,
        grad: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 2] {
        logprobs::backward::<Self>(hidden, head, asked, grad)
    }
}

/// [`Kernels::project`] on tensors.
pub fn project<B: Kernels>(x: Tensor<B, 2>, weight: Tensor<B, 2>) -> Tensor<B, 2> {
    wrap(B::project(unwrap(x), unwrap(weight)))
}

/// [`Kernels::rms_norm`] on tensors.
pub fn rms_norm<B: Kernels>(x: Tensor<B, 2>, weight: Tensor<B, 1>, eps: f64) -> Tensor<B, 2> {
    wrap(B::rms_norm(unwrap(x), unwrap(weight), eps))
}

/// [`Kernels::rotate`] on tensors.
pub fn rotate<B: Kernels>(x: Tensor<B, 2>, cos: Tensor<B, 2>, sin: Tensor<B, 2>) -> Tensor<B, 2> {
    wrap(B::rotate(unwrap(x), unwrap(cos), unwrap(sin)))
}

/// [`Kernels::swiglu`] on tensors.
pub fn swiglu<B: Kernels>(gate: Tensor<B, 2>, up: Tensor<B, 2>) -> Tensor<B, 2> {
    wrap(B::swiglu(unwrap(gate), unwrap(up)))
}

/// [`Kernels::segment_attention`] on tensors.
pub fn attention<B: Kernels>(q: Tensor<B, 2>, k: Tensor<B, 2>, v: Tensor<B, 2>, segments: &Segments) -> Tensor<B, 2> {
    wrap(B::segment_attention(unwrap(q), unwrap(k), unwrap(v), segments))
}

/// [`Kernels::branch_attention`] on tensors.
pub fn branch_attention<B: Kernels>(q: Tensor<B, 2>, k: Tensor<B, 2>, v: Tensor<B, 2>, branches: &Branches) -> Tensor<B, 2> {
    wrap(B::branch_attention(unwrap(q), unwrap(k), unwrap(v), branches))
}

/// [`Kernels::experts`] on tensors.
pub fn experts<B: Kernels>(x: Tensor<B, 2>, gate_up: Tensor<B, 3>, down: Tensor<B, 3>, counts: &[usize]) -> Tensor<B, 2> {
    wrap(B::experts(unwrap(x), unwrap(gate_up), unwrap(down), counts))
}

/// [`Kernels::token_logprobs`] on tensors.
pub fn token_logprobs<B: Kernels>(hidden: Tensor<B, 2>, head: Tensor<B, 2>, asked: &Asked) -> Tensor<B, 1> {
    wrap(B::token_logprobs(unwrap(hidden), unwrap(head), asked))
}

#[cfg(feature = "cuda")]
impl Kernels for crate::backend::Cuda {}
#[cfg(feature = "cuda")]
impl Kernels for crate::backend::CudaBf16 {}
