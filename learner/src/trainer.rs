//! The model under training: passes over samples, gradients summed on the host, one optimiser step.
//!
//! In: samples and, per micro-batch, the derivative of the loss to every trained token's log-prob (so that every
//! objective is a function of log-probs and none is written in tensors). Out: new weights and what was measured.
//!
//! Micro-batches run at once, one per lane of cores, each with a tape of its own; their gradients are added up in the
//! micro-batches' order, so that a result depends on the number of lanes and on nothing else.

use std::ops::Range;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Tensor, TensorData};
use hypereyes_policy::Error;
use hypereyes_policy::backend::CpuTrain;
use hypereyes_policy::batch::Batch;
use hypereyes_policy::checkpoint::{self, HostWeights, ParamPath};
use hypereyes_policy::config::ModelConfig;
use hypereyes_policy::lanes::Lanes;
use hypereyes_policy::model::Qwen3Vl;
use hypereyes_policy::score::{self, Sample, Target};

use crate::optim::{AdamW, Gradients, OptimConfig};

/// Derivative of the loss to the log-prob of each trained token, per sample.
pub type Coefficients = Vec<Vec<f32>>;

/// Fewest tokens worth a lane of their own: below, fixed costs of a pass and pictures encoded once more outweigh the core.
const LANE_TOKENS: usize = 512;

/// Model, master weights and optimiser.
pub struct Trainer {
    config: ModelConfig,
    lanes: Lanes,
    /// One per lane: the same tensors, each the leaf of its own tape.
    models: Vec<Qwen3Vl<CpuTrain>>,
    weights: HostWeights,
    /// Optimiser state.
    pub optimiser: AdamW,
    optim: OptimConfig,
    gradients: Gradients,
    micro_tokens: usize,
}

impl Trainer {
    /// Starts from weights; the micro-batches that run at once hold up to `micro_tokens` tokens together (at least one
    /// sample each).
    pub fn new(config: ModelConfig, weights: HostWeights, optim: OptimConfig, micro_tokens: usize) -> Result<Self, Error> {
        let lanes = Lanes::of_this_pool(micro_tokens / LANE_TOKENS)?;
        let first = checkpoint::from_host(Qwen3Vl::init(&config, 0, &Default::default()), &weights)?;
        let models = copies(first, lanes.count());
        let optimiser = AdamW::new(&weights);
        Ok(Self { config, lanes, models, weights, optimiser, optim, gradients: Gradients::new(), micro_tokens })
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
        let lanes = self.lanes.count();
        let lengths: Vec<usize> = samples.iter().map(|sample| sample.tokens.len()).collect();
        for wave in score::even_runs(&lengths, self.micro_tokens / lanes, lanes).chunks(lanes) {
            let laid = wave.iter().map(|run| score::lay_out(&self.config, &samples[run.clone()])).collect::<Result<Vec<_>, _>>()?;
            let (models, config) = (&self.models, &self.config);
            let passed = self.lanes.map(laid, |lane, (batch, targets)| forward(&models[lane], config, &batch, &targets, temperature));
            let mut weighted = vec![];
            for (run, (logprobs, values)) in wave.iter().zip(passed) {
                let values = score::per_sample(&samples[run.clone()], &values);
                let coefficients = if logprobs.is_some() { objective(run.clone(), &values).concat() } else { vec![] };
                weighted.push((logprobs, coefficients));
            }
            let gradients = self.lanes.map(weighted, |lane, (logprobs, coefficients)| backward(&models[lane], logprobs?, coefficients));
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
        // `clone` shares tensors; the mapper then replaces every one of them.
        let first = checkpoint::from_host(self.models[0].clone(), &self.weights)?;
        self.models = copies(first, self.lanes.count());
        Ok(norm)
    }
}

/// Log-probs of the targets, on the tape and on the host; nothing when nothing is asked for.
fn forward(
    model: &Qwen3Vl<CpuTrain>,
    config: &ModelConfig,
    batch: &Batch,
    targets: &[Target],
    temperature: f64,
) -> (Option<Tensor<CpuTrain, 1>>, Vec<f32>) {
    if targets.is_empty() {
        return (None, vec![]);
    }
    let hidden = score::hidden(model, config, batch, &Default::default());
    let logprobs = score::logprobs(model, hidden, targets, temperature);
    let values = logprobs.clone().inner().into_data().into_vec::<f32>().expect("f32 on the CPU backend");
    (Some(logprobs), values)
}

/// Gradients of `sum(coefficient * log-prob)` on the host; nothing when all coefficients are 0.
fn backward(model: &Qwen3Vl<CpuTrain>, logprobs: Tensor<CpuTrain, 1>, coefficients: Vec<f32>) -> Option<Gradients> {
    struct Collect<'a> {
        path: ParamPath,
        tape: &'a <CpuTrain as AutodiffBackend>::Gradients,
        gradients: Gradients,
    }
    impl ModuleVisitor<CpuTrain> for Collect<'_> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, container: &str) {
            self.path.exit(container);
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<CpuTrain, D>>) {
            let Some(gradient) = param.val().grad(self.tape) else { return };
            self.gradients.insert(self.path.name(), gradient.into_data().into_vec::<f32>().expect("f32 on the CPU backend"));
        }
    }
    if coefficients.iter().all(|coefficient| *coefficient == 0.0) {
        return None;
    }
    let shape = [coefficients.len()];
    let coefficients = Tensor::<CpuTrain, 1>::from_data(TensorData::new(coefficients, shape), &Default::default());
    let tape = (logprobs * coefficients).sum().backward();
    let mut collect = Collect { path: ParamPath::default(), tape: &tape, gradients: Gradients::new() };
    model.visit(&mut collect);
    Some(collect.gradients)
}

/// Models over the same storage whose parameters are leaves of their own: tapes that share a leaf would share a lock.
fn copies(model: Qwen3Vl<CpuTrain>, count: usize) -> Vec<Qwen3Vl<CpuTrain>> {
    struct Leaves;
    impl ModuleMapper<CpuTrain> for Leaves {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<CpuTrain, D>>) -> Param<Tensor<CpuTrain, D>> {
            param.map(|tensor| Tensor::from_inner(tensor.inner()).require_grad())
        }
    }
    let mut models: Vec<_> = (1..count).map(|_| model.clone().map(&mut Leaves)).collect();
    models.push(model);
    models
}
