//! The fused CPU kernels against their plain definitions, and their gradients against the plain chain's on Burn's tape.

use burn::tensor::{Distribution, Tensor, TensorPrimitive};
use hypereyes_policy::backend::{Cpu, CpuTrain};
use hypereyes_policy::ops::{self, Kernels, Segments, plain};

fn random(rows: usize, width: usize, seed: u64) -> Tensor<Cpu, 2> {
    let device = Default::default();
    <Cpu as burn::tensor::backend::Backend>::seed(&device, seed);
    Tensor::random([rows, width], Distribution::Normal(0.0, 1.0), &device)
}

fn raw<const D: usize>(tensor: &Tensor<Cpu, D>) -> burn::tensor::ops::FloatTensor<Cpu> {
    tensor.clone().into_primitive().tensor()
}

#[track_caller]
fn close<const D: usize>(got: burn::tensor::ops::FloatTensor<Cpu>, want: burn::tensor::ops::FloatTensor<Cpu>) {
    let values = |primitive| Tensor::<Cpu, D>::from_primitive(TensorPrimitive::Float(primitive)).into_data().into_vec::<f32>().unwrap();
    let (got, want) = (values(got), values(want));
    assert_eq!(got.len(), want.len());
    for (at, (got, want)) in got.iter().zip(&want).enumerate() {
        assert!((got - want).abs() <= 2e-5 * (1.0 + want.abs()), "at {at}: {got} for {want}");
    }
}

#[test]
fn elementwise_kernels_equal_their_definition() {
    // More rows than one task of the pool takes, and widths that no vector register divides.
    for (rows, width) in [(1, 8), (3, 33), (700, 130)] {
        let (x, g) = (random(rows, width, 1), random(rows, width, 2));
        let weight = random(1, width, 3).reshape([width]);
        close::<2>(Cpu::rms_norm(raw(&x), raw(&weight), 1e-6), plain::rms_norm::<Cpu>(raw(&x), raw(&weight), 1e-6));
        let [dx, dw] = Cpu::rms_norm_backward(raw(&x), raw(&weight), 1e-6, raw(&g));
        let [px, pw] = plain::rms_norm_backward::<Cpu>(raw(&x), raw(&weight), 1e-6, raw(&g));
        close::<2>(dx, px);
        close::<1>(dw, pw);
        let up = random(rows, width, 4);
        close::<2>(Cpu::swiglu(raw(&x), raw(&up)), plain::swiglu::<Cpu>(raw(&x), raw(&up)));
        let [dgate, dup] = Cpu::swiglu_backward(raw(&x), raw(&up), raw(&g));
        let [pgate, pup] = plain::swiglu_backward::<Cpu>(raw(&x), raw(&up), raw(&g));
        close::<2>(dgate, pgate);
        close::<2>(dup, pup);
    }
    let (x, cos, sin) = (random(300, 96, 5), random(300, 32, 6), random(300, 32, 7));
    close::<2>(Cpu::rotate(raw(&x), raw(&cos), raw(&sin)), plain::rotate::<Cpu>(raw(&x), raw(&cos), raw(&sin)));
}

#[test]
fn attention_equals_its_definition_for_ragged_segments_and_shared_heads() {
    for (heads, kv_heads, causal) in [(4, 4, true), (4, 2, true), (6, 1, false)] {
        let segments = Segments::of_lengths(&[1, 17, 64, 5], causal, heads, kv_heads);
        let n = segments.rows();
        let (q, k, v) = (random(n, heads * 12, 1), random(n, kv_heads * 12, 2), random(n, kv_heads * 12, 3));
        let g = random(n, heads * 12, 4);
        let fused = Cpu::segment_attention(raw(&q), raw(&k), raw(&v), &segments);
        close::<2>(fused, plain::segment_attention::<Cpu>(raw(&q), raw(&k), raw(&v), &segments));
        let fused = Cpu::segment_attention_backward(raw(&q), raw(&k), raw(&v), &segments, raw(&g));
        let wanted = plain::segment_attention_backward::<Cpu>(raw(&q), raw(&k), raw(&v), &segments, raw(&g));
        for (fused, wanted) in fused.into_iter().zip(wanted) {
            close::<2>(fused, wanted);
        }
    }
}

#[test]
fn gradients_on_the_tape_equal_those_of_the_plain_chain() {
    let segments = Segments::of_lengths(&[9, 4], true, 4, 2);
    let inputs = [random(13, 32, 1), random(13, 16, 2), random(13, 16, 3)];
    let run = |fused: bool| -> Vec<Vec<f32>> {
        let [q, k, v] = inputs.clone().map(|x| Tensor::<CpuTrain, 2>::from_inner(x).require_grad());
        let out = if fused {
            ops::attention(q.clone(), k.clone(), v.clone(), &segments)
        } else {
            let raw = |x: &Tensor<CpuTrain, 2>| x.clone().into_primitive().tensor();
            Tensor::from_primitive(TensorPrimitive::Float(plain::segment_attention::<CpuTrain>(raw(&q), raw(&k), raw(&v), &segments)))
        };
        let tape = out.powi_scalar(2).sum().backward();
        [q, k, v].map(|x| x.grad(&tape).unwrap().into_data().into_vec::<f32>().unwrap()).into()
    };
    for (fused, plain) in run(true).concat().iter().zip(run(false).concat()) {
        assert!((fused - plain).abs() < 1e-4 * (1.0 + plain.abs()), "{fused} for {plain}");
    }
}
