//! The model under training: passes over samples, gradients summed, one optimiser step.
//!
//! In: samples and, per micro-batch, the derivative of the loss to every trained token's log-prob (so that every
//! objective is a function of log-probs and none is written in tensors). Out: new weights and what was measured.
//!
//! Micro-batches run at once, one per lane of cores. Where gradients are summed and weights updated is the [`OptimizerBackend`]'s business; what the
//! model says without being trained is its [`ModelRunner`]'s.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hypereyes_collective::{Collective, CollectiveError, RankInfo, Tcp};
use hypereyes_policy::checkpoint::HostWeights;
use hypereyes_policy::config::ModelConfig;
use hypereyes_policy::score::{self, Sample};

use crate::config::OptimConfig;
use crate::error::TrainError;
use crate::moments::Moments;
use crate::placement::Placement;
use crate::runner::ModelRunner;
use crate::update::{self, OptimizerBackend};

/// Derivative of the loss to the log-prob of each trained token, per sample.
pub type Coefficients = Vec<Vec<f32>>;

/// Model, master weights and optimiser.
pub struct Trainer {
    config: ModelConfig,
    ranks: Box<dyn Collective>,
    backend: Box<dyn OptimizerBackend>,
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
        let backend = update::place(&config, weights, &optim, placement, &*ranks, sharded)?;
        Ok(Self {
            config,
            ranks,
            backend,
            optim,
            micro_tokens: placement.micro_tokens,
            tried: 0,
            stop: Arc::default(),
            interruptible: true,
        })
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
        self.backend.state()
    }

    /// The master weights.
    pub fn weights(&self) -> &HostWeights {
        self.backend.weights()
    }

    /// The model on its device, to be asked: nothing is trained by it.
    pub fn runner(&self) -> &dyn ModelRunner {
        self.backend.runner()
    }

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Which of the ranks this is.
    pub fn place(&self) -> RankInfo {
        self.ranks.place()
    }

    /// The ranks, for what is said besides gradients.
    pub fn ranks(&mut self) -> &mut dyn Collective {
        &mut *self.ranks
    }

    /// Goes on with moments from a checkpoint; every rank takes its part of them.
    pub fn resume(&mut self, moments: &Moments) {
        self.tried = moments.steps;
        self.backend.resume(moments);
    }

    /// All moments, from all ranks; every rank must call it.
    ///
    /// # Errors
    /// [`CollectiveError`] when a rank is missing.
    pub fn moments(&mut self) -> Result<Moments, CollectiveError> {
        self.backend.moments(&mut *self.ranks, self.tried)
    }

    /// Which samples share a pass: as many as `micro_tokens` allows of one lane, laid end to end. A pass computes a row per token and none
    /// beside them; samples see nothing of each other, and each has positions of its own.
    pub fn passes(&self, samples: &[Sample]) -> Vec<Range<usize>> {
        let lanes = self.runner().lanes();
        let lengths: Vec<usize> = samples.iter().map(|sample| sample.tokens.len()).collect();
        score::even_runs(&lengths, self.micro_tokens / lanes, lanes)
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
        let lanes = self.runner().lanes();
        for wave in self.passes(samples).chunks(lanes) {
            if self.is_to_break_off() {
                self.backend.forget();
                return Err(TrainError::BrokenOff);
            }
            let laid = wave.iter().map(|run| score::lay_out(&self.config, &samples[run.clone()])).collect::<Result<Vec<_>, _>>();
            let laid = laid.inspect_err(|_| self.backend.forget())?;
            self.backend.accumulate(laid, temperature, &mut |number, values| {
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
        let lanes = self.runner().lanes();
        let mut logprobs = vec![];
        for wave in self.passes(samples).chunks(lanes) {
            if self.is_to_break_off() {
                return Err(TrainError::BrokenOff);
            }
            let laid = wave.iter().map(|run| score::lay_out(&self.config, &samples[run.clone()])).collect::<Result<Vec<_>, _>>()?;
            let values = self.runner().logprobs(laid, temperature);
            logprobs.extend(wave.iter().zip(values).flat_map(|(run, values)| score::per_sample(&samples[run.clone()], &values)));
        }
        Ok(logprobs)
    }

    /// Updates the weights with what all ranks accumulated; every rank must call it. Returns the gradient norm before
    /// clipping (not finite: no update).
    ///
    /// # Errors
    /// [`TrainError`] when the model or a rank fails; the trainer is then of no further use.
    pub fn step(&mut self, lr: f64) -> Result<f64, TrainError> {
        self.tried += 1;
        self.backend.step(&mut *self.ranks, self.tried, &self.optim, lr)
    }
}
