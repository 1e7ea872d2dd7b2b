//! The kernels' definition: chains of Burn operations, for any backend.
//!
//! In and out: as the trait says. Fused versions are tested against these, and backends without any use them. Where a
//! backend computes in less than f32, norms, probabilities and log-probs are in f32 all the same.

use burn::tensor::activation::{self, log_softmax, sigmoid};
use burn::tensor::backend::Backend;
use burn::tensor::ops::{FloatTensor, IntTensor};
use burn::tensor::{DType, FloatDType, IndexingUpdateOp, Int, Tensor, TensorData};

use super::{Kernels, unwrap, wrap};

/// [`Kernels::project`].
pub fn project<B: Backend>(x: FloatTensor<B>, weight: FloatTensor<B>) -> FloatTensor<B> {
    unwrap(wrap::<B, 2>(x).matmul(wrap::<B, 2>(weight).transpose()))
}

/// [`Kernels::project_backward`].
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

/// [`Kernels::rms_norm`].
pub fn rms_norm<B: Backend>(x: FloatTensor<B>, weight: FloatTensor<B>, eps: f64) -> FloatTensor<B> {
    let x = wrap::<B, 2>(x);
    let dtype = x.dtype();
    let x = wide(x);
    let inverse = (x.clone().powi_scalar(2).mean_dim(1) + eps).sqrt().recip();
    unwrap(as_wide_as(dtype, x * inverse * wide(wrap::<B, 1>(weight)).unsqueeze()))
}

/// [`Kernels::rms_norm_backward`].
pub fn rms_norm_backward<B: Backend>(x: FloatTensor<B>, weight: FloatTensor<B>, eps: f64, grad: FloatTensor<B>) -> [FloatTensor<B>; 2] {
    let (x, grad, weight) = (wrap::<B, 2>(x), wrap::<B, 2>(grad), wrap::<B, 1>(weight));
    let dtype = x.dtype();
    let (x, grad, weight) = (wide(x), wide(grad), wide(weight));
    let inverse = (x.clone().powi_scalar(2).mean_dim(1) + eps).sqrt().recip();
    let normed = x * inverse.clone();
    let scaled = grad.clone() * weight.unsqueeze();
    let along = (scaled.clone() * normed.clone()).mean_dim(1);
    let dx = (scaled - normed.clone() * along) * inverse;
    // Not squeezed: a width of one would go as well.
    let width = grad.dims()[1];
    let dweight = (grad * normed).sum_dim(0).reshape([width]);
    [unwrap(as_wide_as(dtype, dx)), unwrap(as_wide_as(dtype, dweight))]
}

/// [`Kernels::rotate`].
pub fn rotate<B: Backend>(x: FloatTensor<B>, cos: FloatTensor<B>, sin: FloatTensor<B>) -> FloatTensor<B> {
    let (x, cos, sin) = (wrap::<B, 2>(x), wrap::<B, 2>(cos), wrap::<B, 2>(sin));
    let [n, width] = x.dims();
    let e = cos.dims()[1];
    let x = x.reshape([n, width / e, e]);
    let (low, high) = (x.clone().narrow(2, 0, e / 2), x.clone().narrow(2, e / 2, e / 2));
    let turned = Tensor::cat(vec![high.neg(), low], 2);
    unwrap((x * cos.reshape([n, 1, e]) + turned * sin.reshape([n, 1, e])).reshape([n, width]))
}

/// [`Kernels::norm_rotate`].
pub fn norm_rotate<B: Kernels>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    eps: f64,
    cos: FloatTensor<B>,
    sin: FloatTensor<B>,
) -> FloatTensor<B> {
    let x = wrap::<B, 2>(x);
    let ([n, width], e) = (x.dims(), wrap::<B, 2>(cos.clone()).dims()[1]);
    let normed = wrap::<B, 2>(B::rms_norm(unwrap(x.reshape([n * width / e, e])), weight, eps));
    B::rotate(unwrap(normed.reshape([n, width])), cos, sin)
}

/// [`Kernels::swiglu`].
pub fn swiglu<B: Backend>(gate: FloatTensor<B>, up: FloatTensor<B>) -> FloatTensor<B> {
    let (gate, up) = (wrap::<B, 2>(gate), wrap::<B, 2>(up));
    unwrap(gate.clone() * sigmoid(gate) * up)
}

/// [`Kernels::swiglu_backward`].
pub fn swiglu_backward<B: Backend>(gate: FloatTensor<B>, up: FloatTensor<B>, grad: FloatTensor<B>) -> [FloatTensor<B>; 2] {
    let (gate, up, grad) = (wrap::<B, 2>(gate), wrap::<B, 2>(up), wrap::<B, 2>(grad));
    let sig = sigmoid(gate.clone());
    let dup = grad.clone() * gate.clone() * sig.clone();
    let dgate = grad * up * sig.clone() * (gate * (sig.neg() + 1.0) + 1.0);
    [unwrap(dgate), unwrap(dup)]
}

/// [`Kernels::cached_attention`].
pub fn cached_attention<B: Kernels>(q: FloatTensor<B>, cache: [FloatTensor<B>; 2], places: IntTensor<B>, heads: usize) -> FloatTensor<B> {
    let (q, places) = (wrap::<B, 2>(q), Tensor::<B, 2, Int>::from_primitive(places));
    let [n, width] = q.dims();
    let e = width / heads;
    let slots = places.clone().narrow(1, 0, 1).reshape([n]);
    let [keys, values] = cache.map(|held| {
        let held = wrap::<B, 3>(held);
        let [_, capacity, kv_width] = held.dims();
        held.select(0, slots.clone()).reshape([n, capacity, kv_width / e, e]).swap_dims(1, 2)
    });
    let kv = keys.dims()[1];
    let scores = q.reshape([n, kv, heads / kv, e]).matmul(keys.transpose());
    let seen = super::probabilities(scores, places.narrow(1, 1, 1), (e as f64).powf(-0.5));
    unwrap(seen.matmul(values).reshape([n, width]))
}

/// [`Kernels::probabilities`].
pub fn probabilities<B: Backend>(scores: FloatTensor<B>, last: IntTensor<B>, scale: f64) -> FloatTensor<B> {
    let (scores, last) = (wrap::<B, 4>(scores), Tensor::<B, 2, Int>::from_primitive(last));
    let ([s, k, m, p], [_, l], dtype) = (scores.dims(), last.dims(), scores.dtype());
    let positions = Tensor::<B, 1, Int>::arange(0..p as i64, &scores.device()).reshape([1, 1, 1, p]);
    let hidden = positions.expand([s, 1, l, p]).greater(last.reshape([s, 1, l, 1]).expand([s, 1, l, p]));
    let shape = [s, k * m / l, l, p];
    let seen = (wide(scores).reshape(shape) * scale).mask_fill(hidden.expand(shape), f32::NEG_INFINITY);
    unwrap(as_wide_as(dtype, activation::softmax(seen, 3)).reshape([s, k, m, p]))
}

/// [`Kernels::probabilities_backward`].
pub fn probabilities_backward<B: Backend>(p: FloatTensor<B>, scale: f64, grad: FloatTensor<B>) -> FloatTensor<B> {
    let (p, grad) = (wrap::<B, 4>(p), wrap::<B, 4>(grad));
    unwrap((grad.clone() - (grad * p.clone()).sum_dim(3)) * p * scale)
}

/// [`Kernels::pick_logprobs`]; f32 whatever the logits are.
pub fn pick_logprobs<B: Backend>(logits: FloatTensor<B>, tokens: &[u32], temperature: f64) -> FloatTensor<B> {
    let logits = wide(wrap::<B, 2>(logits)) / temperature;
    let column = column::<B>(tokens, &logits.device());
    unwrap(log_softmax(logits, 1).gather(1, column).reshape([tokens.len()]))
}

/// [`Kernels::pick_logprobs_backward`]: d log p(token) / d logits = onehot(token) - p.
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
    let dlogits = (activation::softmax(logits, 1).neg() * grad.clone()).scatter(1, column, grad, IndexingUpdateOp::Add);
    unwrap(as_wide_as(dtype, dlogits))
}

fn column<B: Backend>(tokens: &[u32], device: &B::Device) -> Tensor<B, 2, Int> {
    let ids: Vec<i64> = tokens.iter().map(|id| i64::from(*id)).collect();
    Tensor::from_data(TensorData::new(ids, [tokens.len(), 1]), device)
}
