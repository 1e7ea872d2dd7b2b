//! A layer of experts: a router sends every token to a few gated MLPs and mixes what they give by their probabilities.
//!
//! In and out: rows \[n, d\]. Which rows go where is decided on the host, so that each expert computes one matrix of rows.

use burn::module::{Module, Param};
use burn::tensor::activation::softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};

use crate::config::ExpertsConfig;
use crate::faults;
use crate::models::layers::{Init, Linear};
use crate::ops::{self, Kernels};

/// All experts of a layer.
#[derive(Module, Debug)]
struct Experts<B: Backend> {
    /// \[E, 2i, d\]: gate, then up.
    gate_up_proj: Param<Tensor<B, 3>>,
    /// \[E, d, i\]
    down_proj: Param<Tensor<B, 3>>,
}

/// Router and experts.
#[derive(Module, Debug)]
pub struct Moe<B: Backend> {
    gate: Linear<B>,
    experts: Experts<B>,
    per_token: usize,
}

impl<B: Kernels> Moe<B> {
    /// Fresh weights for width `d`.
    pub fn init(init: &Init<'_, B>, out: &Init<'_, B>, d: usize, config: &ExpertsConfig) -> Self {
        let (count, inner) = (config.count, config.intermediate_size);
        let experts = Experts { gate_up_proj: init.weight([count, 2 * inner, d]), down_proj: out.weight([count, d, inner]) };
        Self { gate: Linear::init(init, d, count, false), experts, per_token: config.per_token }
    }

    /// \[n, d\] to \[n, d\].
    pub fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let ([n, d], k, device) = (x.dims(), self.per_token, x.device());
        let probabilities = softmax(self.gate.forward(x.clone()), 1);
        let count = probabilities.dims()[1];
        let host = faults::floats_or_panic(probabilities.clone());
        let routes = Routes::of(&host, count, k);
        let index = |values: Vec<usize>| {
            let values: Vec<i64> = values.into_iter().map(|value| value as i64).collect();
            let length = values.len();
            Tensor::<B, 1, Int>::from_data(TensorData::new(values, [length]), &device)
        };
        let weights = probabilities.gather(1, index(routes.chosen).reshape([n, k]));
        let weights = weights.clone() / weights.sum_dim(1);
        let sorted = x.select(0, index(routes.order.iter().map(|slot| slot / k).collect()));
        let mixed = ops::experts(sorted, self.experts.gate_up_proj.val(), self.experts.down_proj.val(), &routes.counts);
        // Back from the experts' order to the tokens'.
        let mut place = vec![0; n * k];
        for (at, slot) in routes.order.iter().enumerate() {
            place[*slot] = at;
        }
        (mixed.select(0, index(place)).reshape([n, k, d]) * weights.reshape([n, k, 1])).sum_dim(1).reshape([n, d])
    }
}

/// Which token goes to which experts. A slot is a token and one of its experts: `token * k + rank`.
#[derive(Debug, PartialEq)]
struct Routes {
    /// Expert of each slot.
    chosen: Vec<usize>,
    /// Slots sorted by expert.
    order: Vec<usize>,
    /// Slots of each expert.
    counts: Vec<usize>,
}

impl Routes {
    /// The `k` most likely of `count` experts per token; of equals the one with the lower number.
    fn of(probabilities: &[f32], count: usize, k: usize) -> Self {
        let (mut chosen, mut counts) = (Vec::with_capacity(probabilities.len() / count * k), vec![0; count]);
        let mut experts: Vec<usize> = vec![];
        for row in probabilities.chunks_exact(count) {
            experts.clear();
            experts.extend(0..count);
            experts.sort_by(|a, b| row[*b].total_cmp(&row[*a]));
            for expert in &experts[..k] {
                chosen.push(*expert);
                counts[*expert] += 1;
            }
        }
        let mut order: Vec<usize> = (0..chosen.len()).collect();
        order.sort_by_key(|slot| chosen[*slot]);
        Self { chosen, order, counts }
    }
}

#[cfg(test)]
mod tests {
    use super::Routes;

    #[test]
    fn tokens_go_to_their_likeliest_experts() {
        let routes = Routes::of(&[0.1, 0.2, 0.7, 0.4, 0.4, 0.2], 3, 2);
        assert_eq!(routes.chosen, [2, 1, 0, 1]);
        assert_eq!((routes.order, routes.counts), (vec![2, 1, 3, 0], vec![1, 2, 1]));
    }
}
