//! Masters, moments and summed gradients beside the model, for one rank with a GPU of its own.
//!
//! In: gradients as the tape leaves them. Out: new masters, and the model's parameters cut from them in its own precision. The
//! host sees a gradient norm per step, and weights or moments when somebody asks.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use burn::tensor::{DType, Element, FloatDType, Tensor, TensorData};
use hypereyes_collective::{Collective, CollectiveError};
use hypereyes_policy::Error;
use hypereyes_policy::batch::Batch;
use hypereyes_policy::checkpoint::{HostTensor, HostWeights};
use hypereyes_policy::config::ModelConfig;
use hypereyes_policy::device::{Device, OnDevice};
use hypereyes_policy::faults;
use hypereyes_policy::lanes::Lanes;
use hypereyes_policy::ops::{self, Kernels};
use hypereyes_policy::score::Target;
use hypereyes_policy::tape;

use super::OptimizerBackend;
use crate::config::OptimConfig;
use crate::error::TrainError;
use crate::layout::{Entry, Layout};
use crate::moments::Moments;
use crate::optim;
use crate::runner::{LossFn, ModelRunner, Placed};

pub(super) fn place(
    config: &ModelConfig,
    weights: HostWeights,
    optim: &OptimConfig,
    device: Device,
) -> Result<Box<dyn OptimizerBackend>, Error> {
    device.admits(config)?;
    device.run(Place { config, weights, optim })?
}

struct Place<'a> {
    config: &'a ModelConfig,
    weights: HostWeights,
    optim: &'a OptimConfig,
}

impl OnDevice for Place<'_> {
    type Output = Result<Box<dyn OptimizerBackend>, Error>;

    fn run<B: Kernels>(self, device: B::Device) -> Self::Output {
        Ok(Box::new(Resident::<B>::new(self.config, self.weights, self.optim, device)?))
    }
}

/// A parameter under training; master and moments are f32.
struct Slot<B: Kernels> {
    entry: Entry,
    master: Tensor<B, 1>,
    first: Tensor<B, 1>,
    second: Tensor<B, 1>,
    /// In what the model computes in, or f32.
    gradient: Option<Tensor<B, 1>>,
}

struct Resident<B: Kernels> {
    runner: Placed<B>,
    slots: BTreeMap<String, Slot<B>>,
    device: B::Device,
    steps: u64,
    /// Weights that are not trained.
    frozen: HostWeights,
    /// The masters as they are, once somebody has asked for them.
    read: OnceLock<HostWeights>,
}

impl<B: Kernels> Resident<B> {
    fn new(config: &ModelConfig, mut weights: HostWeights, optim: &OptimConfig, device: B::Device) -> Result<Self, Error> {
        let runner = Placed::new(config, &weights, Lanes::of_this_pool(1)?, device.clone())?;
        let slot = |entry: &Entry| Slot {
            master: row(&weights[&entry.name].values, &device),
            first: zeros(entry, &device),
            second: zeros(entry, &device),
            gradient: None,
            entry: entry.clone(),
        };
        let layout = Layout::of(&weights, optim);
        let slots: BTreeMap<String, Slot<B>> = layout.entries.iter().map(|entry| (entry.name.clone(), slot(entry))).collect();
        weights.retain(|name, _| !slots.contains_key(name));
        Ok(Self { runner, slots, device, steps: 0, frozen: weights, read: OnceLock::new() })
    }

    /// The norm of all gradients together: squares are added up in parts on the device, the parts on the host.
    fn norm(&self) -> f64 {
        let gradients: Vec<Tensor<B, 1>> = self.slots.values().filter_map(|slot| slot.gradient.clone()).collect();
        if gradients.is_empty() {
            return 0.0;
        }
        values(ops::squares(gradients)).into_iter().map(f64::from).sum::<f64>().sqrt()
    }

    fn named(&self, of: impl Fn(&Slot<B>) -> &Tensor<B, 1>) -> HostWeights {
        let tensor = |slot: &Slot<B>| HostTensor { shape: slot.entry.shape.clone(), values: values(of(slot).clone()) };
        self.slots.iter().map(|(name, slot)| (name.clone(), tensor(slot))).collect()
    }
}

impl<B: Kernels> OptimizerBackend for Resident<B> {
    fn runner(&self) -> &dyn ModelRunner {
        &self.runner
    }

    fn accumulate(&mut self, batches: Vec<(Batch, Vec<Target>)>, temperature: f64, loss: LossFn<'_>) {
        let Self { runner, slots, .. } = self;
        for (number, batch) in batches.into_iter().enumerate() {
            let recording = tape::recording();
            let Some((logprobs, values)) = runner.forward(0, batch, temperature) else { continue };
            let Some(root) = runner.weighted(logprobs, loss(number, &values)) else { continue };
            drop(recording);
            let _turn = tape::backward();
            runner.backward(0, root, &mut |name, gradient| {
                let Some(slot) = slots.get_mut(&name) else { return };
                // One alone stays as it is; sums are in f32.
                slot.gradient = Some(match slot.gradient.take() {
                    Some(sum) => sum.cast(FloatDType::F32) + gradient.cast(FloatDType::F32),
                    None => gradient,
                });
            });
        }
    }

    fn forget(&mut self) {
        self.slots.values_mut().for_each(|slot| slot.gradient = None);
    }

    fn step(&mut self, _: &mut dyn Collective, _: u64, config: &OptimConfig, lr: f64) -> Result<f64, TrainError> {
        let norm = self.norm();
        if !norm.is_finite() {
            self.forget();
            return Ok(norm);
        }
        self.steps += 1;
        let computes_in = FloatDType::from(<B::FloatElem as Element>::dtype());
        let mut rounded = BTreeMap::new();
        // Taken apart and put together again: what only one holds is updated where it is.
        for (name, Slot { entry, master, first, second, gradient }) in std::mem::take(&mut self.slots) {
            // A parameter that no pass has touched decays all the same.
            let gradient = gradient.unwrap_or_else(|| zeros(&entry, &self.device));
            let step = optim::adam_step(&entry, self.steps, norm, config, lr);
            let ([master, first, second], weight) = ops::adam([master, first, second], gradient, &step, computes_in);
            rounded.insert(name.clone(), weight);
            self.slots.insert(name, Slot { entry, master, first, second, gradient: None });
        }
        self.runner.replace(rounded);
        // Errors are told to the thread that asked, and the next step may be on another.
        faults::settle::<B>(&self.device)?;
        self.read = OnceLock::new();
        Ok(norm)
    }

    fn weights(&self) -> &HostWeights {
        self.read.get_or_init(|| {
            let mut weights = self.frozen.clone();
            weights.extend(self.named(|slot| &slot.master));
            weights
        })
    }

    fn state(&self) -> HostWeights {
        self.weights().clone()
    }

    fn moments(&mut self, _: &mut dyn Collective, _: u64) -> Result<Moments, CollectiveError> {
        Ok(Moments { steps: self.steps, first: self.named(|slot| &slot.first), second: self.named(|slot| &slot.second) })
    }

    fn resume(&mut self, moments: &Moments) {
        self.steps = moments.steps;
        for (name, slot) in &mut self.slots {
            let found = |of: &HostWeights| match of.get(name).filter(|tensor| tensor.shape == slot.entry.shape) {
                Some(tensor) => row(&tensor.values, &self.device),
                None => zeros(&slot.entry, &self.device),
            };
            (slot.first, slot.second) = (found(&moments.first), found(&moments.second));
        }
    }
}

fn row<B: Kernels>(values: &[f32], device: &B::Device) -> Tensor<B, 1> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), (device, DType::F32))
}

fn zeros<B: Kernels>(entry: &Entry, device: &B::Device) -> Tensor<B, 1> {
    Tensor::zeros([entry.length], (device, DType::F32))
}

fn values<B: Kernels>(row: Tensor<B, 1>) -> Vec<f32> {
    faults::floats_or_panic(row)
}

#[cfg(test)]
mod tests {
    use hypereyes_collective::Tcp;
    use hypereyes_policy::config::SmallShape;
    use hypereyes_policy::score::Sample;
    use hypereyes_policy::{init, score};

    use super::*;
    use crate::config::ParameterGroup;
    use crate::placement::Placement;

    const LR: f64 = 3e-3;

    /// Steps with one batch each, of three sequences; the second step passes over it twice.
    fn steps(update: &mut dyn OptimizerBackend, config: &ModelConfig, optim: &OptimConfig, numbers: std::ops::Range<u64>) -> Vec<f64> {
        let sample = |seed: u32| Sample {
            tokens: (0..20 + seed).map(|at| (at * 7 + seed) % 60).collect(),
            asked: (1..20).collect(),
            ..Sample::default()
        };
        let samples: Vec<Sample> = (0..3).map(sample).collect();
        let mut alone = Tcp::alone();
        let one = |number| {
            for _ in 0..1 + number % 2 {
                let batch = score::lay_out(config, &samples).unwrap();
                update.accumulate(vec![batch], 1.0, &mut |_, logprobs| vec![-1.0 / logprobs.len() as f32; logprobs.len()]);
            }
            update.step(&mut alone, number, optim, LR).unwrap()
        };
        numbers.map(one).collect()
    }

    #[test]
    fn beside_the_model_is_as_on_the_host() {
        let config = SmallShape { width: 32, layers: 2, heads: 2, inner: 64, vision_width: 32, vision_depth: 1 }.model(64, 61, 62, 63);
        let weights = init::fresh(&config, &Default::default(), 5);
        let frozen = "model.language_model.layers.0.";
        let groups = vec![ParameterGroup { prefix: frozen.into(), rate: 0.0, weight_decay: None }];
        let optim = OptimConfig { groups, clip_norm: 0.5, ..OptimConfig::default() };
        let placement = Placement { device: Device::Cpu, micro_tokens: 1 };
        let mut host = super::super::place(&config, weights.clone(), &optim, placement, &Tcp::alone(), true).unwrap();
        let device = || place(&config, weights.clone(), &optim, Device::Cpu).unwrap();
        let mut through = device();
        let norms = steps(&mut *through, &config, &optim, 0..4);
        for (norm, wanted) in norms.iter().zip(steps(&mut *host, &config, &optim, 0..4)) {
            assert!((norm - wanted).abs() < 1e-4 * wanted, "{norm} for {wanted}");
        }
        let sample = Sample { tokens: (0..20).collect(), asked: (1..20).collect(), ..Sample::default() };
        let batch = || vec![score::lay_out(&config, std::slice::from_ref(&sample)).unwrap()];
        let said = through.runner().logprobs(batch(), 0.8).remove(0);
        for (value, wanted) in said.iter().zip(host.runner().logprobs(batch(), 0.8).remove(0)) {
            assert!((value - wanted).abs() < 1e-3, "{value} for {wanted}");
        }
        // What is said without a tape is what a pass with one shows.
        through.accumulate(batch(), 0.8, &mut |_, logprobs| {
            assert!(logprobs.iter().zip(&said).all(|(taped, plain)| (taped - plain).abs() < 1e-6));
            vec![0.0; logprobs.len()]
        });
        let mut moved = 0.0f32;
        for (name, tensor) in through.weights() {
            for ((value, wanted), before) in tensor.values.iter().zip(&host.weights()[name].values).zip(&weights[name].values) {
                assert!((value - wanted).abs() < 2e-5, "{name}: {value} for {wanted}");
                moved = moved.max((value - before).abs());
            }
            assert!(!name.starts_with(frozen) || tensor == &weights[name], "{name} is frozen");
        }
        assert!(moved > 1e-3, "four steps move the weights: {moved}");
        // From a checkpoint after two steps it goes on to the same bits.
        let mut first = device();
        steps(&mut *first, &config, &optim, 0..2);
        let moments = first.moments(&mut Tcp::alone(), 2).unwrap();
        assert_eq!(moments.steps, 2);
        let mut second = place(&config, first.state(), &optim, Device::Cpu).unwrap();
        second.resume(&moments);
        steps(&mut *second, &config, &optim, 2..4);
        assert_eq!(second.weights(), through.weights());
    }

    #[test]
    fn a_norm_that_is_not_finite_changes_nothing() {
        let config = SmallShape { width: 32, layers: 1, heads: 2, inner: 64, vision_width: 32, vision_depth: 1 }.model(64, 61, 62, 63);
        let weights = init::fresh(&config, &Default::default(), 5);
        let optim = OptimConfig::default();
        let mut update = place(&config, weights.clone(), &optim, Device::Cpu).unwrap();
        let sample = Sample { tokens: (0..20).collect(), asked: (1..20).collect(), ..Sample::default() };
        let batch = score::lay_out(&config, &[sample]).unwrap();
        update.accumulate(vec![batch], 1.0, &mut |_, logprobs| vec![f32::NAN; logprobs.len()]);
        let norm = update.step(&mut Tcp::alone(), 1, &optim, LR).unwrap();
        assert!(norm.is_nan());
        assert_eq!(update.weights(), &weights);
        assert_eq!(update.moments(&mut Tcp::alone(), 1).unwrap().steps, 0);
    }
}
