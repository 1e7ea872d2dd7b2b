//! The model under training on its device: passes forward, with a tape, and back.
//!
//! In: batches laid out, and then a coefficient per log-prob. Out: log-probs on the host, gradients by parameter name.
//! Batches run at once, one per lane of cores, each with a tape of its own. Not known here: samples, optimisers.

use std::collections::BTreeMap;

use burn::backend::Autodiff;
use burn::module::{AutodiffModule, Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{DType, Tensor, TensorData};
use hypereyes_policy::Error;
use hypereyes_policy::batch::Batch;
use hypereyes_policy::checkpoint::{self, HostWeights, ParamPath};
use hypereyes_policy::config::ModelConfig;
use hypereyes_policy::device::{Device, OnDevice};
use hypereyes_policy::faults;
use hypereyes_policy::frozen::{self, ScoreOptions, TokenScores};
use hypereyes_policy::lanes::Lanes;
use hypereyes_policy::models::{Model, Vlm};
use hypereyes_policy::ops::Kernels;
use hypereyes_policy::score::{self, Sample, Target};
use hypereyes_policy::tape;

use crate::layout::Gradients;

/// The loss as the runner sees it: given the log-probs of micro-batch number `n` of a wave, the derivative to each.
pub type LossFn<'a> = &'a mut dyn FnMut(usize, &[f32]) -> Vec<f32>;

/// A model that can be passed through with gradients, on whichever device.
pub trait ModelRunner: Send {
    /// Micro-batches that run at once.
    fn lanes(&self) -> usize;

    /// Passes a wave of micro-batches, at most [`ModelRunner::lanes`] of them, through the model and back: the gradients of
    /// `sum(coefficient * log-prob)`, one set per micro-batch in order; `None` where nothing is asked or every coefficient is 0.
    fn gradients(&self, batches: Vec<(Batch, Vec<Target>)>, temperature: f64, loss: LossFn<'_>) -> Vec<Option<Gradients>>;

    /// Log-probs of the targets of at most [`ModelRunner::lanes`] micro-batches, as [`ModelRunner::gradients`] shows them, without a tape.
    fn logprobs(&self, batches: Vec<(Batch, Vec<Target>)>, temperature: f64) -> Vec<Vec<f32>>;

    /// What the model says of the samples' asked tokens, without a tape.
    ///
    /// # Errors
    /// [`Error::Input`] when a sample does not fit the model.
    fn score(&self, samples: &[Sample], wanted: ScoreOptions) -> Result<Vec<TokenScores>, Error>;

    /// Puts other weights in.
    ///
    /// # Errors
    /// [`Error::Input`] when they do not fit.
    fn load(&mut self, weights: &HostWeights) -> Result<(), Error>;
}

/// Puts a model on a device, to be trained; on the CPU, on up to `most_lanes` lanes.
///
/// # Errors
/// [`Error`] when the weights do not fit the shape, there is no such device, or it does not admit the model.
pub fn place(config: &ModelConfig, weights: &HostWeights, device: Device, most_lanes: usize) -> Result<Box<dyn ModelRunner>, Error> {
    device.admits(config)?;
    let lanes = Lanes::of_this_pool(if device.has_lanes() { most_lanes } else { 1 })?;
    device.run(Place { config: config.clone(), weights, lanes })?
}

struct Place<'a> {
    config: ModelConfig,
    weights: &'a HostWeights,
    lanes: Lanes,
}

impl OnDevice for Place<'_> {
    type Output = Result<Box<dyn ModelRunner>, Error>;

    fn run<B: Kernels>(self, device: B::Device) -> Self::Output {
        Ok(Box::new(Placed::<B>::new(&self.config, self.weights, self.lanes, device)?))
    }
}

/// A model on a device, with a tape per lane.
pub(crate) struct Placed<B: Kernels> {
    config: ModelConfig,
    lanes: Lanes,
    /// One per lane: the same tensors, each the leaf of its own tape.
    models: Vec<Model<Autodiff<B>>>,
    device: B::Device,
}

impl<B: Kernels> ModelRunner for Placed<B> {
    fn lanes(&self) -> usize {
        self.lanes.count()
    }

    fn gradients(&self, batches: Vec<(Batch, Vec<Target>)>, temperature: f64, loss: LossFn<'_>) -> Vec<Option<Gradients>> {
        let recording = tape::recording();
        let passed = self.lanes.map(batches, |lane, batch| self.forward(lane, batch, temperature));
        let weighted = passed.into_iter().enumerate().map(|(number, passed)| {
            let (logprobs, values) = passed?;
            self.weighted(logprobs, loss(number, &values))
        });
        let roots = weighted.collect();
        drop(recording);
        let _turn = tape::backward();
        self.lanes.map(roots, |lane, root| {
            let mut gradients = Gradients::new();
            self.backward(lane, root?, &mut |name, gradient| {
                gradients.insert(name, faults::floats_or_panic(gradient));
            });
            (!gradients.is_empty()).then_some(gradients)
        })
    }

    fn logprobs(&self, batches: Vec<(Batch, Vec<Target>)>, temperature: f64) -> Vec<Vec<f32>> {
        let model = self.models[0].valid();
        self.lanes.map(batches, |_, (batch, targets)| {
            if targets.is_empty() {
                return vec![];
            }
            let hidden = score::hidden(&model, &self.config, &batch, &self.device);
            faults::floats_or_panic(score::logprobs(&model, hidden, &targets, temperature))
        })
    }

    fn score(&self, samples: &[Sample], wanted: ScoreOptions) -> Result<Vec<TokenScores>, Error> {
        frozen::score(&self.config, &self.models[0].valid(), &self.device, samples, wanted)
    }

    fn load(&mut self, weights: &HostWeights) -> Result<(), Error> {
        // `clone` shares tensors; the mapper then replaces every one of them.
        let first = checkpoint::from_host(self.models[0].clone(), weights)?;
        self.models = copies(first, self.lanes.count());
        // Errors are told to the thread that asked, and the next pass may be on another.
        faults::settle::<B>(&self.device)
    }
}

/// Log-probs of the targets, on the tape and on the host.
pub(crate) type Passed<B> = (Tensor<Autodiff<B>, 1>, Vec<f32>);
/// The end of a tape.
pub(crate) type Root<B> = Tensor<Autodiff<B>, 1>;

impl<B: Kernels> Placed<B> {
    /// # Errors
    /// [`Error::Input`] when the weights do not fit the shape.
    pub(crate) fn new(config: &ModelConfig, weights: &HostWeights, lanes: Lanes, device: B::Device) -> Result<Self, Error> {
        let first = checkpoint::from_host(Model::<Autodiff<B>>::init(config, 0, &device), weights)?;
        Ok(Self { models: copies(first, lanes.count()), config: config.clone(), lanes, device })
    }

    /// The log-probs of a batch's targets, if there are any, with a tape.
    pub(crate) fn forward(&self, lane: usize, (batch, targets): (Batch, Vec<Target>), temperature: f64) -> Option<Passed<B>> {
        if targets.is_empty() {
            return None;
        }
        let hidden = score::hidden(&self.models[lane], &self.config, &batch, &self.device);
        let logprobs = score::logprobs(&self.models[lane], hidden, &targets, temperature);
        let values = faults::floats_or_panic(logprobs.clone().inner());
        Some((logprobs, values))
    }

    /// `sum(coefficient * log-prob)`, to go backward from; none where every coefficient is 0.
    pub(crate) fn weighted(&self, logprobs: Tensor<Autodiff<B>, 1>, coefficients: Vec<f32>) -> Option<Root<B>> {
        if coefficients.iter().all(|coefficient| *coefficient == 0.0) {
            return None;
        }
        let shape = [coefficients.len()];
        let coefficients = Tensor::from_data(TensorData::new(coefficients, shape), (&self.device, DType::F32));
        Some((logprobs * coefficients).sum())
    }

    /// Shows `sink` the gradient of every parameter of a lane, as one row.
    pub(crate) fn backward(&self, lane: usize, root: Root<B>, sink: Sink<'_, B>) {
        let tape = root.backward();
        self.models[lane].visit(&mut Show::<B> { path: ParamPath::default(), tape: &tape, sink });
    }

    /// Puts rows that are on the device already into the parameters that they are named after.
    pub(crate) fn replace(&mut self, rows: BTreeMap<String, Tensor<B, 1>>) {
        let first = self.models[0].clone().map(&mut Replace { path: ParamPath::default(), rows });
        self.models = copies(first, self.lanes.count());
    }
}

/// Takes a parameter's name and its gradient.
pub(crate) type Sink<'a, B> = &'a mut dyn FnMut(String, Tensor<B, 1>);

struct Show<'a, B: Kernels> {
    path: ParamPath,
    tape: &'a <Autodiff<B> as AutodiffBackend>::Gradients,
    sink: Sink<'a, B>,
}

impl<B: Kernels> ModuleVisitor<Autodiff<B>> for Show<'_, B> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, container: &str) {
        self.path.exit(container);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<Autodiff<B>, D>>) {
        let Some(gradient) = param.val().grad(self.tape) else { return };
        let length = gradient.shape().num_elements();
        (self.sink)(self.path.name(), gradient.reshape([length]));
    }
}

struct Replace<B: Kernels> {
    path: ParamPath,
    rows: BTreeMap<String, Tensor<B, 1>>,
}

impl<B: Kernels> ModuleMapper<Autodiff<B>> for Replace<B> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, container: &str) {
        self.path.exit(container);
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<Autodiff<B>, D>>) -> Param<Tensor<Autodiff<B>, D>> {
        let Some(row) = self.rows.remove(&self.path.name()) else { return param };
        param.map(|old| Tensor::from_inner(row.reshape(old.dims())).require_grad())
    }
}

/// Models over the same storage whose parameters are leaves of their own: tapes that share a leaf would share a lock.
fn copies<B: Kernels>(model: Model<Autodiff<B>>, count: usize) -> Vec<Model<Autodiff<B>>> {
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
