//! The fused CPU kernels against their plain definitions, and their gradients against the plain chain's on Burn's tape.

use std::sync::{Arc, Mutex};

use burn::tensor::{Distribution, Tensor, TensorPrimitive};
use hypereyes_policy::backend::{Cpu, CpuTrain};
use hypereyes_policy::ops::{self, Branches, Kernels, Segments, padded, plain};
use hypereyes_policy::tape;

fn random(rows: usize, width: usize, seed: u64) -> Tensor<Cpu, 2> {
    // The generator is the whole process's, and other tests draw from it.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
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
        close::<2>(fused, padded::segment_attention::<Cpu>(raw(&q), raw(&k), raw(&v), &segments));
        let fused = Cpu::segment_attention_backward(raw(&q), raw(&k), raw(&v), &segments, raw(&g));
        let wanted = padded::segment_attention_backward::<Cpu>(raw(&q), raw(&k), raw(&v), &segments, raw(&g));
        for (fused, wanted) in fused.into_iter().zip(wanted) {
            close::<2>(fused, wanted);
        }
    }
}

#[test]
fn branches_see_their_trunk_and_nothing_of_each_other() {
    for (heads, kv_heads) in [(4, 4), (6, 2)] {
        // Two trunks with two branches each, and a sequence of its own.
        let lengths = [20, 3, 17, 9, 5, 1, 8];
        let segments = Arc::unwrap_or_clone(Segments::of_lengths(&lengths, true, heads, kv_heads));
        let n = segments.rows();
        let branches = Branches { segments, trunks: vec![None, Some(0), Some(0), None, Some(3), Some(3), None] };
        let (q, k, v) = (random(n, heads * 12, 1), random(n, kv_heads * 12, 2), random(n, kv_heads * 12, 3));
        let fused = Cpu::branch_attention(raw(&q), raw(&k), raw(&v), &branches);
        let plain = padded::branch_attention::<Cpu>(raw(&q), raw(&k), raw(&v), &branches);
        close::<2>(fused, plain.clone());
        // The second branch, laid out whole behind its trunk, says the same.
        let whole = |x: &Tensor<Cpu, 2>| Tensor::cat(vec![x.clone().narrow(0, 0, 20), x.clone().narrow(0, 23, 17)], 0);
        let alone = Segments::of_lengths(&[37], true, heads, kv_heads);
        let wanted = Cpu::segment_attention(raw(&whole(&q)), raw(&whole(&k)), raw(&whole(&v)), &alone);
        let part = |x, from, rows| Tensor::<Cpu, 2>::from_primitive(TensorPrimitive::Float(x)).narrow(0, from, rows);
        close::<2>(raw(&part(plain, 23, 17)), raw(&part(wanted, 20, 17)));
    }
}

#[test]
fn gradients_on_the_tape_equal_those_of_the_plain_chain() {
    let segments = Segments::of_lengths(&[9, 4], true, 4, 2);
    let inputs = [random(13, 32, 1), random(13, 16, 2), random(13, 16, 3)];
    let run = |fused: bool| -> Vec<Vec<f32>> {
        let recording = tape::recording();
        let [q, k, v] = inputs.clone().map(|x| Tensor::<CpuTrain, 2>::from_inner(x).require_grad());
        let out = if fused {
            ops::attention(q.clone(), k.clone(), v.clone(), &segments)
        } else {
            let raw = |x: &Tensor<CpuTrain, 2>| x.clone().into_primitive().tensor();
            Tensor::from_primitive(TensorPrimitive::Float(padded::segment_attention::<CpuTrain>(raw(&q), raw(&k), raw(&v), &segments)))
        };
        let root = out.powi_scalar(2).sum();
        drop(recording);
        let _turn = tape::backward();
        let tape = root.backward();
        [q, k, v].map(|x| x.grad(&tape).unwrap().into_data().into_vec::<f32>().unwrap()).into()
    };
    for (fused, plain) in run(true).concat().iter().zip(run(false).concat()) {
        assert!((fused - plain).abs() < 1e-4 * (1.0 + plain.abs()), "{fused} for {plain}");
    }
}

/// Gradients of `sum(out * grad)` to every input, on the tape.
fn gradients(inputs: Vec<Tensor<CpuTrain, 2>>, out: impl Fn(&[Tensor<CpuTrain, 2>]) -> Tensor<CpuTrain, 1>) -> (Vec<f32>, Vec<Vec<f32>>) {
    let recording = tape::recording();
    let inputs: Vec<_> = inputs.into_iter().map(Tensor::require_grad).collect();
    let out = out(&inputs);
    let weights = Tensor::<CpuTrain, 1>::from_inner(random(1, out.dims()[0], 9).reshape([out.dims()[0]]));
    let root = (out.clone() * weights).sum();
    drop(recording);
    let _turn = tape::backward();
    let tape = root.backward();
    let grads = inputs.iter().map(|input| input.grad(&tape).unwrap().into_data().into_vec::<f32>().unwrap()).collect();
    (out.into_data().into_vec::<f32>().unwrap(), grads)
}

#[track_caller]
fn same((out, grads): (Vec<f32>, Vec<Vec<f32>>), (want, wanted): (Vec<f32>, Vec<Vec<f32>>)) {
    for (got, want) in out.iter().chain(grads.iter().flatten()).zip(want.iter().chain(wanted.iter().flatten())) {
        assert!((got - want).abs() < 1e-4 * (1.0 + want.abs()), "{got} for {want}");
    }
    assert_eq!(grads.iter().map(Vec::len).collect::<Vec<_>>(), wanted.iter().map(Vec::len).collect::<Vec<_>>());
}

#[test]
fn token_logprobs_equal_log_softmax_and_its_gradients() {
    // More rows than one chunk of logits holds, and a vocabulary that no vector register divides.
    let (n, vocab, d) = (300, 70, 16);
    let tokens: Vec<u32> = (0..n as u32).map(|row| row * 7 % vocab as u32).collect();
    for temperature in [1.0, 0.7] {
        let inputs = || vec![Tensor::from_inner(random(n, d, 1)), Tensor::from_inner(random(vocab, d, 2))];
        let asked = ops::Asked { tokens: tokens.clone(), temperature };
        let fused = gradients(inputs(), |inputs| ops::token_logprobs(inputs[0].clone(), inputs[1].clone(), &asked));
        let plain = gradients(inputs(), |inputs| {
            let logits = inputs[0].clone().matmul(inputs[1].clone().transpose()) / temperature;
            let ids: Vec<i64> = tokens.iter().map(|token| i64::from(*token)).collect();
            let ids = Tensor::<CpuTrain, 2, burn::tensor::Int>::from_data(burn::tensor::TensorData::new(ids, [n, 1]), &Default::default());
            burn::tensor::activation::log_softmax(logits, 1).gather(1, ids).reshape([n])
        });
        same(fused, plain);
    }
}

#[test]
fn experts_equal_one_gated_mlp_per_row_and_its_gradients() {
    let (counts, d, inner) = ([3usize, 0, 5, 1], 12, 10);
    let rows: usize = counts.iter().sum();
    let inputs = || {
        vec![
            Tensor::from_inner(random(rows, d, 1)),
            Tensor::from_inner(random(4 * 2 * inner, d, 2)),
            Tensor::from_inner(random(4 * d, inner, 3)),
        ]
    };
    let fused = gradients(inputs(), |inputs| {
        let (gate_up, down) = (inputs[1].clone().reshape([4, 2 * inner, d]), inputs[2].clone().reshape([4, d, inner]));
        ops::experts(inputs[0].clone(), gate_up, down, &counts).reshape([rows * d])
    });
    let plain = gradients(inputs(), |inputs| {
        let experts = counts.iter().enumerate().flat_map(|(expert, count)| std::iter::repeat_n(expert, *count));
        let outs = experts.enumerate().map(|(row, expert)| {
            let both = inputs[0].clone().narrow(0, row, 1).matmul(inputs[1].clone().narrow(0, expert * 2 * inner, 2 * inner).transpose());
            let (gate, up) = (both.clone().narrow(1, 0, inner), both.narrow(1, inner, inner));
            let mixed = gate.clone() * burn::tensor::activation::sigmoid(gate) * up;
            mixed.matmul(inputs[2].clone().narrow(0, expert * d, d).transpose())
        });
        Tensor::cat(outs.collect(), 0).reshape([rows * d])
    });
    same(fused, plain);
}
