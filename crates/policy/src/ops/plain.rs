//! The kernels' definition: chains of Burn operations, for any backend.
//!
//! In and out: as the trait says. Fused versions are tested against these, and backends without any use them. Where a
//! backend computes in less than f32, norms, probabilities and log-probs are in f32 all the same.

use std::ops::Range;

use burn::tensor::activation::{log_softmax, sigmoid, softmax};
use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{Bool, DType, FloatDType, IndexingUpdateOp, Int, Tensor, TensorData};

use super::{Branches, Segments, unwrap, wrap};

/// [`Kernels::project`](super::Kernels::project).
pub fn project<B: Backend>(x: FloatTensor<B>, weight: FloatTensor<B>) -> FloatTensor<B> {
    unwrap(wrap::<B, 2>(x).matmul(wrap::<B, 2>(weight).transpose()))
}

/// [`Kernels::project_backward`](super::Kernels::project_backward).
pub fn project_backward<B: Backend>(x: FloatTensor<B>, weight: FloatTensor<B>, grad: FloatTensor<B>) -> [FloatTensor<B>; 2] {
    let grad = wrap::<B, 2>(grad);
    [unwrap(grad.clone().matmul(wrap(weight))), unwrap(grad.transpose().matmul(wrap(x)))]
}

/// In f32, whatever it was; f32 is left as it is.
fn wide<B: Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, D> {
    if x.dtype() == DType::F32 { x } else { x.cast(FloatDType::F32) }
}

/// In what `like` is in.
fn as_wide_as<B: Backend, const D: usize>(like: DType, x: Tensor<B, D>) -> Tensor<B, D> {
    if x.dtype() == like { x } else { x.cast(FloatDType::from(like)) }
}

/// [`Kernels::rms_norm`](super::Kernels::rms_norm).
pub fn rms_norm<B: Backend>(x: FloatTensor<B>, weight: FloatTensor<B>, eps: f64) -> FloatTensor<B> {
    let x = wrap::<B, 2>(x);
    let dtype = x.dtype();
    let x = wide(x);
    let inverse = (x.clone().powi_scalar(2).mean_dim(1) + eps).sqrt().recip();
    unwrap(as_wide_as(dtype, x * inverse * wide(wrap::<B, 1>(weight)).unsqueeze()))
}

/// [`Kernels::rms_norm_backward`](super::Kernels::rms_norm_backward).
pub fn rms_norm_backward<B: Backend>(x: FloatTensor<B>, weight: FloatTensor<B>, eps: f64, grad: FloatTensor<B>) -> [FloatTensor<B>; 2] {
    let (x, grad, weight) = (wrap::<B, 2>(x), wrap::<B, 2>(grad), wrap::<B, 1>(weight));
    let dtype = x.dtype();
    let (x, grad, weight) = (wide(x), wide(grad), wide(weight));
    let inverse = (x.clone().powi_scalar(2).mean_dim(1) + eps).sqrt().recip();
    let normed = x * inverse.clone();
    let scaled = grad.clone() * weight.unsqueeze();
    let along = (scaled.clone() * normed.clone()).mean_dim(1);
    let dx = (scaled - normed.clone() * along) * inverse;
    let dweight = (grad * normed).sum_dim(0).squeeze::<1>();
    [unwrap(as_wide_as(dtype, dx)), unwrap(as_wide_as(dtype, dweight))]
}

/// [`Kernels::rotate`](super::Kernels::rotate).
pub fn rotate<B: Backend>(x: FloatTensor<B>, cos: FloatTensor<B>, sin: FloatTensor<B>) -> FloatTensor<B> {
    let (x, cos, sin) = (wrap::<B, 2>(x), wrap::<B, 2>(cos), wrap::<B, 2>(sin));
    let [n, width] = x.dims();
    let e = cos.dims()[1];
    let x = x.reshape([n, width / e, e]);
    let (low, high) = (x.clone().narrow(2, 0, e / 2), x.clone().narrow(2, e / 2, e / 2));
    let turned = Tensor::cat(vec![high.neg(), low], 2);
    unwrap((x * cos.reshape([n, 1, e]) + turned * sin.reshape([n, 1, e])).reshape([n, width]))
}

/// [`Kernels::swiglu`](super::Kernels::swiglu).
pub fn swiglu<B: Backend>(gate: FloatTensor<B>, up: FloatTensor<B>) -> FloatTensor<B> {
    let (gate, up) = (wrap::<B, 2>(gate), wrap::<B, 2>(up));
    unwrap(gate.clone() * sigmoid(gate) * up)
}

/// [`Kernels::swiglu_backward`](super::Kernels::swiglu_backward).
pub fn swiglu_backward<B: Backend>(gate: FloatTensor<B>, up: FloatTensor<B>, grad: FloatTensor<B>) -> [FloatTensor<B>; 2] {
    let (gate, up, grad) = (wrap::<B, 2>(gate), wrap::<B, 2>(up), wrap::<B, 2>(grad));
    let sig = sigmoid(gate.clone());
    let dup = grad.clone() * gate.clone() * sig.clone();
    let dgate = grad * up * sig.clone() * (gate * (sig.neg() + 1.0) + 1.0);
    [unwrap(dgate), unwrap(dup)]
}

/// [`Kernels::segment_attention`](super::Kernels::segment_attention).
pub fn segment_attention<B: Backend>(q: FloatTensor<B>, k: FloatTensor<B>, v: FloatTensor<B>, segments: &Segments) -> FloatTensor<B> {
    let (q, k, v) = (wrap::<B, 2>(q), wrap::<B, 2>(k), wrap::<B, 2>(v));
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

/// [`Kernels::branch_attention`](super::Kernels::branch_attention).
pub fn branch_attention<B: Backend>(q: FloatTensor<B>, k: FloatTensor<B>, v: FloatTensor<B>, branches: &Branches) -> FloatTensor<B> {
    let (q, k, v) = (wrap::<B, 2>(q), wrap::<B, 2>(k), wrap::<B, 2>(v));
    let segments = &branches.segments;
    let e = q.dims()[1] / segments.heads;
    let one = |(range, trunk): (&Range<usize>, &Option<usize>)| {
        let (q_own, mut keys, mut values) = heads_of(&q, &k, &v, range, segments);
        if let Some(trunk) = trunk {
            let (_, before, shared) = heads_of(&q, &k, &v, &segments.ranges[*trunk], segments);
            (keys, values) = (Tensor::cat(vec![before, keys], 1), Tensor::cat(vec![shared, values], 1));
        }
        merge_heads(probabilities(q_own, keys, segments.causal).matmul(values), e, segments.heads)
    };
    unwrap(Tensor::cat(segments.ranges.iter().zip(&branches.trunks).map(one).collect(), 0))
}

/// [`Kernels::segment_attention_backward`](super::Kernels::segment_attention_backward).
pub fn segment_attention_backward<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    segments: &Segments,
    grad: FloatTensor<B>,
) -> [FloatTensor<B>; 3] {
    let (q, k, v, grad) = (wrap::<B, 2>(q), wrap::<B, 2>(k), wrap::<B, 2>(v), wrap::<B, 2>(grad));
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
        let fold = |x: Tensor<B, 3>| x.reshape([segments.kv_heads, share, t, e]).sum_dim(1).reshape([segments.kv_heads, t, e]);
        dks.push(merge_heads(fold(dk), e, segments.kv_heads));
        dvs.push(merge_heads(fold(dv), e, segments.kv_heads));
    }
    [unwrap(Tensor::cat(dqs, 0)), unwrap(Tensor::cat(dks, 0)), unwrap(Tensor::cat(dvs, 0))]
}

/// [`Kernels::pick_logprobs`](super::Kernels::pick_logprobs); f32 whatever the logits are.
pub fn pick_logprobs<B: Backend>(logits: FloatTensor<B>, tokens: &[u32], temperature: f64) -> FloatTensor<B> {
    let logits = wide(wrap::<B, 2>(logits)) / temperature;
    let column = column::<B>(tokens, &logits.device());
    unwrap(log_softmax(logits, 1).gather(1, column).reshape([tokens.len()]))
}

/// [`Kernels::pick_logprobs_backward`](super::Kernels::pick_logprobs_backward): d log p(token) / d logits = onehot(token) - p.
pub fn pick_logprobs_backward<B: Backend>(
    logits: FloatTensor<B>,
    tokens: &[u32],
    temperature: f64,
    grad: FloatTensor<B>,
) -> FloatTensor<B> {
    let logits = wrap::<B, 2>(logits);
    let dtype = logits.dtype();
    let logits = wide(logits) / temperature;
    let column = column::<B>(tokens, &logits.device());
    let grad = (wide(wrap::<B, 1>(grad)) / temperature).reshape([tokens.len(), 1]);
    let dlogits = (softmax(logits, 1).neg() * grad.clone()).scatter(1, column, grad, IndexingUpdateOp::Add);
    unwrap(as_wide_as(dtype, dlogits))
}

fn column<B: Backend>(tokens: &[u32], device: &B::Device) -> Tensor<B, 2, Int> {
    let ids: Vec<i64> = tokens.iter().map(|id| i64::from(*id)).collect();
    Tensor::from_data(TensorData::new(ids, [tokens.len(), 1]), device)
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

/// Of rows that are the last of the positions that they may see.
fn probabilities<B: Backend>(q: Tensor<B, 3>, k: Tensor<B, 3>, causal: bool) -> Tensor<B, 3> {
    let ([h, t, e], positions) = (q.dims(), k.dims()[1]);
    let (device, dtype) = (q.device(), q.dtype());
    let mut scores = wide(q.matmul(k.transpose())) * (e as f64).powf(-0.5);
    if causal {
        let future = Tensor::<B, 2, Bool>::tril_mask([t, positions], (positions - t) as i64, &device).reshape([1, t, positions]);
        scores = scores.mask_fill(future.expand([h, t, positions]), f32::NEG_INFINITY);
    }
    as_wide_as(dtype, softmax(scores, 2))
}
