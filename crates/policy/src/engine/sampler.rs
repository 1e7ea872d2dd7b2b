//! Choosing the next token from one row of logits, seeded per turn of a sequence: a result does not depend on who shares the batch, nor on
//! the turns before.

use hypereyes_domain::{Sampling, turn_seed};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The random streams of one sequence, one per turn.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    seed: u64,
    /// Turns that have begun.
    turns: u64,
    random: ChaCha8Rng,
    /// A token that only the environment may write: the placeholder of pictures.
    banned: Option<u32>,
}

impl Sampler {
    /// A sampler with its own streams that never gives `banned`.
    pub fn new(sampling: Sampling, seed: u64, banned: Option<u32>) -> Self {
        Self { sampling, seed, turns: 0, random: ChaCha8Rng::seed_from_u64(seed), banned }
    }

    /// Begins the next turn.
    pub fn begin_turn(&mut self) {
        self.random = ChaCha8Rng::seed_from_u64(turn_seed(self.seed, self.turns));
        self.turns += 1;
    }

    /// Whether a turn has begun.
    pub fn is_in_turn(&self) -> bool {
        self.turns > 0
    }

    /// The token and its log-prob at the sampling temperature (1 when greedy), before top-p and the ban: what the learner
    /// computes for it.
    pub fn sample(&mut self, logits: &[f32]) -> (u32, f32) {
        let greedy = self.sampling.temperature <= 0.0;
        let temperature = if greedy { 1.0 } else { self.sampling.temperature };
        let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut weights: Vec<f64> = logits.iter().map(|logit| f64::from((logit - top) / temperature).exp()).collect();
        let total: f64 = weights.iter().sum();
        let forbidden = self.banned.and_then(|banned| weights.get_mut(banned as usize)).map_or(0.0, std::mem::take);
        let token = if greedy { argmax(&weights) } else { self.draw(&weights, total - forbidden) };
        (token as u32, (weights[token] / total).ln() as f32)
    }

    fn draw(&mut self, weights: &[f64], total: f64) -> usize {
        let point: f64 = self.random.random();
        let Sampling { top_k, top_p, min_p, .. } = self.sampling;
        if top_k == 0 && top_p >= 1.0 && min_p <= 0.0 {
            return pick(weights.iter().copied().enumerate(), point * total).unwrap_or_else(|| last_possible(weights));
        }
        let order = kept(weights, total, self.sampling);
        let kept: f64 = order.iter().map(|index| weights[*index]).sum();
        pick(order.iter().map(|index| (*index, weights[*index])), point * kept).unwrap_or(order[order.len() - 1])
    }
}

/// Tokens that are sorted at first; few more are ever kept, and a vocabulary is large.
const HEAD: usize = 64;

/// What top-k, then top-p of what that left, and min-p leave of weights that sum to `total`: the likeliest first, and of equals
/// the first. At least one.
fn kept(weights: &[f64], total: f64, Sampling { top_k, top_p, min_p, .. }: Sampling) -> Vec<usize> {
    let before = |a: &usize, b: &usize| weights[*b].total_cmp(&weights[*a]).then(a.cmp(b));
    let mut order: Vec<usize> = (0..weights.len()).collect();
    let mut mass = total;
    if (1..order.len()).contains(&top_k) {
        order.select_nth_unstable_by(top_k, before);
        order.truncate(top_k);
        order.sort_unstable_by(before);
        mass = order.iter().map(|index| weights[*index]).sum();
    }
    let enough = if top_p < 1.0 { mass * f64::from(top_p) } else { f64::INFINITY };
    let floor = weights.iter().copied().fold(0.0, f64::max) * f64::from(min_p);
    let mut head = HEAD.min(order.len());
    loop {
        if head < order.len() {
            order.select_nth_unstable_by(head, before);
        }
        order[..head].sort_unstable_by(before);
        let mut sum = 0.0;
        // What is below has not enough before it and is likely enough itself.
        let below = order[..head].iter().take_while(|index| {
            let wanted = sum < enough && weights[**index] >= floor;
            sum += weights[**index];
            wanted
        });
        let count = below.count();
        if count < head || head == order.len() {
            order.truncate(count.max(1));
            return order;
        }
        head = (8 * head).min(order.len());
    }
}

fn pick(weights: impl Iterator<Item = (usize, f64)>, mut point: f64) -> Option<usize> {
    for (index, weight) in weights {
        if point < weight {
            return Some(index);
        }
        point -= weight;
    }
    None
}

/// The last token that rounding can have left `point` at.
fn last_possible(weights: &[f64]) -> usize {
    weights.iter().rposition(|weight| *weight > 0.0).unwrap_or(0)
}

fn argmax(weights: &[f64]) -> usize {
    let mut best = 0;
    for (index, weight) in weights.iter().enumerate() {
        if *weight > weights[best] {
            best = index;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_follow_the_softmax() {
        let logits = [0.0f32, 1.0, 2.0];
        let mut sampler = Sampler::new(Sampling::of(1.0, 1.0), 7, None);
        let mut counts = [0usize; 3];
        for _ in 0..20_000 {
            let (token, logprob) = sampler.sample(&logits);
            counts[token as usize] += 1;
            assert!((logprob - (logits[token as usize] - 2.407_606)).abs() < 1e-5);
        }
        for (count, share) in counts.iter().zip([0.0900, 0.2447, 0.6652]) {
            assert!((*count as f64 / 20_000.0 - share).abs() < 0.015);
        }
    }

    #[test]
    fn a_turn_does_not_depend_on_those_before() {
        let logits = [0.3f32, 0.1, 0.2, 0.4];
        let turn = |sampler: &mut Sampler, tokens: usize| {
            sampler.begin_turn();
            (0..tokens).map(|_| sampler.sample(&logits).0).collect::<Vec<_>>()
        };
        let mut short = Sampler::new(Sampling::of(1.0, 1.0), 7, None);
        let mut long = Sampler::new(Sampling::of(1.0, 1.0), 7, None);
        assert_eq!(turn(&mut long, 50)[..5], turn(&mut short, 5));
        assert_eq!(turn(&mut long, 50), turn(&mut short, 50));
        // The third turn is the first of a sequence with its seed.
        assert_eq!(turn(&mut long, 9), turn(&mut Sampler::new(Sampling::of(1.0, 1.0), turn_seed(7, 2), None), 9));
    }

    #[test]
    fn top_p_drops_the_tail_and_greedy_takes_the_top() {
        let logits = [3.0f32, 2.0, -1.0];
        let mut nucleus = Sampler::new(Sampling::of(1.0, 0.7), 1, None);
        assert!((0..200).all(|_| nucleus.sample(&logits).0 == 0));
        assert_eq!(Sampler::new(Sampling::GREEDY, 1, None).sample(&[0.0, 5.0, 5.0]).0, 1);
    }

    #[test]
    fn each_truncation_keeps_what_it_says() {
        // Probabilities 0.64, 0.24, 0.09, 0.03.
        let logits = [3.0f32, 2.0, 1.0, 0.0];
        let given = |sampling: Sampling| {
            let mut sampler = Sampler::new(sampling, 5, None);
            let mut seen = [false; 4];
            (0..500).for_each(|_| seen[sampler.sample(&logits).0 as usize] = true);
            seen.iter().filter(|seen| **seen).count()
        };
        let all = Sampling::of(1.0, 1.0);
        assert_eq!(given(all), 4);
        assert_eq!(given(Sampling { top_k: 3, ..all }), 3);
        assert_eq!(given(Sampling { min_p: 0.3, ..all }), 2);
        assert_eq!(given(Sampling { top_p: 0.7, ..all }), 2);
        // The nucleus is taken of what top-k left: 0.64 of 0.88 is 0.73.
        assert_eq!(given(Sampling { top_k: 2, top_p: 0.7, ..all }), 1);
        assert_eq!(given(Sampling { top_k: 1, min_p: 1.0, ..all }), 1);
    }

    #[test]
    fn what_is_kept_is_what_sorting_the_whole_vocabulary_keeps() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        for size in [1, 2, 63, 64, 65, 1000, 3000] {
            // Coarse, so that there are equals.
            let weights: Vec<f64> = (0..size).map(|_| (8.0 * random.random::<f64>()).floor().exp2()).collect();
            let total: f64 = weights.iter().sum();
            let mut sorted: Vec<usize> = (0..size).collect();
            sorted.sort_by(|a, b| weights[*b].total_cmp(&weights[*a]).then(a.cmp(b)));
            for (top_k, top_p, min_p) in
                [(0, 0.1, 0.0), (0, 0.95, 0.0), (0, 1.0, 0.3), (5, 1.0, 0.0), (700, 0.9, 0.0), (90, 0.5, 0.6), (9999, 0.999, 0.0)]
            {
                let mut want = sorted.clone();
                want.truncate(if top_k == 0 { size } else { top_k });
                if top_p < 1.0 {
                    let enough = want.iter().map(|index| weights[*index]).sum::<f64>() * f64::from(top_p);
                    let mut sum = 0.0;
                    want.retain(|index| {
                        let wanted = sum < enough;
                        sum += weights[*index];
                        wanted
                    });
                }
                want.retain(|index| weights[*index] >= weights[sorted[0]] * f64::from(min_p));
                let sampling = Sampling { top_k, top_p, min_p, ..Sampling::of(1.0, 1.0) };
                assert_eq!(kept(&weights, total, sampling), want, "{size} tokens, {sampling:?}");
            }
        }
    }

    #[test]
    fn the_banned_token_is_never_given_and_costs_nobody_log_prob() {
        let logits = [1.0f32, 9.0, 1.0];
        for sampling in [Sampling::of(1.0, 1.0), Sampling::of(1.0, 0.5), Sampling::GREEDY] {
            let mut sampler = Sampler::new(sampling, 3, Some(1));
            for _ in 0..200 {
                let (token, logprob) = sampler.sample(&logits);
                assert_ne!(token, 1);
                assert!((logprob - (1.0 - 9.000_67)).abs() < 1e-3);
            }
        }
    }
}
