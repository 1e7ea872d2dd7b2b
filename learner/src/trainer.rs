//! The model under training: passes over samples, gradients summed on the host, one optimiser step.
//!
//! In: samples and, per micro-batch, the derivative of the loss to every trained token's log-prob (so that every
//! objective is a function of log-probs and none is written in tensors). Out: new weights and what was measured.

use std::sync::Arc;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Tensor, TensorData};
use hypereyes_domain::Patches;
use hypereyes_policy::Error;
use hypereyes_policy::backend::CpuTrain;
use hypereyes_policy::batch::Batch;
use hypereyes_policy::checkpoint::{self, HostWeights, ParamPath};
use hypereyes_policy::config::ModelConfig;
use hypereyes_policy::model::Qwen3Vl;
use hypereyes_policy::score::{self, Target};

use crate::optim::{AdamW, Gradients, OptimConfig};

/// One sequence and which of its tokens are trained.
#[derive(Clone, Debug)]
pub struct Sample {
    /// All token ids.
    pub tokens: Vec<u32>,
    /// Pictures in order of appearance; shared between siblings so that each is encoded once per micro-batch.
    pub pictures: Vec<Arc<Patches>>,
    /// Indices into `tokens` of what is trained, ascending, each at least 1.
    pub trained: Vec<usize>,
}

/// Derivative of the loss to the log-prob of each trained token, per sample.
pub type Coefficients = Vec<Vec<f32>>;

/// Model, master weights and optimiser.
pub struct Trainer {
    config: ModelConfig,
    model: Qwen3Vl<CpuTrain>,
    weights: HostWeights,
    /// Optimiser state.
    pub optimiser: AdamW,
    optim: OptimConfig,
    gradients: Gradients,
    micro_tokens: usize,
}

impl Trainer {
    /// Starts from weights; a micro-batch holds up to `micro_tokens` tokens (at least one sample).
    pub fn new(config: ModelConfig, weights: HostWeights, optim: OptimConfig, micro_tokens: usize) -> Result<Self, Error> {
        let model = checkpoint::from_host(Qwen3Vl::init(&config, 0, &Default::default()), &weights)?;
        let optimiser = AdamW::new(&weights);
        Ok(Self { config, model, weights, optimiser, optim, gradients: Gradients::new(), micro_tokens })
    }

    /// The master weights.
    pub fn weights(&self) -> &HostWeights {
        &self.weights
    }

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Passes over all samples and adds up gradients. `objective(indices, log-probs)` is called per micro-batch with the
    /// samples' indices and their trained tokens' log-probs at `temperature`, and answers with the coefficients.
    pub fn accumulate(
        &mut self,
        samples: &[Sample],
        temperature: f64,
        mut objective: impl FnMut(&[usize], &[Vec<f32>]) -> Coefficients,
    ) -> Result<(), Error> {
        let device = Default::default();
        for indices in micro_batches(samples, self.micro_tokens) {
            let mut batch = Batch::default();
            let mut targets = vec![];
            for index in &indices {
                let sample = &samples[*index];
                let start = batch.rows.tokens.len();
                batch.push(&self.config, &sample.tokens, &sample.pictures)?;
                targets.extend(sample.trained.iter().map(|at| Target { row: start + at - 1, token: sample.tokens[*at] }));
            }
            if targets.is_empty() {
                continue;
            }
            let hidden = score::hidden(&self.model, &self.config, &batch, &device);
            let logprobs = score::logprobs(&self.model, hidden, &targets, temperature);
            let flat = logprobs.clone().inner().into_data().into_vec::<f32>().expect("f32 on the CPU backend");
            let mut rest = flat.as_slice();
            let per_sample: Vec<Vec<f32>> = indices
                .iter()
                .map(|index| {
                    let (own, others) = rest.split_at(samples[*index].trained.len());
                    rest = others;
                    own.to_vec()
                })
                .collect();
            let coefficients: Vec<f32> = objective(&indices, &per_sample).concat();
            if coefficients.iter().all(|coefficient| *coefficient == 0.0) {
                continue;
            }
            let coefficients = Tensor::<CpuTrain, 1>::from_data(TensorData::new(coefficients, [targets.len()]), &device);
            let tape = (logprobs * coefficients).sum().backward();
            self.collect(&tape);
        }
        Ok(())
    }

    fn collect(&mut self, tape: &<CpuTrain as AutodiffBackend>::Gradients) {
        struct Collect<'a> {
            path: ParamPath,
            tape: &'a <CpuTrain as AutodiffBackend>::Gradients,
            sums: &'a mut Gradients,
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
                let gradient = gradient.into_data().into_vec::<f32>().expect("f32 on the CPU backend");
                let name = self.path.name();
                match self.sums.get_mut(&name) {
                    Some(sum) => sum.iter_mut().zip(gradient).for_each(|(sum, part)| *sum += part),
                    None => {
                        self.sums.insert(name, gradient);
                    }
                }
            }
        }
        self.model.visit(&mut Collect { path: ParamPath::default(), tape, sums: &mut self.gradients });
    }

    /// Updates the weights with what was accumulated; returns the gradient norm before clipping (not finite: no update).
    pub fn step(&mut self, lr: f64) -> Result<f64, Error> {
        let gradients = std::mem::take(&mut self.gradients);
        let norm = self.optimiser.step(&mut self.weights, &gradients, &self.optim, lr);
        // `clone` shares tensors; the mapper then replaces every one of them.
        self.model = checkpoint::from_host(self.model.clone(), &self.weights)?;
        Ok(norm)
    }
}

/// Cuts samples into micro-batches of up to `budget` tokens, in order, so that siblings stay together and share their pictures.
fn micro_batches(samples: &[Sample], budget: usize) -> Vec<Vec<usize>> {
    let mut batches: Vec<Vec<usize>> = vec![];
    let mut room = 0;
    for (index, sample) in samples.iter().enumerate() {
        match batches.last_mut().filter(|_| sample.tokens.len() <= room) {
            Some(batch) => {
                batch.push(index);
                room -= sample.tokens.len();
            }
            None => {
                batches.push(vec![index]);
                room = budget.saturating_sub(sample.tokens.len());
            }
        }
    }
    batches
}
