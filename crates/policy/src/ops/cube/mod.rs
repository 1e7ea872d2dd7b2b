//! The kernels on GPUs, written in CubeCL: one launch for what the plain definitions need many for.
//!
//! In and out: as [`Kernels`] says. Products are Burn's kernels, chosen here. Compiled when they first run, for each precision.

mod attend;
mod elements;
mod product;
mod rows;

use burn::tensor::ops::{FloatTensor, FloatTensorOps, IntTensor};
use burn::tensor::{DType, FloatDType, Int, Shape, Tensor, TensorData, TensorMetadata};
use burn_cubecl::cubecl::prelude::{CubeCount, CubeDim};
use burn_cubecl::cubecl::{calculate_cube_count_elemwise, client::ComputeClient};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime, FloatElement, IntElement};

use self::product::product;
use super::{AdamStep, Kernels, guards, unwrap, wrap};

/// Rows that one cube (block) takes, a plane each.
const PLANES: u32 = 8;
/// Rows whose columns are added up by one unit before parts are added to each other.
const BLOCK: usize = 128;

/// Parts that a sum of squares comes in.
const SQUARES: usize = 1024;

/// What a kernel is to count can be counted.
#[track_caller]
fn counted(values: usize) {
    guards::must(guards::countable("what a kernel is launched over", values));
}

/// Launches over rows, a plane each.
fn planes<R: CubeRuntime>(client: &ComputeClient<R>, rows: usize) -> (CubeCount, CubeDim) {
    counted(rows);
    let plane = client.properties().hardware.plane_size_max;
    let dim = CubeDim::new_2d(plane, PLANES);
    (calculate_cube_count_elemwise(client, rows * plane as usize, dim), dim)
}

/// Launches over values, a unit each.
fn units<R: CubeRuntime>(client: &ComputeClient<R>, values: usize) -> (CubeCount, CubeDim) {
    counted(values);
    let dim = CubeDim::new_1d(256);
    (calculate_cube_count_elemwise(client, values, dim), dim)
}

fn empty<R: CubeRuntime>(like: &CubeTensor<R>, shape: impl Into<Shape>, dtype: DType) -> CubeTensor<R> {
    let shape = shape.into();
    counted(shape.num_elements());
    empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), shape, dtype)
}

/// Rows and their width, of any tensor that a kernel can count.
fn rows_of<R: CubeRuntime>(x: &CubeTensor<R>) -> (usize, usize) {
    let shape = x.shape();
    counted(shape.num_elements());
    let width = shape[shape.num_dims() - 1];
    (shape.num_elements() / width.max(1), width)
}

/// Whether a tensor has no element: a launch of no unit is an error of the device.
fn nothing<R: CubeRuntime>(x: &CubeTensor<R>) -> bool {
    x.shape().num_elements() == 0
}

/// One tensor for reading and writing that nobody else holds.
fn own<R: CubeRuntime>(x: CubeTensor<R>) -> CubeTensor<R> {
    let x = into_contiguous(x);
    if x.can_mut() { x } else { x.copy() }
}

impl<R: CubeRuntime, F: FloatElement, I: IntElement, T: BoolElement> Kernels for CubeBackend<R, F, I, T> {
    // Enough for a product at full speed; 256 MiB in f32.
    const LOGITS: (usize, usize) = (64 << 20, 4096);

    fn project(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        product(x, Self::float_swap_dims(weight, 0, 1))
    }

    fn project_backward(x: FloatTensor<Self>, weight: FloatTensor<Self>, grad: FloatTensor<Self>) -> [FloatTensor<Self>; 2] {
        [product(grad.clone(), weight), product(Self::float_swap_dims(grad, 0, 1), x)]
    }

    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        let (x, weight) = (into_contiguous(x), into_contiguous(weight));
        let ((n, width), dtype) = (rows_of(&x), x.dtype);
        let out = empty(&x, x.shape(), dtype);
        if nothing(&x) {
            return out;
        }
        let (client, (count, dim)) = (x.client.clone(), planes(&x.client, n));
        let arrays = [x, weight, out.clone()].map(CubeTensor::into_array_arg);
        let [x, weight, to] = arrays;
        rows::rms_norm::launch(&client, count, dim, x, weight, to, n, width, eps as f32, dtype.into());
        out
    }

    fn rms_norm_backward(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64, grad: FloatTensor<Self>) -> [FloatTensor<Self>; 2] {
        let [x, weight, grad] = [x, weight, grad].map(into_contiguous);
        let ((n, width), dtype, of_weight) = (rows_of(&x), x.dtype, weight.dtype);
        if nothing(&x) {
            return [x, Self::float_zeros([width].into(), &weight.device, FloatDType::from(of_weight))];
        }
        let blocks = n.div_ceil(BLOCK);
        let (dx, inverse) = (empty(&x, x.shape(), dtype), empty(&x, [n], DType::F32));
        let parts = empty(&x, [blocks, width], DType::F32);
        let client = x.client.clone();
        let (count, dim) = planes(&client, n);
        let [from, by, down, to, scales] = [&x, &weight, &grad, &dx, &inverse].map(|tensor| tensor.clone().into_array_arg());
        rows::rms_norm_backward::launch(&client, count, dim, from, by, down, to, scales, n, width, eps as f32, dtype.into());
        let (count, dim) = units(&client, blocks * width);
        let [from, down, scales, to] = [x, grad, inverse, parts.clone()].map(CubeTensor::into_array_arg);
        rows::rms_norm_weight::launch(&client, count, dim, from, down, scales, to, n, width, BLOCK, dtype.into());
        let dweight = wrap::<Self, 2>(parts).sum_dim(0).reshape([width]);
        let dweight = if of_weight == DType::F32 { dweight } else { dweight.cast(FloatDType::from(of_weight)) };
        [dx, unwrap(dweight)]
    }

    fn rotate(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>) -> FloatTensor<Self> {
        let [x, cos, sin] = [x, cos, sin].map(into_contiguous);
        let ((_, width), (_, e), dtype) = (rows_of(&x), rows_of(&cos), x.dtype);
        let out = empty(&x, x.shape(), dtype);
        if nothing(&x) {
            return out;
        }
        let (client, (count, dim)) = (x.client.clone(), units(&x.client, x.shape().num_elements()));
        let [x, cos, sin, to] = [x, cos, sin, out.clone()].map(CubeTensor::into_array_arg);
        elements::rotate::launch(&client, count, dim, x, cos, sin, to, width, e, dtype.into());
        out
    }

    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        let [gate, up] = [gate, up].map(into_contiguous);
        let (out, dtype) = (empty(&gate, gate.shape(), gate.dtype), gate.dtype);
        if nothing(&gate) {
            return out;
        }
        let (client, (count, dim)) = (gate.client.clone(), units(&gate.client, gate.shape().num_elements()));
        let [gate, up, to] = [gate, up, out.clone()].map(CubeTensor::into_array_arg);
        elements::swiglu::launch(&client, count, dim, gate, up, to, dtype.into());
        out
    }

    fn swiglu_backward(gate: FloatTensor<Self>, up: FloatTensor<Self>, grad: FloatTensor<Self>) -> [FloatTensor<Self>; 2] {
        let [gate, up, grad] = [gate, up, grad].map(into_contiguous);
        let (dtype, shape) = (gate.dtype, gate.shape());
        let out = [(); 2].map(|()| empty(&gate, shape.clone(), dtype));
        if nothing(&gate) {
            return out;
        }
        let (client, (count, dim)) = (gate.client.clone(), units(&gate.client, shape.num_elements()));
        let [gate, up, grad] = [gate, up, grad].map(CubeTensor::into_array_arg);
        let [dgate, dup] = out.clone().map(CubeTensor::into_array_arg);
        elements::swiglu_backward::launch(&client, count, dim, gate, up, grad, dgate, dup, dtype.into());
        out
    }

    fn probabilities(scores: FloatTensor<Self>, last: IntTensor<Self>, scale: f64) -> FloatTensor<Self> {
        let (scores, last) = (into_contiguous(scores), into_contiguous(last));
        let ((n, width), (_, lines), dtype) = (rows_of(&scores), rows_of(&last), scores.dtype);
        let (out, dtypes) = (empty(&scores, scores.shape(), dtype), [dtype.into(), last.dtype.into()]);
        if nothing(&scores) {
            return out;
        }
        let share = n / last.shape().num_elements();
        let (client, (count, dim)) = (scores.client.clone(), planes(&scores.client, n));
        let [scores, last, to] = [scores, last, out.clone()].map(CubeTensor::into_array_arg);
        rows::probabilities::launch(&client, count, dim, scores, last, to, n, width, lines, share, scale as f32, dtypes);
        out
    }

    fn probabilities_backward(p: FloatTensor<Self>, scale: f64, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        let [p, grad] = [p, grad].map(into_contiguous);
        let ((n, width), dtype) = (rows_of(&p), p.dtype);
        let out = empty(&p, p.shape(), dtype);
        if nothing(&p) {
            return out;
        }
        let (client, (count, dim)) = (p.client.clone(), planes(&p.client, n));
        let [p, grad, to] = [p, grad, out.clone()].map(CubeTensor::into_array_arg);
        rows::probabilities_backward::launch(&client, count, dim, p, grad, to, n, width, scale as f32, dtype.into());
        out
    }

    fn pick_logprobs(logits: FloatTensor<Self>, tokens: &[u32], temperature: f64) -> FloatTensor<Self> {
        let logits = into_contiguous(logits);
        let tokens = ids::<Self>(tokens, &logits.device);
        let ((n, width), dtypes) = (rows_of(&logits), [logits.dtype.into(), tokens.dtype.into()]);
        let out = empty(&logits, [n], DType::F32);
        if nothing(&logits) {
            return out;
        }
        let (client, (count, dim)) = (logits.client.clone(), planes(&logits.client, n));
        let [logits, tokens, to] = [logits, tokens, out.clone()].map(CubeTensor::into_array_arg);
        rows::pick_logprobs::launch(&client, count, dim, logits, tokens, to, n, width, temperature.recip() as f32, dtypes);
        out
    }

    fn pick_logprobs_backward(logits: FloatTensor<Self>, tokens: &[u32], temperature: f64, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        let logits = into_contiguous(logits);
        let tokens = ids::<Self>(tokens, &logits.device);
        let grad = wrap::<Self, 1>(grad);
        let grad = if grad.dtype() == DType::F32 { grad } else { grad.cast(FloatDType::F32) };
        let ((n, width), dtypes) = (rows_of(&logits), [logits.dtype.into(), tokens.dtype.into()]);
        let out = empty(&logits, logits.shape(), logits.dtype);
        if nothing(&logits) {
            return out;
        }
        let (client, (count, dim)) = (logits.client.clone(), planes(&logits.client, n));
        let [logits, tokens, grad, to] = [logits, tokens, into_contiguous(unwrap(grad)), out.clone()].map(CubeTensor::into_array_arg);
        let scale = temperature.recip() as f32;
        rows::pick_logprobs_backward::launch(&client, count, dim, logits, tokens, grad, to, n, width, scale, dtypes);
        out
    }

    fn add_rms_norm(
        x: FloatTensor<Self>,
        y: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let [x, y, weight] = [x, y, weight].map(into_contiguous);
        let ((n, width), dtype, shape) = (rows_of(&x), x.dtype, x.shape());
        let (sum, out) = (empty(&x, shape.clone(), dtype), empty(&x, shape, dtype));
        if nothing(&x) {
            return (sum, out);
        }
        let (client, (count, dim)) = (x.client.clone(), planes(&x.client, n));
        let [x, y, weight, to_sum, to] = [x, y, weight, sum.clone(), out.clone()].map(CubeTensor::into_array_arg);
        rows::add_rms_norm::launch(&client, count, dim, x, y, weight, to_sum, to, n, width, eps as f32, dtype.into());
        (sum, out)
    }

    fn norm_rotate(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f64,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let [x, weight, cos, sin] = [x, weight, cos, sin].map(into_contiguous);
        let ((n, width), (_, e), dtype) = (rows_of(&x), rows_of(&cos), x.dtype);
        let heads = width / e;
        let out = empty(&x, x.shape(), dtype);
        if nothing(&x) {
            return out;
        }
        let (client, (count, dim)) = (x.client.clone(), planes(&x.client, n * heads));
        let [x, weight, cos, sin, to] = [x, weight, cos, sin, out.clone()].map(CubeTensor::into_array_arg);
        rows::norm_rotate::launch(&client, count, dim, x, weight, cos, sin, to, n * heads, e, heads, eps as f32, dtype.into());
        out
    }

    fn cached_attention(
        q: FloatTensor<Self>,
        [keys, values]: [FloatTensor<Self>; 2],
        places: IntTensor<Self>,
        heads: usize,
    ) -> FloatTensor<Self> {
        let [q, keys, values, places] = [q, keys, values, places].map(into_contiguous);
        let ((n, width), (_, kv_width), capacity) = (rows_of(&q), rows_of(&keys), keys.shape()[1]);
        let (e, share) = (width / heads, width / kv_width);
        let (out, dtypes) = (empty(&q, q.shape(), q.dtype), [q.dtype.into(), places.dtype.into()]);
        if nothing(&q) {
            return out;
        }
        let client = q.client.clone();
        let lanes = client.properties().hardware.plane_size_max;
        let dim = CubeDim::new_2d(lanes, attend::PLANES);
        let count = calculate_cube_count_elemwise(&client, n * heads * dim.num_elems() as usize, dim);
        let [q, keys, values, places, to] = [q, keys, values, places, out.clone()].map(CubeTensor::into_array_arg);
        let (scale, lanes) = ((e as f32).sqrt().recip(), lanes as usize);
        attend::attend::launch(&client, count, dim, q, keys, values, places, to, n, heads, share, capacity, scale, e, lanes, dtypes);
        out
    }

    fn squares(of: Vec<FloatTensor<Self>>) -> FloatTensor<Self> {
        let parts = empty(&of[0], [of.len() * SQUARES], DType::F32);
        let client = parts.client.clone();
        for (at, x) in of.into_iter().enumerate() {
            let (x, (count, dim)) = (into_contiguous(x), planes(&client, SQUARES));
            counted(x.shape().num_elements());
            let dtype = x.dtype.into();
            rows::squares::launch(&client, count, dim, x.into_array_arg(), parts.clone().into_array_arg(), at * SQUARES, SQUARES, dtype);
        }
        parts
    }

    fn adam(
        held: [FloatTensor<Self>; 3],
        gradient: FloatTensor<Self>,
        step: &AdamStep,
        dtype: FloatDType,
    ) -> ([FloatTensor<Self>; 3], FloatTensor<Self>) {
        let (held, gradient) = (held.map(own), into_contiguous(gradient));
        let rounded = empty(&gradient, gradient.shape(), dtype.into());
        if nothing(&gradient) {
            return (held, rounded);
        }
        let (client, (count, dim)) = (gradient.client.clone(), units(&gradient.client, gradient.shape().num_elements()));
        let dtypes = [gradient.dtype.into(), rounded.dtype.into()];
        let [weight, first, second] = held.clone().map(CubeTensor::into_array_arg);
        let [gradient, to] = [gradient, rounded.clone()].map(CubeTensor::into_array_arg);
        let AdamStep { scale, beta1, beta2, keep, rate, correction, eps } = *step;
        elements::adam::launch(
            &client, count, dim, weight, first, second, gradient, to, scale, beta1, beta2, keep, rate, correction, eps, dtypes,
        );
        (held, rounded)
    }
}

fn ids<B: burn::tensor::backend::Backend>(tokens: &[u32], device: &B::Device) -> IntTensor<B> {
    let ids: Vec<i64> = tokens.iter().map(|id| i64::from(*id)).collect();
    Tensor::<B, 1, Int>::from_data(TensorData::new(ids, [tokens.len()]), device).into_primitive()
}
