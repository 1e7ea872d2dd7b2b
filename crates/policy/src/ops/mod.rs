//! The policy's kernels: four operations that would be chains of elementwise passes, each with its gradient.
//!
//! [`Kernels`] gives every backend a plain version made of Burn operations, which is also the definition that the fused
//! ones are tested against. The CPU backend overrides them with single passes over the rows ([`flex`]); [`autodiff`]
//! makes all of them differentiable.
//!
//! Shapes: `n` rows (tokens of all sequences, end to end, without padding), `h` heads, `e` width of a head, `d` width.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::activation::{sigmoid, softmax};
use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{Tensor, TensorData, TensorPrimitive};

pub mod autodiff;
pub mod flex;

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

fn wrap<B: Backend, const D: usize>(x: FloatTensor<B>) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(x))
}

fn unwrap<B: Backend, const D: usize>(x: Tensor<B, D>) -> FloatTensor<B> {
    x.into_primitive().tensor()
}

/// A backend with the policy's kernels. All tensors are float.
pub trait Kernels: Backend {
    /// RMS norm over the last dimension: `x / sqrt(mean(x^2) + eps) * weight`. `x` \[n, d\], `weight` \[d\].
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        let x = wrap::<Self, 2>(x);
        let inverse = (x.clone().powi_scalar(2).mean_dim(1) + eps).sqrt().recip();
        unwrap(x * inverse * wrap::<Self, 1>(weight).unsqueeze())
    }

    /// Gradients of [`Kernels::rms_norm`] to `x` and `weight`.
    fn rms_norm_backward(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64, grad: FloatTensor<Self>) -> [FloatTensor<Self>; 2] {
        let (x, grad, weight) = (wrap::<Self, 2>(x), wrap::<Self, 2>(grad), wrap::<Self, 1>(weight));
        let inverse = (x.clone().powi_scalar(2).mean_dim(1) + eps).sqrt().recip();
        let normed = x * inverse.clone();
        let scaled = grad.clone() * weight.unsqueeze();
        let along = (scaled.clone() * normed.clone()).mean_dim(1);
        let dx = (scaled - normed.clone() * along) * inverse;
        let dweight = (grad * normed).sum_dim(0).squeeze::<1>();
        [unwrap(dx), unwrap(dweight)]
    }

    /// Rotary embedding, halves convention: `x * cos + rotate_half(x) * sin`. `x` \[n, h * e\], `cos` and `sin` \[n, e\].
    fn rotate(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x, cos, sin) = (wrap::<Self, 2>(x), wrap::<Self, 2>(cos), wrap::<Self, 2>(sin));
        let [n, width] = x.dims();
        let e = cos.dims()[1];
        let x = x.reshape([n, width / e, e]);
        let (low, high) = (x.clone().narrow(2, 0, e / 2), x.clone().narrow(2, e / 2, e / 2));
        let turned = Tensor::cat(vec![high.neg(), low], 2);
        unwrap((x * cos.reshape([n, 1, e]) + turned * sin.reshape([n, 1, e])).reshape([n, width]))
    }

    /// Gated unit `silu(gate) * up`; all \[n, d\].
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        let (gate, up) = (wrap::<Self, 2>(gate), wrap::<Self, 2>(up));
        unwrap(gate.clone() * sigmoid(gate) * up)
    }

    /// Gradients of [`Kernels::swiglu`] to `gate` and `up`.
    fn swiglu_backward(gate: FloatTensor<Self>, up: FloatTensor<Self>, grad: FloatTensor<Self>) -> [FloatTensor<Self>; 2] {
        let (gate, up, grad) = (wrap::<Self, 2>(gate), wrap::<Self, 2>(up), wrap::<Self, 2>(grad));
        let sig = sigmoid(gate.clone());
        let dup = grad.clone() * gate.clone() * sig.clone();
        let dgate = grad * up * sig.clone() * (gate * (sig.neg() + 1.0) + 1.0);
        [unwrap(dgate), unwrap(dup)]
    }

    /// Scaled dot-product attention within segments. `q` \[n, h * e\], `k` and `v` \[n, kv * e\]; out \[n, h * e\].
    /// Memory is linear in rows: scores exist for one segment at a time.
    fn segment_attention(q: FloatTensor<Self>, k: FloatTensor<Self>, v: FloatTensor<Self>, segments: &Segments) -> FloatTensor<Self> {
        let (q, k, v) = (wrap::<Self, 2>(q), wrap::<Self, 2>(k), wrap::<Self, 2>(v));
        let e = q.dims()[1] / segments.heads;
        let parts = segments
            .ranges
            .iter()
            .map(|range| {
                let (q, k, v) = heads_of(&q, &k, &v, range, segments);
                let p = probabilities(q, k, segments.causal);
                merge_heads(p.matmul(v), e, segments.heads)
            })
            .collect();
        unwrap(Tensor::cat(parts, 0))
    }

    /// Gradients of [`Kernels::segment_attention`] to `q`, `k` and `v`; the scores are computed again, segment by segment.
    fn segment_attention_backward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        segments: &Segments,
        grad: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 3] {
        let (q, k, v, grad) = (wrap::<Self, 2>(q), wrap::<Self, 2>(k), wrap::<Self, 2>(v), wrap::<Self, 2>(grad));
        let e = q.dims()[1] / segments.heads;
        let scale = (e as f64).powf(-0.5);
        let share = segments.heads / segments.kv_heads;
        let (mut dqs, mut dks, mut dvs) = (vec![], vec![], vec![]);
        for range in &segments.ranges {
            let t = range.len();
            let (q, k, v) = heads_of(&q, &k, &v, range, segments);
            let dout = split_heads(grad.clone().narrow(0, range.start, t), e);
            let p = probabilities(q.clone(), k.clone(), segments.causal);
            let dv = p.clone().transpose().matmul(dout.clone());
            let dp = dout.matmul(v.transpose());
            let ds = (dp.clone() - (dp * p.clone()).sum_dim(2)) * p * scale;
            let dk = ds.clone().transpose().matmul(q);
            dqs.push(merge_heads(ds.matmul(k), e, segments.heads));
            let fold = |x: Tensor<Self, 3>| x.reshape([segments.kv_heads, share, t, e]).sum_dim(1).reshape([segments.kv_heads, t, e]);
            dks.push(merge_heads(fold(dk), e, segments.kv_heads));
            dvs.push(merge_heads(fold(dv), e, segments.kv_heads));
        }
        [unwrap(Tensor::cat(dqs, 0)), unwrap(Tensor::cat(dks, 0)), unwrap(Tensor::cat(dvs, 0))]
    }
}

fn split_heads<B: Backend>(x: Tensor<B, 2>, e: usize) -> Tensor<B, 3> {
    let [t, width] = x.dims();
    x.reshape([t, width / e, e]).swap_dims(0, 1)
}

fn merge_heads<B: Backend>(x: Tensor<B, 3>, e: usize, heads: usize) -> Tensor<B, 2> {
    let t = x.dims()[1];
    x.swap_dims(0, 1).reshape([t, heads * e])
}

/// One segment's heads: q, k, v as \[h, t, e\], key and value heads repeated for the query heads that share them.
fn heads_of<B: Backend>(
    q: &Tensor<B, 2>,
    k: &Tensor<B, 2>,
    v: &Tensor<B, 2>,
    range: &Range<usize>,
    segments: &Segments,
) -> (Tensor<B, 3>, Tensor<B, 3>, Tensor<B, 3>) {
    let t = range.len();
    let e = q.dims()[1] / segments.heads;
    let share = segments.heads / segments.kv_heads;
    let repeat = |x: Tensor<B, 3>| -> Tensor<B, 3> {
        x.reshape([segments.kv_heads, 1, t, e]).expand([segments.kv_heads, share, t, e]).reshape([segments.heads, t, e])
    };
    let take = |x: &Tensor<B, 2>| split_heads(x.clone().narrow(0, range.start, t), e);
    (take(q), repeat(take(k)), repeat(take(v)))
}

fn probabilities<B: Backend>(q: Tensor<B, 3>, k: Tensor<B, 3>, causal: bool) -> Tensor<B, 3> {
    let [h, t, e] = q.dims();
    let device = q.device();
    let mut scores = q.matmul(k.transpose()) * (e as f64).powf(-0.5);
    if causal {
        let future: Vec<bool> = (0..t * t).map(|at| at % t > at / t).collect();
        let future = Tensor::<B, 3, burn::tensor::Bool>::from_data(TensorData::new(future, [1, t, t]), &device);
        scores = scores.mask_fill(future.expand([h, t, t]), f32::NEG_INFINITY);
    }
    softmax(scores, 2)
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

#[cfg(feature = "cuda")]
impl Kernels for crate::backend::Cuda {}
