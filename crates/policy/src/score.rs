//! Log-probs of given tokens: whole sequences end to end, logits only where asked and a chunk at a time. The learner uses
//! this, and so does [`frozen`](crate::frozen) for everybody who only asks.
//!
//! In: sequences, and which of their tokens are asked about. Out: log-probs, differentiable for whoever trains.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData};
use hypereyes_pictures::Patches;

use crate::Error;
use crate::batch::Batch;
use crate::config::ModelConfig;
use crate::models::{Attend, Model, Vlm};
use crate::ops::{self, Asked, Kernels, Segments, guards};

/// One sequence and which of its tokens are asked about.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// All token ids.
    pub tokens: Vec<u32>,
    /// Pictures in order of appearance; shared between siblings, so that each is encoded once per pass.
    pub pictures: Vec<Arc<Patches>>,
    /// Indices into `tokens`, ascending, each at least 1: the first token of all has no log-prob.
    pub asked: Vec<usize>,
    /// Leading tokens, whole pictures with them, that neighbours may have in common: a [`Frozen`](crate::frozen::Frozen) model reads them
    /// once.
    pub trunk: usize,
}

impl Sample {
    /// Whether what it asks about is there.
    ///
    /// # Errors
    /// [`Error::Input`] that names the first that is not.
    pub fn check(&self) -> Result<(), Error> {
        let length = self.tokens.len();
        if let Some(at) = self.asked.iter().find(|at| !(1..length).contains(at)) {
            return Err(Error::Input(format!("token {at} is asked about; there are {length}, and the first has no log-prob")));
        }
        if self.trunk > length {
            return Err(Error::Input(format!("a trunk of {} tokens is longer than its sequence of {length}", self.trunk)));
        }
        Ok(())
    }
}

/// A token whose log-prob is wanted: the row that predicts it and its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Row in the batch, of the token *before*.
    pub row: usize,
    /// Id of the token predicted.
    pub token: u32,
}

/// Samples end to end, and the targets of all that they ask.
pub fn lay_out(config: &ModelConfig, samples: &[Sample]) -> Result<(Batch, Vec<Target>), Error> {
    let mut batch = Batch::default();
    let mut targets = vec![];
    for sample in samples {
        sample.check()?;
        let start = batch.rows.tokens.len();
        batch.push(config, &sample.tokens, &sample.pictures)?;
        targets.extend(sample.asked.iter().map(|at| Target { row: start + at - 1, token: sample.tokens[*at] }));
    }
    Ok((batch, targets))
}

/// Hidden states \[rows, d\] of a batch.
pub fn hidden<B: Kernels>(model: &Model<B>, config: &ModelConfig, batch: &Batch, device: &B::Device) -> Tensor<B, 2> {
    let segments = Segments::of_lengths(&batch.lengths, true, config.text.num_attention_heads, config.text.num_key_value_heads);
    hidden_of(model, config, batch, &mut &*segments, device)
}

/// As [`hidden`]; which row sees which is `attend`'s business.
pub fn hidden_of<B: Kernels>(
    model: &Model<B>,
    config: &ModelConfig,
    batch: &Batch,
    attend: &mut impl Attend<B>,
    device: &B::Device,
) -> Tensor<B, 2> {
    let pictures: Vec<_> = batch.pictures.iter().map(AsRef::as_ref).collect();
    let visual = model.encode_images(&pictures, device);
    model.hidden(config, &batch.rows, visual.as_ref(), attend, device)
}

/// Log-probs \[targets\] at `temperature` (logits are divided by it), differentiable.
pub fn logprobs<B: Kernels>(model: &Model<B>, hidden: Tensor<B, 2>, targets: &[Target], temperature: f64) -> Tensor<B, 1> {
    let device = hidden.device();
    guards::must(guards::below("row", targets.iter().map(|target| target.row), hidden.dims()[0]));
    let rows: Vec<i64> = targets.iter().map(|target| target.row as i64).collect();
    let rows = Tensor::<B, 1, Int>::from_data(TensorData::new(rows, [targets.len()]), &device);
    let asked = Asked { tokens: targets.iter().map(|target| target.token).collect(), temperature };
    ops::token_logprobs(hidden.select(0, rows), model.head(), &asked)
}

/// Cuts what belongs to all targets into what belongs to each sample; every target has as many values.
pub fn per_sample<T: Clone>(samples: &[Sample], mut values: &[T]) -> Vec<Vec<T>> {
    let targets: usize = samples.iter().map(|sample| sample.asked.len()).sum();
    let width = values.len() / targets.max(1);
    let own = |sample: &Sample| {
        let (own, others) = values.split_at(sample.asked.len() * width);
        values = others;
        own.to_vec()
    };
    samples.iter().map(own).collect()
}

/// Cuts samples of these lengths into runs of up to `budget` tokens (at least one sample), in order, so that siblings stay
/// together and share their pictures. Runs are as many as whole waves of `lanes` take, and as even as that allows.
pub fn even_runs(lengths: &[usize], budget: usize, lanes: usize) -> Vec<Range<usize>> {
    let needed = cut(lengths, budget).len().next_multiple_of(lanes.max(1));
    let total: usize = lengths.iter().sum();
    // The smallest budget that needs no more waves.
    let (mut low, mut high) = (total / needed.max(1), budget.min(total));
    while low < high {
        let middle = low + (high - low) / 2;
        if cut(lengths, middle).len() <= needed { high = middle } else { low = middle + 1 }
    }
    cut(lengths, high)
}

fn cut(lengths: &[usize], budget: usize) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = vec![];
    let mut room = 0;
    for (index, length) in lengths.iter().enumerate() {
        match runs.last_mut().filter(|_| *length <= room) {
            Some(run) => {
                run.end = index + 1;
                room -= length;
            }
            None => {
                runs.push(index..index + 1);
                room = budget.saturating_sub(*length);
            }
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_keep_the_order_hold_the_budget_and_fill_whole_waves_evenly() {
        assert_eq!(even_runs(&[256; 8], 1024, 2), [0..4, 4..8]);
        assert_eq!(even_runs(&[256; 8], 2048, 2), [0..4, 4..8], "one run would leave a lane idle");
        assert_eq!(even_runs(&[300; 7], 1024, 2), [0..2, 2..4, 4..6, 6..7]);
        assert_eq!(even_runs(&[5000, 10, 10], 1024, 1), [0..1, 1..3], "a sample over the budget goes alone");
        assert_eq!(even_runs(&[10, 20], usize::MAX, 4), [0..1, 1..2]);
        assert!(even_runs(&[], 1024, 2).is_empty());
    }
}
