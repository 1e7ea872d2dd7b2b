//! Log-probs of given tokens, for prompts and for conventions in which the engine does not tell them. In: tokens, pictures. Out: what
//! the model says of them. One at a time, beside the engine.

use std::sync::Arc;

use hypereyes_domain::Sampling;
use hypereyes_pictures::Patches;
use hypereyes_policy::checkpoint::HostWeights;
use hypereyes_policy::config::ModelConfig;
use hypereyes_policy::device::Device;
use hypereyes_policy::frozen::{Frozen, MAX_TOP, ScoreOptions, freeze};
use hypereyes_policy::score::Sample;
use parking_lot::Mutex;

use crate::asked::{Refused, Scored};

/// A copy of the model that is only asked.
pub(crate) struct Scorer(Mutex<Box<dyn Frozen>>);

impl Scorer {
    pub(crate) fn new(model: &ModelConfig, weights: &HostWeights) -> Result<Self, Refused> {
        let frozen = freeze(model, weights, Device::Cpu, 1).map_err(|error| Refused::server(error.to_string()))?;
        Ok(Self(Mutex::new(frozen)))
    }

    /// What is said of the tokens from `from` on, at a temperature, with the `top` likeliest at each place. The first token of all is
    /// spoken of without a log-prob.
    pub(crate) async fn of(
        self: Arc<Self>,
        tokens: Vec<u32>,
        pictures: Vec<Arc<Patches>>,
        from: usize,
        wanted: ScoreOptions,
    ) -> Result<Vec<Scored>, Refused> {
        let work = move || {
            let sample = Sample { asked: (from.max(1)..tokens.len()).collect(), tokens, pictures, trunk: 0 };
            let said = self.0.lock().score(std::slice::from_ref(&sample), wanted);
            let said = said.map_err(|error| Refused::request(error.to_string()))?.remove(0);
            let mut top = said.top.chunks(wanted.top.max(1));
            let first = (from == 0).then(|| sample.tokens.first()).flatten();
            let first = first.map(|token| Scored { token: *token, logprob: None, top: vec![] });
            let rest = sample.asked.iter().zip(&said.logprobs).map(|(at, logprob)| Scored {
                token: sample.tokens[*at],
                logprob: Some(*logprob),
                top: top.next().unwrap_or_default().to_vec(),
            });
            Ok(first.into_iter().chain(rest).collect())
        };
        tokio::task::spawn_blocking(work).await.map_err(|died| Refused::server(died.to_string()))?
    }
}

/// The log-prob of what is left of a distribution after truncation: of `top`, its likeliest tokens in order, those that top-k, top-p and
/// min-p keep.
///
/// # Errors
/// [`Refused`] where it keeps more than can be told.
pub(crate) fn kept(top: &[(u32, f32)], vocabulary: usize, sampling: Sampling) -> Result<f64, Refused> {
    let Sampling { top_k, top_p, min_p, .. } = sampling;
    let mut likeliest: Vec<f64> = top.iter().map(|(_, logprob)| f64::from(*logprob).exp()).collect();
    let mut mass = 1.0;
    if (1..vocabulary).contains(&top_k) {
        likeliest.truncate(top_k);
        mass = likeliest.iter().sum();
    }
    let enough = if top_p < 1.0 { mass * f64::from(top_p) } else { f64::INFINITY };
    let floor = likeliest.first().copied().unwrap_or_default() * f64::from(min_p);
    let mut sum = 0.0;
    let mut count = 0;
    for probability in &likeliest {
        if sum >= enough || *probability < floor {
            return Ok(sum.ln());
        }
        sum += probability;
        count += 1;
    }
    let all = count == top_k || count == vocabulary || sum >= enough;
    if all { Ok(sum.ln()) } else { Err(Refused::request(format!("a truncation that keeps more than {MAX_TOP} tokens is not told"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_truncation_keeps_is_what_the_sampler_keeps() {
        let top: Vec<(u32, f32)> = [0.64f32, 0.24, 0.08, 0.04].iter().zip(0..).map(|(share, id)| (id, share.ln())).collect();
        let all = Sampling::of(1.0, 1.0);
        let share = |sampling| kept(&top, 4, sampling).expect("told").exp();
        for (sampling, want) in [
            (all, 1.0),
            (Sampling { top_p: 0.7, ..all }, 0.88),
            (Sampling { top_k: 2, ..all }, 0.88),
            // The nucleus is taken of what top-k left: 0.64 of 0.88 is 0.73.
            (Sampling { top_k: 2, top_p: 0.7, ..all }, 0.64),
            (Sampling { min_p: 0.1, ..all }, 0.96),
        ] {
            assert!((share(sampling) - want).abs() < 1e-6, "{sampling:?}");
        }
        assert!(kept(&top, 9, all).is_err());
    }
}
