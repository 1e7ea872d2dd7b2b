//! Masters, moments and summed gradients on the host.
//!
//! In: gradients by name, which the model's device has given back. Out: new masters, which it is given. Gradients are added up
//! in the batches' order, then over the ranks in theirs, so that a result depends on how many there are of both and on nothing
//! else. Where ranks are sharded, each keeps the optimiser's state of its shard only (ZeRO, stage 2: gradients are scattered).

use hypereyes_collective::{Collective, CollectiveError, RankInfo};
use hypereyes_policy::batch::Batch;
use hypereyes_policy::checkpoint::HostWeights;
use hypereyes_policy::score::Target;

use super::OptimizerBackend;
use crate::config::OptimConfig;
use crate::error::TrainError;
use crate::layout::Layout;
use crate::lora::Lora;
use crate::moments::Moments;
use crate::optim::{self, AdamW};
use crate::runner::{LossFn, ModelRunner};

pub(super) struct Host {
    runner: Box<dyn ModelRunner>,
    /// Whether each rank keeps a shard of the optimiser's state, or all of it.
    sharded: bool,
    weights: HostWeights,
    /// What is trained instead of the weights themselves.
    adapters: Option<(Lora, HostWeights)>,
    layout: Layout,
    optimiser: AdamW,
    gradients: Vec<f32>,
}

impl Host {
    pub(super) fn new(
        runner: Box<dyn ModelRunner>,
        weights: HostWeights,
        adapters: Option<(Lora, HostWeights)>,
        optim: &OptimConfig,
        place: RankInfo,
        sharded: bool,
    ) -> Self {
        let layout = Layout::of(adapters.as_ref().map_or(&weights, |(_, adapters)| adapters), optim);
        let shard = if sharded { place.shard(layout.total()) } else { 0..layout.total() };
        let gradients = vec![0.0; layout.total()];
        Self { runner, sharded, weights, adapters, optimiser: AdamW::new(shard), layout, gradients }
    }
}

impl OptimizerBackend for Host {
    fn runner(&self) -> &dyn ModelRunner {
        &*self.runner
    }

    fn accumulate(&mut self, batches: Vec<(Batch, Vec<Target>)>, temperature: f64, loss: LossFn<'_>) {
        for gradients in self.runner.gradients(batches, temperature, loss).iter().flatten() {
            match &self.adapters {
                None => self.layout.add(gradients, &mut self.gradients),
                Some((lora, adapters)) => self.layout.add(&lora.project(gradients, adapters), &mut self.gradients),
            }
        }
    }

    fn forget(&mut self) {
        self.gradients.fill(0.0);
    }

    fn step(&mut self, ranks: &mut dyn Collective, number: u64, config: &OptimConfig, lr: f64) -> Result<f64, TrainError> {
        let total = self.layout.total();
        let row = std::mem::replace(&mut self.gradients, vec![0.0; total]);
        let shard = ranks.reduce_scatter(number, row)?;
        let norm = sum(ranks, number, optim::squares(&shard))?.sqrt();
        let shard = if self.sharded { shard } else { ranks.all_gather(number, shard, total)? };
        let gathers = self.sharded && ranks.place().world > 1;
        let trained = self.adapters.as_mut().map_or(&mut self.weights, |(_, adapters)| adapters);
        self.optimiser.step(&self.layout, trained, &shard, norm, config, lr);
        if gathers {
            let own = self.layout.read(trained, self.optimiser.shard.clone());
            let all = ranks.all_gather(number, own, total)?;
            self.layout.write(&all, trained);
        }
        if let Some((lora, adapters)) = &self.adapters {
            lora.merge(adapters, &mut self.weights);
        }
        self.runner.load(&self.weights)?;
        Ok(norm)
    }

    fn weights(&self) -> &HostWeights {
        &self.weights
    }

    fn state(&self) -> HostWeights {
        self.adapters.as_ref().map_or_else(|| self.weights.clone(), |(lora, adapters)| lora.apart(adapters, &self.weights))
    }

    fn moments(&mut self, ranks: &mut dyn Collective, number: u64) -> Result<Moments, CollectiveError> {
        let (total, steps) = (self.layout.total(), self.optimiser.steps);
        let mut whole = |part: &Vec<f32>| match self.sharded {
            true => ranks.all_gather(number, part.clone(), total),
            false => Ok(part.clone()),
        };
        let (first, second) = (whole(&self.optimiser.first)?, whole(&self.optimiser.second)?);
        Ok(Moments { steps, first: self.layout.named(&first), second: self.layout.named(&second) })
    }

    fn resume(&mut self, moments: &Moments) {
        let shard = self.optimiser.shard.clone();
        self.optimiser.steps = moments.steps;
        self.optimiser.first = self.layout.shard_of(&moments.first, shard.clone());
        self.optimiser.second = self.layout.shard_of(&moments.second, shard);
    }
}

/// The sum of everybody's value, added in the order of ranks.
fn sum(ranks: &mut dyn Collective, number: u64, value: f64) -> Result<f64, CollectiveError> {
    let values = ranks.gather(number, value.to_le_bytes().to_vec())?;
    let parse = |bytes: &[u8]| bytes.try_into().map_or(f64::NAN, f64::from_le_bytes);
    let sum: f64 = values.iter().map(|bytes| parse(bytes)).sum();
    Ok(parse(&ranks.broadcast(number, sum.to_le_bytes().to_vec())?))
}
