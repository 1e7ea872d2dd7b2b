//! Every kernel of a device against its plain definition on the CPU, over random inputs of awkward sizes.

use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{Distribution, FloatDType, Int, Tensor, TensorData, TensorPrimitive};

use crate::Error;
use crate::backend::Cpu;
use crate::device::{Device, OnDevice};
use crate::faults;
use crate::ops::{AdamStep, Branches, Kernels, Segments, adam, padded, plain};

/// The largest difference of each kernel's results, relative to `1 + |result|`.
///
/// # Errors
/// [`Error::Input`] when there is no such device.
pub fn kernels(device: Device) -> Result<Vec<(&'static str, f64)>, Error> {
    device.run(Compare)
}

struct Compare;

impl OnDevice for Compare {
    type Output = Vec<(&'static str, f64)>;

    fn run<B: Kernels>(self, device: B::Device) -> Self::Output {
        let mut found = Found { differences: vec![] };
        elements::<B>(&mut found, &device);
        attention::<B>(&mut found, &device);
        logprobs::<B>(&mut found, &device);
        update::<B>(&mut found, &device);
        found.differences
    }
}

struct Found {
    differences: Vec<(&'static str, f64)>,
}

impl Found {
    /// Keeps the worst per name; what is not a number is infinitely far.
    fn note<B: Kernels, const D: usize>(&mut self, name: &'static str, got: FloatTensor<B>, want: FloatTensor<Cpu>) {
        let far =
            |(got, want): (f32, f32)| if got.is_finite() { f64::from((got - want).abs() / (1.0 + want.abs())) } else { f64::INFINITY };
        let worst = values::<B, D>(got).into_iter().zip(values::<Cpu, D>(want)).map(far).fold(0.0, f64::max);
        match self.differences.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = known.max(worst),
            None => self.differences.push((name, worst)),
        }
    }
}

fn values<B: Backend, const D: usize>(x: FloatTensor<B>) -> Vec<f32> {
    faults::floats_or_panic(Tensor::<B, D>::from_primitive(TensorPrimitive::Float(x)))
}

fn raw<B: Backend, const D: usize>(x: &Tensor<B, D>) -> FloatTensor<B> {
    x.clone().into_primitive().tensor()
}

/// Two of the same: on the CPU, and on the device in its precision.
struct Both<B: Backend, const D: usize>(Tensor<Cpu, D>, Tensor<B, D>);

impl<B: Backend, const D: usize> Both<B, D> {
    fn random(shape: [usize; D], seed: u64, device: &B::Device) -> Self {
        Cpu::seed(&Default::default(), seed);
        Self::of(Tensor::random(shape, Distribution::Normal(0.0, 1.0), &Default::default()), device)
    }

    fn of(x: Tensor<Cpu, D>, device: &B::Device) -> Self {
        let there = Tensor::from_data(x.to_data(), device);
        Self(x, there)
    }

    /// As [`Both::random`], f32 on either side.
    fn wide(shape: [usize; D], seed: u64, device: &B::Device) -> Self {
        let Self(x, _) = Self::random(shape, seed, device);
        let there = Tensor::from_data(x.to_data(), (device, burn::tensor::DType::F32));
        Self(x, there)
    }

    fn cpu(&self) -> FloatTensor<Cpu> {
        raw(&self.0)
    }

    fn there(&self) -> FloatTensor<B> {
        raw(&self.1)
    }
}

fn elements<B: Kernels>(found: &mut Found, device: &B::Device) {
    const EPS: f64 = 1e-6;
    for (n, width) in [(1, 8), (3, 33), (700, 130)] {
        let rows = |seed| Both::<B, 2>::random([n, width], seed, device);
        let (x, y, g, weight) = (rows(1), rows(2), rows(3), Both::<B, 1>::random([width], 4, device));
        found.note::<B, 2>("rms_norm", B::rms_norm(x.there(), weight.there(), EPS), plain::rms_norm::<Cpu>(x.cpu(), weight.cpu(), EPS));
        let [dx, dweight] = B::rms_norm_backward(x.there(), weight.there(), EPS, g.there());
        let [wanted_dx, wanted_dweight] = plain::rms_norm_backward::<Cpu>(x.cpu(), weight.cpu(), EPS, g.cpu());
        found.note::<B, 2>("rms_norm_backward", dx, wanted_dx);
        found.note::<B, 1>("rms_norm_backward", dweight, wanted_dweight);
        let (_, normed) = B::add_rms_norm(x.there(), y.there(), weight.there(), EPS);
        let sum = raw(&(x.0.clone() + y.0.clone()));
        found.note::<B, 2>("add_rms_norm", normed, plain::rms_norm::<Cpu>(sum, weight.cpu(), EPS));
        found.note::<B, 2>("swiglu", B::swiglu(x.there(), y.there()), plain::swiglu::<Cpu>(x.cpu(), y.cpu()));
        let (got, want) = (B::swiglu_backward(x.there(), y.there(), g.there()), plain::swiglu_backward::<Cpu>(x.cpu(), y.cpu(), g.cpu()));
        for (got, want) in got.into_iter().zip(want) {
            found.note::<B, 2>("swiglu_backward", got, want);
        }
    }
    let tables = |seed| Both::<B, 2>::random([300, 32], seed, device);
    let (x, cos, sin, weight) = (Both::<B, 2>::random([300, 96], 5, device), tables(6), tables(7), Both::<B, 1>::random([32], 8, device));
    let wanted = plain::rotate::<Cpu>(x.cpu(), cos.cpu(), sin.cpu());
    found.note::<B, 2>("rotate", B::rotate(x.there(), cos.there(), sin.there()), wanted);
    let heads = plain::rms_norm::<Cpu>(raw(&x.0.clone().reshape([900, 32])), weight.cpu(), EPS);
    let normed = Tensor::<Cpu, 2>::from_primitive(TensorPrimitive::Float(heads)).reshape([300, 96]);
    let wanted = plain::rotate::<Cpu>(raw(&normed), cos.cpu(), sin.cpu());
    found.note::<B, 2>("norm_rotate", B::norm_rotate(x.there(), weight.there(), EPS, cos.there(), sin.there()), wanted);
}

fn attention<B: Kernels>(found: &mut Found, device: &B::Device) {
    const E: usize = 24;
    for (heads, kv, causal, lengths) in [(4, 4, true, vec![1, 17, 64, 5]), (4, 2, true, vec![20; 3]), (6, 1, false, vec![9, 30, 30])] {
        let segments = std::sync::Arc::unwrap_or_clone(Segments::of_lengths(&lengths, causal, heads, kv));
        let rows = |heads: usize, seed| Both::<B, 2>::random([segments.rows(), heads * E], seed, device);
        let (q, k, v, g) = (rows(heads, 1), rows(kv, 2), rows(kv, 3), rows(heads, 4));
        let wanted = padded::segment_attention::<Cpu>(q.cpu(), k.cpu(), v.cpu(), &segments);
        found.note::<B, 2>("segment_attention", B::segment_attention(q.there(), k.there(), v.there(), &segments), wanted);
        let got = B::segment_attention_backward(q.there(), k.there(), v.there(), &segments, g.there());
        let wanted = padded::segment_attention_backward::<Cpu>(q.cpu(), k.cpu(), v.cpu(), &segments, g.cpu());
        for (got, want) in got.into_iter().zip(wanted) {
            found.note::<B, 2>("segment_attention_backward", got, want);
        }
        let trunks = (0..lengths.len()).map(|at| (at > 1).then_some(0)).collect();
        let branches = Branches { segments, trunks };
        let wanted = padded::branch_attention::<Cpu>(q.cpu(), k.cpu(), v.cpu(), &branches);
        found.note::<B, 2>("branch_attention", B::branch_attention(q.there(), k.there(), v.there(), &branches), wanted);
        // Rows of one slot, one after the other, and of others; the first and the last position.
        let places = [[0, 0], [1, 49], [4, 3], [2, 17], [2, 18], [2, 19], [3, 8]];
        let cache = |seed| Both::<B, 3>::random([5, 50, kv * E], seed, device);
        let (q, keys, values) = (Both::<B, 2>::random([places.len(), heads * E], 5, device), cache(6), cache(7));
        let here = Tensor::<Cpu, 2, Int>::from_data(TensorData::from(places), &Default::default());
        let there = Tensor::<B, 2, Int>::from_data(TensorData::from(places), device);
        let wanted = plain::cached_attention::<Cpu>(q.cpu(), [keys.cpu(), values.cpu()], here.into_primitive(), heads);
        let got = B::cached_attention(q.there(), [keys.there(), values.there()], there.into_primitive(), heads);
        found.note::<B, 2>("cached_attention", got, wanted);
    }
}

fn logprobs<B: Kernels>(found: &mut Found, device: &B::Device) {
    let (x, weight, g) =
        (Both::<B, 2>::random([50, 72], 1, device), Both::<B, 2>::random([333, 72], 2, device), Both::<B, 2>::random([50, 333], 3, device));
    // Sums of as many terms as a row is long, brought to the size of one.
    let scaled = |x: FloatTensor<Cpu>| Both::<B, 2>::of(Tensor::from_primitive(TensorPrimitive::Float(x)) / 72f32.sqrt(), device);
    let logits = scaled(plain::project::<Cpu>(x.cpu(), weight.cpu()));
    found.note::<B, 2>("project", B::project(x.there(), weight.there()), plain::project::<Cpu>(x.cpu(), weight.cpu()));
    let got = B::project_backward(x.there(), weight.there(), g.there());
    for (got, want) in got.into_iter().zip(plain::project_backward::<Cpu>(x.cpu(), weight.cpu(), g.cpu())) {
        found.note::<B, 2>("project_backward", got, want);
    }
    let tokens: Vec<u32> = (0..50).map(|row| row * 6).collect();
    let wanted = plain::pick_logprobs::<Cpu>(logits.cpu(), &tokens, 0.7);
    found.note::<B, 1>("pick_logprobs", B::pick_logprobs(logits.there(), &tokens, 0.7), wanted);
    let grad = Both::<B, 1>::random([50], 4, device);
    let wanted = plain::pick_logprobs_backward::<Cpu>(logits.cpu(), &tokens, 0.7, grad.cpu());
    found.note::<B, 2>("pick_logprobs_backward", B::pick_logprobs_backward(logits.there(), &tokens, 0.7, grad.there()), wanted);
}

fn update<B: Kernels>(found: &mut Found, device: &B::Device) {
    let row = |seed| Both::<B, 1>::wide([1000], seed, device);
    let second = Both::<B, 1>::wide([1000], 3, device);
    let second = Both(second.0.abs(), second.1.abs());
    let (held, gradient) = ([row(1), row(2), second], row(4));
    let step = AdamStep { scale: 0.5, beta1: 0.9, beta2: 0.98, keep: 0.99, rate: 0.1, correction: 0.3, eps: 1e-8 };
    let wanted = adam::plain::<Cpu>(held.each_ref().map(Both::cpu), gradient.cpu(), &step, FloatDType::F32);
    let (got, rounded) = B::adam(held.each_ref().map(Both::there), gradient.there(), &step, FloatDType::F32);
    for (got, want) in got.into_iter().zip(wanted.0) {
        found.note::<B, 1>("adam", got, want);
    }
    found.note::<B, 1>("adam", rounded, wanted.1);
    let whole = |parts: Vec<f32>| parts.iter().sum::<f32>() / 2000.0;
    let got = whole(values::<B, 1>(B::squares(vec![gradient.there(), held[0].there()])));
    let want = whole(values::<Cpu, 1>(adam::squares::<Cpu>(vec![gradient.cpu(), held[0].cpu()])));
    let one = |value: f32| Tensor::<Cpu, 1>::from_floats([value], &Default::default());
    found.note::<Cpu, 1>("squares", raw(&one(got)), raw(&one(want)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_kernels_are_near_their_definitions() {
        let differences = kernels(Device::Cpu).unwrap();
        assert_eq!(differences.len(), 17);
        for (name, worst) in differences {
            assert!(worst < 2e-5, "{name}: {worst}");
        }
    }
}
