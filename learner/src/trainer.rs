//! The model under training: passes over samples, gradients summed on the host, one optimiser step.
//!
//! In: samples and, per micro-batch, the derivative of the loss to every trained token's log-prob (so that every
//! objective is a function of log-probs and none is written in tensors). Out: new weights and what was measured.
//!
//! Micro-batches run at once, one per lane of cores; their gradients are added up in the micro-batches' order, so that a
//! result depends on the number of lanes and on nothing else.

use std::ops::Range;

use hypereyes_policy::Error;
use hypereyes_policy::checkpoint::HostWeights;
use hypereyes_policy::config::ModelConfig;
use hypereyes_policy::device::Device;
use hypereyes_policy::score::{self, Sample};

use crate::optim::{AdamW, Gradients, OptimConfig};
use crate::passes::{self, Passes};

/// Derivative of the loss to the log-prob of each trained token, per sample.
pub type Coefficients = Vec<Vec<f32>>;

/// Fewest tokens worth a lane of their own: below, fixed costs of a pass and pictures encoded once more outweigh the core.
const LANE_TOKENS: usize = 512;

/// Where and how a model is passed through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Where.
    pub device: Device,
    /// Tokens of the micro-batches that run at once (at least one sample each).
    pub micro_tokens: usize,
}

/// Model, master weights and optimiser.
pub struct Trainer {
    config: ModelConfig,
    passes: Box<dyn Passes>,
    weights: HostWeights,
    /// Optimiser state.
    pub optimiser: AdamW,
    optim: OptimConfig,
    gradients: Gradients,
    micro_tokens: usize,
}

impl Trainer {
    /// Starts from weights.
    pub fn new(config: ModelConfig, weights: HostWeights, optim: OptimConfig, placement: Placement) -> Result<Self, Error> {
        let Placement { device, micro_tokens } = placement;
        let passes = passes::place(&config, &weights, device, micro_tokens / LANE_TOKENS)?;
        let optimiser = AdamW::new(&weights);
        Ok(Self { config, passes, weights, optimiser, optim, gradients: Gradients::new(), micro_tokens })
    }

    /// The master weights.
    pub fn weights(&self) -> &HostWeights {
        &self.weights
    }

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Passes over all samples and adds up gradients. `objective(run, log-probs)` is called per micro-batch with the run of
    /// samples and the log-probs of what they ask, at `temperature`, and answers with the coefficients.
    pub fn accumulate(
        &mut self,
        samples: &[Sample],
        temperature: f64,
        mut objective: impl FnMut(Range<usize>, &[Vec<f32>]) -> Coefficients,
    ) -> Result<(), Error> {
        let lanes = self.passes.lanes();
        let lengths: Vec<usize> = samples.iter().map(|sample| sample.tokens.len()).collect();
        for wave in score::even_runs(&lengths, self.micro_tokens / lanes, lanes).chunks(lanes) {
            let laid = wave.iter().map(|run| score::lay_out(&self.config, &samples[run.clone()])).collect::<Result<Vec<_>, _>>()?;
            let gradients = self.passes.wave(laid, temperature, &mut |number, values| {
                let run = wave[number].clone();
                objective(run.clone(), &score::per_sample(&samples[run], values)).concat()
            });
            for (name, gradient) in gradients.into_iter().flatten().flatten() {
                match self.gradients.get_mut(&name) {
                    Some(sum) => sum.iter_mut().zip(gradient).for_each(|(sum, part)| *sum += part),
                    None => drop(self.gradients.insert(name, gradient)),
                }
            }
        }
        Ok(())
    }

    /// Updates the weights with what was accumulated; returns the gradient norm before clipping (not finite: no update).
    pub fn step(&mut self, lr: f64) -> Result<f64, Error> {
        let gradients = std::mem::take(&mut self.gradients);
        let norm = self.optimiser.step(&mut self.weights, &gradients, &self.optim, lr);
        self.passes.load(&self.weights)?;
        Ok(norm)
    }
}
