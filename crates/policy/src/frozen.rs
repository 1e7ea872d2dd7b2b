//! Models that are only asked: what they say of given tokens. Teacher and commands use this.
//!
//! In: samples. Out: log-probs of their asked tokens, and the most likely ones where wanted. Siblings share their prompt: its
//! rows are computed once, as a trunk from which the siblings branch out. Nothing here has a gradient.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData};

use crate::Error;
use crate::batch::Batch;
use crate::checkpoint::{self, HostWeights};
use crate::config::ModelConfig;
use crate::device::{Device, OnDevice};
use crate::faults;
use crate::lanes::Lanes;
use crate::models::{Model, Vlm};
use crate::ops::{Branches, Kernels, Segments};
use crate::score::{self, Sample, Target};

/// What to say of asked tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoreOptions {
    /// Logits are divided by it.
    pub temperature: f64,
    /// Most likely tokens to name at each place, at most [`MAX_TOP`]; 0 names none.
    pub top: usize,
}

impl ScoreOptions {
    /// Log-probs at temperature 1 and nothing else.
    pub const PLAIN: Self = Self { temperature: 1.0, top: 0 };
}

/// Most tokens that are named at one place.
pub const MAX_TOP: usize = 64;

/// What a model says of a sample's asked tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenScores {
    /// \[asked\] Log-prob of each.
    pub logprobs: Vec<f32>,
    /// \[asked * top\] The most likely tokens at each place, the likeliest first; of equals the lower id.
    pub top: Vec<(u32, f32)>,
}

/// A model that is only asked, on whichever device.
pub trait Frozen: Send {
    /// What it says of the asked tokens, one answer per sample; one pass per lane of cores. Neighbours that begin with the same
    /// trunk share its rows.
    ///
    /// # Errors
    /// [`Error::Input`] when a sample does not fit the model.
    fn score(&self, samples: &[Sample], wanted: ScoreOptions) -> Result<Vec<TokenScores>, Error>;
}

/// Puts a model on a device, to be asked; on the CPU, on up to `most_lanes` lanes.
///
/// # Errors
/// [`Error`] when the weights do not fit the shape, there is no such device, or it does not [admit](Device::admits) the model.
pub fn freeze(config: &ModelConfig, weights: &HostWeights, device: Device, most_lanes: usize) -> Result<Box<dyn Frozen>, Error> {
    device.admits(config)?;
    freeze_to_verify(config, weights, device, most_lanes)
}

/// As [`freeze`], also where the device has not been shown to be right for the model: for whoever compares what it says with what
/// is right.
///
/// # Errors
/// As [`freeze`].
pub fn freeze_to_verify(config: &ModelConfig, weights: &HostWeights, device: Device, most_lanes: usize) -> Result<Box<dyn Frozen>, Error> {
    let lanes = Lanes::of_this_pool(if device.has_lanes() { most_lanes } else { 1 })?;
    device.run(Freeze { config: config.clone(), weights, lanes })?
}

struct Freeze<'a> {
    config: ModelConfig,
    weights: &'a HostWeights,
    lanes: Lanes,
}

impl OnDevice for Freeze<'_> {
    type Output = Result<Box<dyn Frozen>, Error>;

    fn run<B: Kernels>(self, device: B::Device) -> Self::Output {
        let Self { config, weights, lanes } = self;
        let model = checkpoint::from_host(Model::<B>::init(&config, 0, &device), weights)?;
        Ok(Box::new(Placed { config, lanes, model, device }))
    }
}

struct Placed<B: Kernels> {
    config: ModelConfig,
    lanes: Lanes,
    model: Model<B>,
    device: B::Device,
}

impl<B: Kernels> Frozen for Placed<B> {
    fn score(&self, samples: &[Sample], wanted: ScoreOptions) -> Result<Vec<TokenScores>, Error> {
        samples.iter().try_for_each(Sample::check)?;
        let alike = |at: usize| at > 0 && share_trunk(&samples[at - 1], &samples[at]);
        let rows = |(at, sample): (usize, &Sample)| sample.tokens.len() - if alike(at) { sample.trunk } else { 0 };
        let lengths: Vec<usize> = samples.iter().enumerate().map(rows).collect();
        let runs = score::even_runs(&lengths, usize::MAX, self.lanes.count());
        let pass = |_, run: Range<usize>| score(&self.config, &self.model, &self.device, &samples[run], wanted);
        let parts: Result<Vec<Vec<TokenScores>>, Error> = self.lanes.map(runs, pass).into_iter().collect();
        Ok(parts?.concat())
    }
}

/// What a model says of samples in one pass; see [`Frozen::say`].
///
/// # Errors
/// [`Error::Input`] when a sample does not fit the model.
pub fn score<B: Kernels>(
    config: &ModelConfig,
    model: &Model<B>,
    device: &B::Device,
    samples: &[Sample],
    wanted: ScoreOptions,
) -> Result<Vec<TokenScores>, Error> {
    samples.iter().try_for_each(Sample::check)?;
    let (batch, targets) = branch_out(config, samples)?;
    if targets.is_empty() {
        return Ok(vec![TokenScores::default(); samples.len()]);
    }
    let heads = (config.text.num_attention_heads, config.text.num_key_value_heads);
    let hidden = score::hidden_of(model, config, &batch, &mut &branches(&batch, heads), device);
    Ok(cut(samples, &answer(model, hidden, &targets, wanted)?))
}

/// What is said of all targets.
fn answer<B: Kernels>(model: &Model<B>, hidden: Tensor<B, 2>, targets: &[Target], wanted: ScoreOptions) -> Result<TokenScores, Error> {
    if wanted.top == 0 {
        let logprobs = faults::floats(score::logprobs(model, hidden, targets, wanted.temperature))?;
        return Ok(TokenScores { logprobs, top: vec![] });
    }
    let mut said = TokenScores::default();
    for targets in targets.chunks(TOP_ROWS) {
        let rows: Vec<i64> = targets.iter().map(|target| target.row as i64).collect();
        let rows = Tensor::<B, 1, Int>::from_data(TensorData::new(rows, [targets.len()]), &hidden.device());
        let logits = faults::floats(model.logits(hidden.clone().select(0, rows)))?;
        for (row, target) in logits.chunks_exact(logits.len() / targets.len()).zip(targets) {
            let (own, top) = most_likely(row, target.token, wanted);
            said.logprobs.push(own);
            said.top.extend(top);
        }
    }
    Ok(said)
}

/// Rows of logits that are on the host at one time when the most likely tokens are named.
const TOP_ROWS: usize = 64;

/// Log-prob of `token`, and the most likely tokens with theirs.
fn most_likely(logits: &[f32], token: u32, wanted: ScoreOptions) -> (f32, Vec<(u32, f32)>) {
    let scale = wanted.temperature.recip() as f32;
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f32 = logits.iter().map(|logit| ((logit - highest) * scale).exp()).sum();
    let of = |logit: f32| (logit - highest) * scale - total.ln();
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    let likelier = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    let count = wanted.top.min(MAX_TOP).min(order.len());
    if count < order.len() {
        order.select_nth_unstable_by(count, likelier);
        order.truncate(count);
    }
    order.sort_unstable_by(likelier);
    (of(logits[token as usize]), order.into_iter().map(|id| (id, of(logits[id as usize]))).collect())
}

/// Whether two samples begin with the same trunk, pictures and all.
fn share_trunk(one: &Sample, other: &Sample) -> bool {
    let length = one.trunk;
    let same_pictures = one.pictures.iter().zip(&other.pictures).all(|(one, other)| Arc::ptr_eq(one, other));
    length > 0 && length == other.trunk && one.tokens[..length] == other.tokens[..length] && same_pictures
}

/// Samples end to end, what neighbours share only once, and the targets of all that they ask.
fn branch_out(config: &ModelConfig, samples: &[Sample]) -> Result<(Batch, Vec<Target>), Error> {
    let mut batch = Batch::default();
    let mut targets = vec![];
    for siblings in samples.chunk_by(share_trunk) {
        let first = &siblings[0];
        let length = if siblings.len() > 1 { first.trunk } else { 0 };
        let before = batch.rows.tokens.len();
        let trunk = match length {
            0 => None,
            _ => Some(batch.push_trunk(config, &first.tokens[..length], &first.pictures)?),
        };
        for Sample { tokens, pictures, asked, .. } in siblings {
            let start = batch.rows.tokens.len();
            match &trunk {
                Some(trunk) => batch.push_branch(config, trunk, &tokens[length..], &pictures[trunk.pictures..])?,
                None => batch.push(config, tokens, pictures)?,
            }
            let row = |at: usize| if at < length { before + at } else { start + at - length };
            targets.extend(asked.iter().map(|at| Target { row: row(at - 1), token: tokens[*at] }));
        }
    }
    Ok((batch, targets))
}

fn branches(batch: &Batch, (heads, kv_heads): (usize, usize)) -> Branches {
    let segments = Arc::unwrap_or_clone(Segments::of_lengths(&batch.lengths, true, heads, kv_heads));
    Branches { segments, trunks: batch.trunks.clone() }
}

/// What is said of each sample.
fn cut(samples: &[Sample], said: &TokenScores) -> Vec<TokenScores> {
    let (logprobs, top) = (score::per_sample(samples, &said.logprobs), score::per_sample(samples, &said.top));
    logprobs.into_iter().zip(top).map(|(logprobs, top)| TokenScores { logprobs, top }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_are_in_order_and_of_equals_the_lower_id_comes_first() {
        let logits = [0.0, 2.0, 1.0, 2.0, -1.0];
        let (own, top) = most_likely(&logits, 2, ScoreOptions { temperature: 1.0, top: 3 });
        assert_eq!(top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 3, 2]);
        assert_eq!(own, top[2].1);
        let (_, all) = most_likely(&logits, 2, ScoreOptions { temperature: 2.0, top: 9 });
        let total: f32 = all.iter().map(|(_, logprob)| logprob.exp()).sum();
        assert!(all.len() == 5 && (total - 1.0).abs() < 1e-6, "{total}");
    }
}
