//! Gradients of the policy's kernels for Burn's tape. Each keeps its inputs, not its intermediates.

use burn::backend::Autodiff;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::tensor::ops::FloatTensor;

use super::{Asked, Kernels, Segments};

#[derive(Debug)]
struct Project;

impl<B: Kernels> Backward<B, 2> for Project {
    type State = (NodeId, NodeId);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let nodes = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        let x = checkpointer.retrieve_node_output::<FloatTensor<B>>(ops.state.0);
        let weight = checkpointer.retrieve_node_output::<FloatTensor<B>>(ops.state.1);
        for (node, gradient) in nodes.into_iter().zip(B::project_backward(x, weight, grad)) {
            if let Some(node) = node {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

#[derive(Debug)]
struct RmsNorm;

impl<B: Kernels> Backward<B, 2> for RmsNorm {
    type State = (NodeId, NodeId, f64);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let [x_node, weight_node] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        let (x, weight, eps) = ops.state;
        let x = checkpointer.retrieve_node_output::<FloatTensor<B>>(x);
        let weight = checkpointer.retrieve_node_output::<FloatTensor<B>>(weight);
        let [dx, dweight] = B::rms_norm_backward(x, weight, eps, grad);
        if let Some(node) = x_node {
            grads.register::<B>(node.id, dx);
        }
        if let Some(node) = weight_node {
            grads.register::<B>(node.id, dweight);
        }
    }
}

#[derive(Debug)]
struct Rotate;

impl<B: Kernels> Backward<B, 1> for Rotate {
    type State = (FloatTensor<B>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [node] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        let (cos, sin) = ops.state;
        if let Some(node) = node {
            // A rotation's transpose is the rotation by the opposite angle.
            grads.register::<B>(node.id, B::rotate(grad, cos, B::float_neg(sin)));
        }
    }
}

#[derive(Debug)]
struct Swiglu;

impl<B: Kernels> Backward<B, 2> for Swiglu {
    type State = (NodeId, NodeId);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let [gate_node, up_node] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        let gate = checkpointer.retrieve_node_output::<FloatTensor<B>>(ops.state.0);
        let up = checkpointer.retrieve_node_output::<FloatTensor<B>>(ops.state.1);
        let [dgate, dup] = B::swiglu_backward(gate, up, grad);
        if let Some(node) = gate_node {
            grads.register::<B>(node.id, dgate);
        }
        if let Some(node) = up_node {
            grads.register::<B>(node.id, dup);
        }
    }
}

#[derive(Debug)]
struct Attention;

impl<B: Kernels> Backward<B, 3> for Attention {
    type State = (NodeId, NodeId, NodeId, Segments);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let [q_node, k_node, v_node] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        let (q, k, v, segments) = ops.state;
        let q = checkpointer.retrieve_node_output::<FloatTensor<B>>(q);
        let k = checkpointer.retrieve_node_output::<FloatTensor<B>>(k);
        let v = checkpointer.retrieve_node_output::<FloatTensor<B>>(v);
        let [dq, dk, dv] = B::segment_attention_backward(q, k, v, &segments, grad);
        for (node, gradient) in [(q_node, dq), (k_node, dk), (v_node, dv)] {
            if let Some(node) = node {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

#[derive(Debug)]
struct Experts;

impl<B: Kernels> Backward<B, 3> for Experts {
    type State = (NodeId, NodeId, NodeId, Vec<usize>);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let nodes = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        let (x, gate_up, down, counts) = ops.state;
        let x = checkpointer.retrieve_node_output::<FloatTensor<B>>(x);
        let gate_up = checkpointer.retrieve_node_output::<FloatTensor<B>>(gate_up);
        let down = checkpointer.retrieve_node_output::<FloatTensor<B>>(down);
        for (node, gradient) in nodes.into_iter().zip(B::experts_backward(x, gate_up, down, &counts, grad)) {
            if let Some(node) = node {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

#[derive(Debug)]
struct TokenLogprobs;

impl<B: Kernels> Backward<B, 2> for TokenLogprobs {
    type State = (NodeId, NodeId, Asked);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let nodes = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        let (hidden, head, asked) = ops.state;
        let hidden = checkpointer.retrieve_node_output::<FloatTensor<B>>(hidden);
        let head = checkpointer.retrieve_node_output::<FloatTensor<B>>(head);
        for (node, gradient) in nodes.into_iter().zip(B::token_logprobs_backward(hidden, head, &asked, grad)) {
            if let Some(node) = node {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: Kernels, C: CheckpointStrategy> Kernels for Autodiff<B, C> {
    fn project(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        match Project.prepare::<C>([x.node.clone(), weight.node.clone()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let state = (prep.checkpoint(&x), prep.checkpoint(&weight));
                prep.finish(state, B::project(x.primitive, weight.primitive))
            }
            OpsKind::UnTracked(prep) => prep.finish(B::project(x.primitive, weight.primitive)),
        }
    }

    fn experts(x: FloatTensor<Self>, gate_up: FloatTensor<Self>, down: FloatTensor<Self>, counts: &[usize]) -> FloatTensor<Self> {
        match Experts.prepare::<C>([x.node.clone(), gate_up.node.clone(), down.node.clone()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let state = (prep.checkpoint(&x), prep.checkpoint(&gate_up), prep.checkpoint(&down), counts.to_vec());
                prep.finish(state, B::experts(x.primitive, gate_up.primitive, down.primitive, counts))
            }
            OpsKind::UnTracked(prep) => prep.finish(B::experts(x.primitive, gate_up.primitive, down.primitive, counts)),
        }
    }

    fn token_logprobs(hidden: FloatTensor<Self>, head: FloatTensor<Self>, asked: &Asked) -> FloatTensor<Self> {
        match TokenLogprobs.prepare::<C>([hidden.node.clone(), head.node.clone()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let state = (prep.checkpoint(&hidden), prep.checkpoint(&head), asked.clone());
                prep.finish(state, B::token_logprobs(hidden.primitive, head.primitive, asked))
            }
            OpsKind::UnTracked(prep) => prep.finish(B::token_logprobs(hidden.primitive, head.primitive, asked)),
        }
    }

    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        match RmsNorm.prepare::<C>([x.node.clone(), weight.node.clone()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let state = (prep.checkpoint(&x), prep.checkpoint(&weight), eps);
                prep.finish(state, B::rms_norm(x.primitive, weight.primitive, eps))
            }
            OpsKind::UnTracked(prep) => prep.finish(B::rms_norm(x.primitive, weight.primitive, eps)),
        }
    }

    fn rotate(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>) -> FloatTensor<Self> {
        let (cos, sin) = (cos.primitive, sin.primitive);
        match Rotate.prepare::<C>([x.node.clone()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((cos.clone(), sin.clone()), B::rotate(x.primitive, cos, sin)),
            OpsKind::UnTracked(prep) => prep.finish(B::rotate(x.primitive, cos, sin)),
        }
    }

    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        match Swiglu.prepare::<C>([gate.node.clone(), up.node.clone()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let state = (prep.checkpoint(&gate), prep.checkpoint(&up));
                prep.finish(state, B::swiglu(gate.primitive, up.primitive))
            }
            OpsKind::UnTracked(prep) => prep.finish(B::swiglu(gate.primitive, up.primitive)),
        }
    }

    fn segment_attention(q: FloatTensor<Self>, k: FloatTensor<Self>, v: FloatTensor<Self>, segments: &Segments) -> FloatTensor<Self> {
        match Attention.prepare::<C>([q.node.clone(), k.node.clone(), v.node.clone()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let state = (prep.checkpoint(&q), prep.checkpoint(&k), prep.checkpoint(&v), segments.clone());
                prep.finish(state, B::segment_attention(q.primitive, k.primitive, v.primitive, segments))
            }
            OpsKind::UnTracked(prep) => prep.finish(B::segment_attention(q.primitive, k.primitive, v.primitive, segments)),
        }
    }
}
