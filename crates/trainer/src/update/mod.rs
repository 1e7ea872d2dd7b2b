//! Where gradients are added up and weights updated: on the [`host`], where ranks can exchange them, or on the model's own
//! [`device`], where nothing has to travel.
//!
//! In: batches and what their log-probs are worth. Out: new weights, in the model and for whoever asks. Not known here:
//! samples, micro-batches, objectives.

mod device;
mod host;

use hypereyes_collective::{Collective, CollectiveError};
use hypereyes_policy::Error;
use hypereyes_policy::batch::Batch;
use hypereyes_policy::checkpoint::HostWeights;
use hypereyes_policy::config::ModelConfig;
use hypereyes_policy::score::Target;

use crate::config::OptimConfig;
use crate::error::TrainError;
use crate::lora::Lora;
use crate::moments::Moments;
use crate::placement::Placement;
use crate::runner::{self, LossFn, ModelRunner};

/// A model with its master weights, moments and summed gradients.
pub trait OptimizerBackend: Send {
    /// The model, as it is passed through.
    fn runner(&self) -> &dyn ModelRunner;

    /// Passes a wave of micro-batches through the model and back, and adds their gradients up in order.
    fn accumulate(&mut self, batches: Vec<(Batch, Vec<Target>)>, temperature: f64, loss: LossFn<'_>);

    /// Forgets what was added up since the last step.
    fn forget(&mut self);

    /// One update with what all ranks accumulated; `number` names the calls that they make together. Returns the gradient norm
    /// before clipping (not finite: no update).
    ///
    /// # Errors
    /// [`TrainError`] when the model or a rank fails; the update is then of no further use.
    fn step(&mut self, ranks: &mut dyn Collective, number: u64, config: &OptimConfig, lr: f64) -> Result<f64, TrainError>;

    /// The master weights.
    fn weights(&self) -> &HostWeights;

    /// What a checkpoint keeps: the master weights; with adapters, the matrices as they were and the adapters beside them.
    fn state(&self) -> HostWeights;

    /// All moments, from all ranks; every rank must call it.
    ///
    /// # Errors
    /// [`CollectiveError`] when a rank is missing.
    fn moments(&mut self, ranks: &mut dyn Collective, number: u64) -> Result<Moments, CollectiveError>;

    /// Goes on with moments from a checkpoint; every rank takes its part of them.
    fn resume(&mut self, moments: &Moments);
}

/// Fewest tokens worth a lane of their own: below, fixed costs of a pass and pictures encoded once more outweigh the core.
const LANE_TOKENS: usize = 512;

/// Puts a model where `placement` says, with its optimiser: beside the model where that is a GPU's and nothing has to leave it
/// (neither other ranks nor adapters, which are made on the host), else on the host. `sharded` ranks keep a shard of the
/// optimiser's state each.
///
/// # Errors
/// [`Error`] when the weights, the settings or the device do not fit.
pub fn place(
    config: &ModelConfig,
    mut weights: HostWeights,
    optim: &OptimConfig,
    placement: Placement,
    ranks: &dyn Collective,
    sharded: bool,
) -> Result<Box<dyn OptimizerBackend>, Error> {
    let bad = |reason| Error::Input(format!("optim: {reason}"));
    optim.check(&weights).map_err(bad)?;
    let adapters = Lora::split(&mut weights, &optim.lora).map_err(bad)?;
    if adapters.is_none() && ranks.place().world == 1 && !placement.device.has_lanes() {
        return device::place(config, weights, optim, placement.device);
    }
    let most_lanes = placement.micro_tokens / LANE_TOKENS;
    let runner = runner::place(config, &weights, placement.device, most_lanes)?;
    Ok(Box::new(host::Host::new(runner, weights, adapters, optim, ranks.place(), sharded)))
}
