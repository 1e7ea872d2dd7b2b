//! The model under training on its device: passes forward, with a tape, and back.
//!
//! In: batches laid out, and then a coefficient per log-prob. Out: log-probs, gradients by parameter name; both on the host.
//! Batches run at once, one per lane of cores, each with a tape of its own. Not known here: samples, optimisers.

use burn::backend::Autodiff;
use burn::module::{AutodiffModule, Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{DType, Tensor, TensorData};
use hypereyes_policy::Error;
use hypereyes_policy::batch::Batch;
use hypereyes_policy::checkpoint::{self, HostWeights, ParamPath};
use hypereyes_policy::config::ModelConfig;
use hypereyes_policy::device::{Device, OnDevice};
use hypereyes_policy::frozen::{self, Said, Wanted};
use hypereyes_policy::lanes::Lanes;
use hypereyes_policy::model::Qwen3Vl;
use hypereyes_policy::ops::Kernels;
use hypereyes_policy::score::{self, Sample, Target};

use crate::optim::Gradients;

/// Answers the log-probs of batch number `n` of a wave with a coefficient for each.
pub type Weigh<'a> = &'a mut dyn FnMut(usize, &[f32]) -> Vec<f32>;

/// A model that can be passed through with gradients, on whichever device.
pub trait Passes: Send {
    /// Batches that run at once.
    fn lanes(&self) -> usize;

    /// Passes at most [`Passes::lanes`] batches through the model and back: the gradients of `sum(coefficient * log-prob)`,
    /// one set per batch in order; `None` where nothing is asked or every coefficient is 0.
    fn wave(&self, batches: Vec<(Batch, Vec<Target>)>, temperature: f64, weigh: Weigh<'_>) -> Vec<Option<Gradients>>;

    /// What the model says of the samples' asked tokens, without a tape.
    ///
    /// # Errors
    /// [`Error::Input`] when a sample does not fit the model.
    fn say(&self, samples: &[Sample], wanted: Wanted) -> Result<Vec<Said>, Error>;

    /// Puts other weights in.
    ///
    /// # Errors
    /// [`Error::Input`] when they do not fit.
    fn load(&mut self, weights: &HostWeights) -> Result<(), Error>;
}

/// Puts a model on a device, to be trained; on the CPU, on up to `most_lanes` lanes.
///
/// # Errors
/// [`Error`] when the weights do not fit the shape, or there is no such device.
pub fn place(config: &ModelConfig, weights: &HostWeights, device: Device, most_lanes: usize) -> Result<Box<dyn Passes>, Error> {
    let lanes = Lanes::of_this_pool(if device.has_lanes() { most_lanes } else { 1 })?;
    device.run(Place { config: config.clone(), weights, lanes })?
}

struct Place<'a> {
    config: ModelConfig,
    weights: &'a HostWeights,
    lanes: Lanes,
}

impl OnDevice for Place<'_> {
    type Output = Result<Box<dyn Passes>, Error>;

    fn run<B: Kernels>(self, device: B::Device) -> Self::Output {
        let Self { config, weights, lanes } = self;
        let first = checkpoint::from_host(Qwen3Vl::<Autodiff<B>>::init(&config, 0, &device), weights)?;
        Ok(Box::new(Placed { models: copies(first, lanes.count()), config, lanes, device }))
    }
}

struct Placed<B: Kernels> {
    config: ModelConfig,
    lanes: Lanes,
    /// One per lane: the same tensors, each the leaf of its own tape.
    models: Vec<Qwen3Vl<Autodiff<B>>>,
    device: B::Device,
}

impl<B: Kernels> Passes for Placed<B> {
    fn lanes(&self) -> usize {
        self.lanes.count()
    }

    fn wave(&self, batches: Vec<(Batch, Vec<Target>)>, temperature: f64, weigh: Weigh<'_>) -> Vec<Option<Gradients>> {
        let forward = |lane: usize, (batch, targets): (Batch, Vec<Target>)| self.forward(&self.models[lane], &batch, &targets, temperature);
        let passed = self.lanes.map(batches, forward);
        let weighted = passed.into_iter().enumerate().map(|(number, passed)| {
            let (logprobs, values) = passed?;
            Some((logprobs, weigh(number, &values)))
        });
        self.lanes.map(weighted.collect(), |lane, weighted| {
            let (logprobs, coefficients) = weighted?;
            self.backward(&self.models[lane], logprobs, coefficients)
        })
    }

    fn say(&self, samples: &[Sample], wanted: Wanted) -> Result<Vec<Said>, Error> {
        frozen::say(&self.config, &self.models[0].valid(), &self.device, samples, wanted)
    }

    fn load(&mut self, weights: &HostWeights) -> Result<(), Error> {
        // `clone` shares tensors; the mapper then replaces every one of them.
        let first = checkpoint::from_host(self.models[0].clone(), weights)?;
        self.models = copies(first, self.lanes.count());
        Ok(())
    }
}

/// Log-probs of the targets, on the tape and on the host.
type Passed<B> = (Tensor<Autodiff<B>, 1>, Vec<f32>);

impl<B: Kernels> Placed<B> {
    fn forward(&self, model: &Qwen3Vl<Autodiff<B>>, batch: &Batch, targets: &[Target], temperature: f64) -> Option<Passed<B>> {
        if targets.is_empty() {
            return None;
        }
        let hidden = score::hidden(model, &self.config, batch, &self.device);
        let logprobs = score::logprobs(model, hidden, targets, temperature);
        let values = logprobs.clone().inner().into_data().convert::<f32>().into_vec::<f32>().expect("converted to f32");
        Some((logprobs, values))
    }

    fn backward(&self, model: &Qwen3Vl<Autodiff<B>>, logprobs: Tensor<Autodiff<B>, 1>, coefficients: Vec<f32>) -> Option<Gradients> {
        if coefficients.iter().all(|coefficient| *coefficient == 0.0) {
            return None;
        }
        let shape = [coefficients.len()];
        let coefficients = Tensor::from_data(TensorData::new(coefficients, shape), (&self.device, DType::F32));
        let tape = (logprobs * coefficients).sum().backward();
        let mut collect = Collect::<B> { path: ParamPath::default(), tape: &tape, gradients: Gradients::new() };
        model.visit(&mut collect);
        Some(collect.gradients)
    }
}

struct Collect<'a, B: Kernels> {
    path: ParamPath,
    tape: &'a <Autodiff<B> as AutodiffBackend>::Gradients,
    gradients: Gradients,
}

impl<B: Kernels> ModuleVisitor<Autodiff<B>> for Collect<'_, B> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, container: &str) {
        self.path.exit(container);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<Autodiff<B>, D>>) {
        let Some(gradient) = param.val().grad(self.tape) else { return };
        let values = gradient.into_data().convert::<f32>().into_vec::<f32>().expect("converted to f32");
        self.gradients.insert(self.path.name(), values);
    }
}

/// Models over the same storage whose parameters are leaves of their own: tapes that share a leaf would share a lock.
fn copies<B: Kernels>(model: Qwen3Vl<Autodiff<B>>, count: usize) -> Vec<Qwen3Vl<Autodiff<B>>> {
    struct Leaves;
    impl<B: Kernels> ModuleMapper<Autodiff<B>> for Leaves {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<Autodiff<B>, D>>) -> Param<Tensor<Autodiff<B>, D>> {
            param.map(|tensor| Tensor::from_inner(tensor.inner()).require_grad())
        }
    }
    let mut models: Vec<_> = (1..count).map(|_| model.clone().map(&mut Leaves)).collect();
    models.push(model);
    models
}
