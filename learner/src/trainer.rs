//! The model under training: passes over samples, gradients summed, one optimiser step.
//!
//! In: samples and, per micro-batch, the derivative of the loss to every trained token's log-prob (so that every
//! objective is a function of log-probs and none is written in tensors). Out: new weights and what was measured.
//!
//! Micro-batches run at once, one per lane of cores. Where gradients are summed and weights updated is [`Update`]'s business.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hypereyes_collective::{Collective, CollectiveError, Place, Tcp};
use hypereyes_policy::checkpoint::HostWeights;
use hypereyes_policy::config::ModelConfig;
use hypereyes_policy::device::Device;
use hypereyes_policy::frozen::{Said, Wanted};
use hypereyes_policy::score::{self, Sample};

use crate::optim::OptimConfig;
use crate::update::{self, Update};

/// Derivative of the loss to the log-prob of each trained token, per sample.
pub type Coefficients = Vec<Vec<f32>>;

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
    /// It was told to stop in the middle of a batch; weights and moments are those before it.
    #[error("the step was broken off")]
    BrokenOff,
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
    ranks: Box<dyn Collective>,
    update: Box<dyn Update>,
    optim: OptimConfig,
    micro_tokens: usize,
    /// Optimiser steps that were tried; names the calls that ranks make together.
    tried: u64,
    /// Whether passes are to be broken off, and may be.
    stop: Arc<AtomicBool>,
    interruptible: bool,
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
        weights: HostWeights,
        optim: OptimConfig,
        placement: Placement,
    ) -> Result<Self, hypereyes_policy::Error> {
        let update = update::place(&config, weights, &optim, placement, &*ranks, sharded)?;
        Ok(Self { config, ranks, update, optim, micro_tokens: placement.micro_tokens, tried: 0, stop: Arc::default(), interruptible: true })
    }

    /// Set, it breaks off the batch under way at the next micro-batch ([`TrainError::BrokenOff`]). Only for a rank that is alone: the
    /// others of a group would wait for it.
    pub fn stop(&self) -> Arc<AtomicBool> {
        self.stop.clone()
    }

    /// Whether [`Trainer::stop`] is heeded from now on. Whoever makes several updates of one batch takes this away between the first
    /// and the last, and gives it back.
    pub fn set_interruptible(&mut self, interruptible: bool) {
        self.interruptible = interruptible;
    }

    fn is_to_break_off(&self) -> bool {
        self.interruptible && self.stop.load(Ordering::Acquire)
    }

    /// What a checkpoint keeps: the master weights; with adapters, the matrices as they were and the adapters beside them.
    pub fn state(&self) -> HostWeights {
        self.update.state()
    }

    /// The master weights.
    pub fn weights(&self) -> &HostWeights {
        self.update.weights()
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
        self.tried = moments.steps;
        self.update.resume(moments);
    }

    /// All moments, from all ranks; every rank must call it.
    ///
    /// # Errors
    /// [`CollectiveError`] when a rank is missing.
    pub fn moments(&mut self) -> Result<Moments, CollectiveError> {
        self.update.moments(&mut *self.ranks, self.tried)
    }

    /// Passes over this rank's samples and adds up gradients. `objective(run, log-probs)` is called per micro-batch with the
    /// run of samples and the log-probs of what they ask, at `temperature`, and answers with the coefficients.
    ///
    /// # Errors
    /// [`TrainError::Model`] when a sample does not fit the model, [`TrainError::BrokenOff`]; nothing of the batch is then left.
    pub fn accumulate(
        &mut self,
        samples: &[Sample],
        temperature: f64,
        mut objective: impl FnMut(Range<usize>, &[Vec<f32>]) -> Coefficients,
    ) -> Result<(), TrainError> {
        let lanes = self.update.lanes();
        let lengths: Vec<usize> = samples.iter().map(|sample| sample.tokens.len()).collect();
        for wave in score::even_runs(&lengths, self.micro_tokens / lanes, lanes).chunks(lanes) {
            if self.is_to_break_off() {
                self.update.forget();
                return Err(TrainError::BrokenOff);
            }
            let laid = wave.iter().map(|run| score::lay_out(&self.config, &samples[run.clone()])).collect::<Result<Vec<_>, _>>();
            let laid = laid.inspect_err(|_| self.update.forget())?;
            self.update.accumulate(laid, temperature, &mut |number, values| {
                let run = wave[number].clone();
                objective(run.clone(), &score::per_sample(&samples[run], values)).concat()
            });
        }
        Ok(())
    }

    /// Log-probs of what this rank's samples ask, at `temperature`, by the policy as it is now: the numbers that
    /// [`Trainer::accumulate`] would show, without a tape, in its micro-batches.
    ///
    /// # Errors
    /// [`TrainError::Model`] when a sample does not fit the model, [`TrainError::BrokenOff`].
    pub fn logprobs(&self, samples: &[Sample], temperature: f64) -> Result<Vec<Vec<f32>>, TrainError> {
        let lanes = self.update.lanes();
        let lengths: Vec<usize> = samples.iter().map(|sample| sample.tokens.len()).collect();
        let mut logprobs = vec![];
        for wave in score::even_runs(&lengths, self.micro_tokens / lanes, lanes).chunks(lanes) {
            if self.is_to_break_off() {
                return Err(TrainError::BrokenOff);
            }
            let laid = wave.iter().map(|run| score::lay_out(&self.config, &samples[run.clone()])).collect::<Result<Vec<_>, _>>()?;
            let values = self.update.logprobs(laid, temperature);
            logprobs.extend(wave.iter().zip(values).flat_map(|(run, values)| score::per_sample(&samples[run.clone()], &values)));
        }
        Ok(logprobs)
    }

    /// What the policy says of the samples' asked tokens as it is now; nothing is trained.
    ///
    /// # Errors
    /// [`hypereyes_policy::Error`] when a sample does not fit the model.
    pub fn say(&self, samples: &[Sample], wanted: Wanted) -> Result<Vec<Said>, hypereyes_policy::Error> {
        self.update.say(samples, wanted)
    }

    /// Updates the weights with what all ranks accumulated; every rank must call it. Returns the gradient norm before
    /// clipping (not finite: no update).
    ///
    /// # Errors
    /// [`TrainError`] when the model or a rank fails; the trainer is then of no further use.
    pub fn step(&mut self, lr: f64) -> Result<f64, TrainError> {
        self.tried += 1;
        self.update.step(&mut *self.ranks, self.tried, &self.optim, lr)
    }
}
