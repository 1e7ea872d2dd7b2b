//! A mixture of experts' gated MLPs over rows that are sorted by expert.
//!
//! In: rows \[m, d\], how many of them go to each expert, and all experts' weights (`gate_up` \[E, 2i, d\], `down`
//! \[E, d, i\]). Out: \[m, d\], and the gradients to all three. One operation of the tape, because a slice per expert would
//! each leave a gradient as large as all experts together.

use burn::tensor::Tensor;
use burn::tensor::ops::FloatTensor;

use super::{Kernels, project, unwrap, wrap};

/// One expert's share of the work.
struct Part<B: Kernels> {
    /// First row and rows.
    at: (usize, usize),
    /// \[2i, d\]
    gate_up: Tensor<B, 2>,
    /// \[d, i\]
    down: Tensor<B, 2>,
}

/// The experts that have rows, in order.
fn parts<B: Kernels>(gate_up: &Tensor<B, 3>, down: &Tensor<B, 3>, counts: &[usize]) -> Vec<Option<Part<B>>> {
    let ([_, wide, d], [_, _, inner]) = (gate_up.dims(), down.dims());
    let mut start = 0;
    let part = |(expert, count): (usize, &usize)| {
        let at = (start, *count);
        start += count;
        (*count > 0).then(|| Part {
            at,
            gate_up: gate_up.clone().narrow(0, expert, 1).reshape([wide, d]),
            down: down.clone().narrow(0, expert, 1).reshape([d, inner]),
        })
    };
    counts.iter().enumerate().map(part).collect()
}

impl<B: Kernels> Part<B> {
    fn rows(&self, of: &Tensor<B, 2>) -> Tensor<B, 2> {
        of.clone().narrow(0, self.at.0, self.at.1)
    }

    /// Gate and up projections of rows.
    fn open(&self, x: Tensor<B, 2>) -> (Tensor<B, 2>, Tensor<B, 2>) {
        let both = project(x, self.gate_up.clone());
        let inner = both.dims()[1] / 2;
        (both.clone().narrow(1, 0, inner), both.narrow(1, inner, inner))
    }
}

/// Every row through its expert.
pub fn forward<B: Kernels>(x: FloatTensor<B>, gate_up: FloatTensor<B>, down: FloatTensor<B>, counts: &[usize]) -> FloatTensor<B> {
    let (x, gate_up, down) = (wrap::<B, 2>(x), wrap::<B, 3>(gate_up), wrap::<B, 3>(down));
    let one = |part: Part<B>| {
        let (gate, up) = part.open(part.rows(&x));
        project(wrap::<B, 2>(B::swiglu(unwrap(gate), unwrap(up))), part.down)
    };
    unwrap(Tensor::cat(parts(&gate_up, &down, counts).into_iter().flatten().map(one).collect(), 0))
}

/// Gradients to `x`, `gate_up` and `down`; what is inside the experts is computed again.
pub fn backward<B: Kernels>(
    x: FloatTensor<B>,
    gate_up: FloatTensor<B>,
    down: FloatTensor<B>,
    counts: &[usize],
    grad: FloatTensor<B>,
) -> [FloatTensor<B>; 3] {
    let (x, grad, gate_up, down) = (wrap::<B, 2>(x), wrap::<B, 2>(grad), wrap::<B, 3>(gate_up), wrap::<B, 3>(down));
    let ([_, wide, d], [_, _, inner], device) = (gate_up.dims(), down.dims(), x.device());
    let (mut dx, mut dgate_up, mut ddown) = (vec![], vec![], vec![]);
    for part in parts(&gate_up, &down, counts) {
        let Some(part) = part else {
            dgate_up.push(Tensor::zeros([1, wide, d], &device));
            ddown.push(Tensor::zeros([1, d, inner], &device));
            continue;
        };
        let (x, grad) = (part.rows(&x), part.rows(&grad));
        let (gate, up) = part.open(x.clone());
        let mixed = wrap::<B, 2>(B::swiglu(unwrap(gate.clone()), unwrap(up.clone())));
        ddown.push(grad.clone().transpose().matmul(mixed).reshape([1, d, inner]));
        let [dgate, dup] = B::swiglu_backward(unwrap(gate), unwrap(up), unwrap(grad.matmul(part.down)));
        let dboth = Tensor::cat(vec![wrap::<B, 2>(dgate), wrap::<B, 2>(dup)], 1);
        dgate_up.push(dboth.clone().transpose().matmul(x).reshape([1, wide, d]));
        dx.push(dboth.matmul(part.gate_up));
    }
    [unwrap(Tensor::cat(dx, 0)), unwrap(Tensor::cat(dgate_up, 0)), unwrap(Tensor::cat(ddown, 0))]
}
