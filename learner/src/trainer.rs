//! The model under training: passes over samples, gradients summed on the host, one optimiser step.
//!
//! In: samples and, per micro-batch, the derivative of the loss to every trained token's log-prob (so that every
//! objective is a function of log-probs and none is written in tensors). Out: new weights and what was measured.
//!
//! Micro-batches run at once, one per lane of cores; their gradients are added up in the micro-batches' order, then over the
//! ranks in theirs, so that a result depends on how many there are of both and on nothing else. Where
//! ranks are sharded, each keeps the optimiser's state of its shard only (ZeRO, stage 2: gradients are scattered).

use std::ops::Range;

use hypereyes_collective::{Collective, CollectiveError, Place, Tcp};
use hypereyes_policy::checkpoint::HostWeights;
use hypereyes_policy::config::ModelConfig;
use hypereyes_policy::device::Device;
use hypereyes_policy::frozen::{Said, Wanted};
use hypereyes_policy::score::{self, Sample};

use crate::layout::Layout;
use crate::lora::Lora;
use crate::optim::{self, AdamW, OptimConfig};
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

/// What can stop training.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The model, a sample or the settings.
    #[error(transparent)]
    Model(#[from] hypereyes_policy::Error),
    /// Another rank.
    #[error(transparent)]
    Ranks(#[from] CollectiveError),
}

/// Moments of all trainable parameters, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moments {
    /// Steps taken.
    pub steps: u64,
    /// First moments.
    pub first: HostWeights,
    /// Second moments.
    pub second: HostWeights,
}

/// Model, master weights and optimiser.
pub struct Trainer {
    config: ModelConfig,
    passes: Box<dyn Passes>,
    ranks: Box<dyn Collective>,
    /// Whether each rank keeps a shard of the optimiser's state, or all of it.
    sharded: bool,
    weights: HostWeights,
    /// What is trained instead of the weights themselves.
    adapters: Option<(Lora, HostWeights)>,
    layout: Layout,
    optimiser: AdamW,
    optim: OptimConfig,
    gradients: Vec<f32>,
    micro_tokens: usize,
    /// Optimiser steps that were tried; names the calls that ranks make together.
    tried: u64,
}

impl Trainer {
    /// Starts from weights, alone.
    ///
    /// # Errors
    /// [`hypereyes_policy::Error`] when the weights, the settings or the device do not fit.
    pub fn new(
        config: ModelConfig,
        weights: HostWeights,
        optim: OptimConfig,
        placement: Placement,
    ) -> Result<Self, hypereyes_policy::Error> {
        Self::among(Box::new(Tcp::alone()), true, config, weights, optim, placement)
    }

    /// Starts from weights, as one of the ranks of a group. All start from the same. Adapters among the weights are gone on
    /// with (see [`Trainer::state`]).
    ///
    /// # Errors
    /// As [`Trainer::new`].
    pub fn among(
        ranks: Box<dyn Collective>,
        sharded: bool,
        config: ModelConfig,
        mut weights: HostWeights,
        optim: OptimConfig,
        placement: Placement,
    ) -> Result<Self, hypereyes_policy::Error> {
        let Placement { device, micro_tokens } = placement;
        let bad = |reason| hypereyes_policy::Error::Input(format!("optim: {reason}"));
        optim.check(&weights).map_err(bad)?;
        let adapters = Lora::split(&mut weights, &optim.lora).map_err(bad)?;
        let passes = passes::place(&config, &weights, device, micro_tokens / LANE_TOKENS)?;
        let layout = Layout::of(adapters.as_ref().map_or(&weights, |(_, adapters)| adapters), &optim);
        let shard = if sharded { ranks.place().shard(layout.total()) } else { 0..layout.total() };
        let optimiser = AdamW::new(shard);
        let gradients = vec![0.0; layout.total()];
        Ok(Self { config, passes, ranks, sharded, weights, adapters, layout, optimiser, optim, gradients, micro_tokens, tried: 0 })
    }

    /// What a checkpoint keeps: the master weights; with adapters, the matrices as they were and the adapters beside them.
    pub fn state(&self) -> HostWeights {
        self.adapters.as_ref().map_or_else(|| self.weights.clone(), |(lora, adapters)| lora.apart(adapters, &self.weights))
    }

    /// The master weights.
    pub fn weights(&self) -> &HostWeights {
        &self.weights
    }

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Which of the ranks this is.
    pub fn place(&self) -> Place {
        self.ranks.place()
    }

    /// The ranks, for what is said besides gradients.
    pub fn ranks(&mut self) -> &mut dyn Collective {
        &mut *self.ranks
    }

    /// Goes on with moments from a checkpoint; every rank takes its part of them.
    pub fn resume(&mut self, moments: &Moments) {
        let shard = self.optimiser.shard.clone();
        self.tried = moments.steps;
        self.optimiser.steps = moments.steps;
        self.optimiser.first = self.layout.shard_of(&moments.first, shard.clone());
        self.optimiser.second = self.layout.shard_of(&moments.second, shard);
    }

    /// All moments, from all ranks; every rank must call it.
    ///
    /// # Errors
    /// [`CollectiveError`] when a rank is missing.
    pub fn moments(&mut self) -> Result<Moments, CollectiveError> {
        let (total, steps) = (self.layout.total(), self.optimiser.steps);
        let mut whole = |part: &Vec<f32>| match self.sharded {
            true => self.ranks.all_gather(self.tried, part.clone(), total),
            false => Ok(part.clone()),
        };
        let (first, second) = (whole(&self.optimiser.first)?, whole(&self.optimiser.second)?);
        Ok(Moments { steps, first: self.layout.named(&first), second: self.layout.named(&second) })
    }

    /// Passes over this rank's samples and adds up gradients. `objective(run, log-probs)` is called per micro-batch with the
    /// run of samples and the log-probs of what they ask, at `temperature`, and answers with the coefficients.
    ///
    /// # Errors
    /// [`hypereyes_policy::Error`] when a sample does not fit the model.
    pub fn accumulate(
        &mut self,
        samples: &[Sample],
        temperature: f64,
        mut objective: impl FnMut(Range<usize>, &[Vec<f32>]) -> Coefficients,
    ) -> Result<(), hypereyes_policy::Error> {
        let lanes = self.passes.lanes();
        let lengths: Vec<usize> = samples.iter().map(|sample| sample.tokens.len()).collect();
        for wave in score::even_runs(&lengths, self.micro_tokens / lanes, lanes).chunks(lanes) {
            let laid = wave.iter().map(|run| score::lay_out(&self.config, &samples[run.clone()])).collect::<Result<Vec<_>, _>>()?;
            let gradients = self.passes.wave(laid, temperature, &mut |number, values| {
                let run = wave[number].clone();
                objective(run.clone(), &score::per_sample(&samples[run], values)).concat()
            });
            for gradients in gradients.iter().flatten() {
                match &self.adapters {
                    None => self.layout.add(gradients, &mut self.gradients),
                    Some((lora, adapters)) => self.layout.add(&lora.project(gradients, adapters), &mut self.gradients),
                }
            }
        }
        Ok(())
    }

    /// What the policy says of the samples' asked tokens as it is now; nothing is trained.
    ///
    /// # Errors
    /// [`hypereyes_policy::Error`] when a sample does not fit the model.
    pub fn say(&self, samples: &[Sample], wanted: Wanted) -> Result<Vec<Said>, hypereyes_policy::Error> {
        self.passes.say(samples, wanted)
    }

    /// Updates the weights with what all ranks accumulated; every rank must call it. Returns the gradient norm before
    /// clipping (not finite: no update).
    ///
    /// # Errors
    /// [`TrainError`] when the model or a rank fails; the trainer is then of no further use.
    pub fn step(&mut self, lr: f64) -> Result<f64, TrainError> {
        self.tried += 1;
        let (step, total) = (self.tried, self.layout.total());
        let row = std::mem::replace(&mut self.gradients, vec![0.0; total]);
        let shard = self.ranks.reduce_scatter(step, row)?;
        let norm = self.sum(step, optim::squares(&shard))?.sqrt();
        let shard = if self.sharded { shard } else { self.ranks.all_gather(step, shard, total)? };
        let gathers = self.sharded && self.place().world > 1;
        let trained = self.adapters.as_mut().map_or(&mut self.weights, |(_, adapters)| adapters);
        self.optimiser.step(&self.layout, trained, &shard, norm, &self.optim, lr);
        if gathers {
            let own = self.layout.read(trained, self.optimiser.shard.clone());
            let all = self.ranks.all_gather(step, own, total)?;
            self.layout.write(&all, trained);
        }
        if let Some((lora, adapters)) = &self.adapters {
            lora.merge(adapters, &mut self.weights);
        }
        self.passes.load(&self.weights)?;
        Ok(norm)
    }

    /// The sum of everybody's value, added in the order of ranks.
    fn sum(&mut self, step: u64, value: f64) -> Result<f64, CollectiveError> {
        let values = self.ranks.gather(step, value.to_le_bytes().to_vec())?;
        let number = |bytes: &[u8]| bytes.try_into().map_or(f64::NAN, f64::from_le_bytes);
        let sum: f64 = values.iter().map(|bytes| number(bytes)).sum();
        Ok(number(&self.ranks.broadcast(step, sum.to_le_bytes().to_vec())?))
    }
}
