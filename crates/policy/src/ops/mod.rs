//! The policy's kernels: operations that would be chains of passes or would hold far more than they give, each with its gradient.
//!
//! [`Kernels`] gives every backend a plain version made of Burn operations, which is also the definition that the fused
//! ones are tested against. The CPU backend overrides them with single passes over the rows ([`flex`]), GPUs with single
//! launches (`cube`); [`autodiff`] makes all of them differentiable.
//!
//! Shapes: `n` rows (tokens of all sequences, end to end, without padding), `h` heads, `e` width of a head, `d` width, `E`
//! experts of inner width `i`.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::backend::Backend;
use burn::tensor::ops::{FloatTensor, IntTensor};
use burn::tensor::{FloatDType, Int, Tensor, TensorPrimitive};

pub mod adam;
pub mod attention;
pub mod autodiff;
#[cfg(feature = "cube")]
mod cube;
pub mod experts;
pub mod flex;
pub mod guards;
pub mod logprobs;
pub mod padded;
pub mod plain;
pub mod product;
mod vector;

pub use adam::AdamStep;
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
    /// Logits that [`Kernels::token_logprobs`] holds at one time, and most rows of them: enough for a matrix product at full
    /// speed, few enough that on a CPU the logits of a small vocabulary stay in the cache.
    const LOGITS: (usize, usize) = (4 << 20, 256);

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

    /// `x + y`, and [`Kernels::rms_norm`] of it.
    fn add_rms_norm(
        x: FloatTensor<Self>,
        y: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let sum = Self::float_add(x, y);
        (sum.clone(), Self::rms_norm(sum, weight, eps))
    }

    /// Rotary embedding, halves convention: `x * cos + rotate_half(x) * sin`. `x` \[n, h * e\], `cos` and `sin` \[n, e\].
    fn rotate(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>) -> FloatTensor<Self> {
        plain::rotate::<Self>(x, cos, sin)
    }

    /// [`Kernels::rms_norm`] of every head, then [`Kernels::rotate`]. `x` \[n, h * e\], `weight` \[e\].
    fn norm_rotate(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f64,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        plain::norm_rotate::<Self>(x, weight, eps, cos, sin)
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
    /// Memory is bounded: scores exist for a group of segments at a time.
    fn segment_attention(q: FloatTensor<Self>, k: FloatTensor<Self>, v: FloatTensor<Self>, segments: &Segments) -> FloatTensor<Self> {
        padded::segment_attention::<Self>(q, k, v, segments)
    }

    /// Gradients of [`Kernels::segment_attention`] to `q`, `k` and `v`; the scores are computed again.
    fn segment_attention_backward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        segments: &Segments,
        grad: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 3] {
        padded::segment_attention_backward::<Self>(q, k, v, segments, grad)
    }

    /// [`Kernels::segment_attention`] where rows also see their segment's trunk. Training lays whole sequences out; this is for
    /// models that are only asked.
    fn branch_attention(q: FloatTensor<Self>, k: FloatTensor<Self>, v: FloatTensor<Self>, branches: &Branches) -> FloatTensor<Self> {
        padded::branch_attention::<Self>(q, k, v, branches)
    }

    /// Attention of rows over a cache of keys and values, \[slots, capacity, kv * e\] each: row `i` of `q` \[n, heads * e\] sees the
    /// positions of slot `places[i, 0]` up to and with `places[i, 1]`.
    fn cached_attention(q: FloatTensor<Self>, cache: [FloatTensor<Self>; 2], places: IntTensor<Self>, heads: usize) -> FloatTensor<Self> {
        plain::cached_attention::<Self>(q, cache, places, heads)
    }

    /// Probabilities of `scores * scale`, \[s, k, share * l, p\], where row `i` of the `l` rows of sequence `s` sees the positions
    /// up to and with `last` \[s, l\]; 0 for the others.
    fn probabilities(scores: FloatTensor<Self>, last: IntTensor<Self>, scale: f64) -> FloatTensor<Self> {
        plain::probabilities::<Self>(scores, last, scale)
    }

    /// Gradient of [`Kernels::probabilities`], which gave `p`, to the scores.
    fn probabilities_backward(p: FloatTensor<Self>, scale: f64, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        plain::probabilities_backward::<Self>(p, scale, grad)
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

    /// Parts of the sum of squares of all of `of`, which is not empty; f32, \[any number\], to be added up.
    fn squares(of: Vec<FloatTensor<Self>>) -> FloatTensor<Self> {
        adam::squares::<Self>(of)
    }

    /// One AdamW update: new weight and moments of `held`, which are weight, first and second moment, all f32, \[n\]; and the new
    /// weight in `dtype`.
    fn adam(
        held: [FloatTensor<Self>; 3],
        gradient: FloatTensor<Self>,
        step: &AdamStep,
        dtype: FloatDType,
    ) -> ([FloatTensor<Self>; 3], FloatTensor<Self>) {
        adam::plain::<Self>(held, gradient, step, dtype)
    }
}

/// Whether sizes that should be the same are.
fn same(pairs: &[(usize, usize)]) -> Result<(), String> {
    match pairs.iter().find(|(one, other)| one != other) {
        Some((one, other)) => Err(format!("operands of one operation do not fit: {one} where the others have {other}")),
        None => Ok(()),
    }
}

/// Whether tables turn rows of whole heads.
fn turns([n, width]: [usize; 2], [rows, e]: [usize; 2], sin: [usize; 2]) -> Result<(), String> {
    if e == 0 || e % 2 != 0 || width % e != 0 {
        return Err(format!("rows of {width} values are not of heads of {e}, an even number, each"));
    }
    same(&[(rows, n), (sin[0], rows), (sin[1], e)])
}

/// [`Kernels::project`] on tensors.
pub fn project<B: Kernels>(x: Tensor<B, 2>, weight: Tensor<B, 2>) -> Tensor<B, 2> {
    guards::must(same(&[(weight.dims()[1], x.dims()[1])]));
    wrap(B::project(unwrap(x), unwrap(weight)))
}

/// [`Kernels::rms_norm`] on tensors.
pub fn rms_norm<B: Kernels>(x: Tensor<B, 2>, weight: Tensor<B, 1>, eps: f64) -> Tensor<B, 2> {
    guards::must(same(&[(weight.dims()[0], x.dims()[1])]));
    wrap(B::rms_norm(unwrap(x), unwrap(weight), eps))
}

/// [`Kernels::rotate`] on tensors.
pub fn rotate<B: Kernels>(x: Tensor<B, 2>, cos: Tensor<B, 2>, sin: Tensor<B, 2>) -> Tensor<B, 2> {
    guards::must(turns(x.dims(), cos.dims(), sin.dims()));
    wrap(B::rotate(unwrap(x), unwrap(cos), unwrap(sin)))
}

/// [`Kernels::swiglu`] on tensors.
pub fn swiglu<B: Kernels>(gate: Tensor<B, 2>, up: Tensor<B, 2>) -> Tensor<B, 2> {
    guards::must(same(&[(gate.dims()[0], up.dims()[0]), (gate.dims()[1], up.dims()[1])]));
    wrap(B::swiglu(unwrap(gate), unwrap(up)))
}

/// [`Kernels::segment_attention`] on tensors.
pub fn attention<B: Kernels>(q: Tensor<B, 2>, k: Tensor<B, 2>, v: Tensor<B, 2>, segments: &Segments) -> Tensor<B, 2> {
    let ([n, width], [kn, kv_width], [vn, v_width]) = (q.dims(), k.dims(), v.dims());
    guards::must(segments.check(n, width, kv_width));
    guards::must(same(&[(kn, n), (vn, n), (v_width, kv_width)]));
    wrap(B::segment_attention(unwrap(q), unwrap(k), unwrap(v), segments))
}

/// [`Kernels::branch_attention`] on tensors.
pub fn branch_attention<B: Kernels>(q: Tensor<B, 2>, k: Tensor<B, 2>, v: Tensor<B, 2>, branches: &Branches) -> Tensor<B, 2> {
    let ([n, width], [kn, kv_width], [vn, v_width]) = (q.dims(), k.dims(), v.dims());
    guards::must(branches.check(n, width, kv_width));
    guards::must(same(&[(kn, n), (vn, n), (v_width, kv_width)]));
    wrap(B::branch_attention(unwrap(q), unwrap(k), unwrap(v), branches))
}

/// [`Kernels::probabilities`] on tensors.
pub fn probabilities<B: Kernels>(scores: Tensor<B, 4>, last: Tensor<B, 2, Int>, scale: f64) -> Tensor<B, 4> {
    wrap(B::probabilities(unwrap(scores), last.into_primitive(), scale))
}

/// [`Kernels::probabilities_backward`] on tensors.
pub fn probabilities_backward<B: Kernels>(p: Tensor<B, 4>, scale: f64, grad: Tensor<B, 4>) -> Tensor<B, 4> {
    wrap(B::probabilities_backward(unwrap(p), scale, unwrap(grad)))
}

/// [`Kernels::experts`] on tensors.
pub fn experts<B: Kernels>(x: Tensor<B, 2>, gate_up: Tensor<B, 3>, down: Tensor<B, 3>, counts: &[usize]) -> Tensor<B, 2> {
    let ([rows, d], [all, wide, gate_d], [down_all, down_d, inner]) = (x.dims(), gate_up.dims(), down.dims());
    guards::must(guards::experts(counts, rows, all));
    guards::must(same(&[(gate_d, d), (down_all, all), (down_d, d), (wide, 2 * inner)]));
    wrap(B::experts(unwrap(x), unwrap(gate_up), unwrap(down), counts))
}

/// [`Kernels::token_logprobs`] on tensors.
pub fn token_logprobs<B: Kernels>(hidden: Tensor<B, 2>, head: Tensor<B, 2>, asked: &Asked) -> Tensor<B, 1> {
    let ([rows, d], [vocab, head_d]) = (hidden.dims(), head.dims());
    guards::must(guards::tokens(&asked.tokens, vocab));
    guards::must(same(&[(asked.tokens.len(), rows), (head_d, d)]));
    wrap(B::token_logprobs(unwrap(hidden), unwrap(head), asked))
}

/// [`Kernels::add_rms_norm`] on tensors.
pub fn add_rms_norm<B: Kernels>(x: Tensor<B, 2>, y: Tensor<B, 2>, weight: Tensor<B, 1>, eps: f64) -> (Tensor<B, 2>, Tensor<B, 2>) {
    guards::must(same(&[(x.dims()[0], y.dims()[0]), (x.dims()[1], y.dims()[1]), (weight.dims()[0], x.dims()[1])]));
    let (sum, normed) = B::add_rms_norm(unwrap(x), unwrap(y), unwrap(weight), eps);
    (wrap(sum), wrap(normed))
}

/// [`Kernels::norm_rotate`] on tensors.
pub fn norm_rotate<B: Kernels>(x: Tensor<B, 2>, weight: Tensor<B, 1>, eps: f64, cos: Tensor<B, 2>, sin: Tensor<B, 2>) -> Tensor<B, 2> {
    guards::must(turns(x.dims(), cos.dims(), sin.dims()));
    guards::must(same(&[(weight.dims()[0], cos.dims()[1])]));
    wrap(B::norm_rotate(unwrap(x), unwrap(weight), eps, unwrap(cos), unwrap(sin)))
}

/// [`Kernels::cached_attention`] on tensors.
pub fn cached_attention<B: Kernels>(q: Tensor<B, 2>, cache: [Tensor<B, 3>; 2], places: Tensor<B, 2, Int>, heads: usize) -> Tensor<B, 2> {
    let ([rows, width], [slots, capacity, kv_width]) = (q.dims(), cache[0].dims());
    guards::must(
        Segments { ranges: std::iter::once(0..rows).collect(), causal: true, heads, kv_heads: kv_width * heads / width.max(1) }
            .check(rows, width, kv_width),
    );
    let [of_values, of_places] = [cache[1].dims(), [places.dims()[0], places.dims()[1], 0]];
    guards::must(same(&[
        (of_values[0], slots),
        (of_values[1], capacity),
        (of_values[2], kv_width),
        (of_places[0], rows),
        (of_places[1], 2),
    ]));
    wrap(B::cached_attention(unwrap(q), cache.map(unwrap), places.into_primitive(), heads))
}

/// [`Kernels::squares`] on tensors.
pub fn squares<B: Kernels>(of: Vec<Tensor<B, 1>>) -> Tensor<B, 1> {
    wrap(B::squares(of.into_iter().map(unwrap).collect()))
}

/// [`Kernels::adam`] on tensors.
pub fn adam<B: Kernels>(
    held: [Tensor<B, 1>; 3],
    gradient: Tensor<B, 1>,
    step: &AdamStep,
    dtype: FloatDType,
) -> ([Tensor<B, 1>; 3], Tensor<B, 1>) {
    let (held, rounded) = B::adam(held.map(unwrap), unwrap(gradient), step, dtype);
    (held.map(wrap), wrap(rounded))
}
