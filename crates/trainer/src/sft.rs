//! Cold start: supervised training on demonstrations.
//!
//! In: a [`Source`] of sequences whose trained tokens carry weights; [`Plain`] shows every demonstration whole, once per pass. Out:
//! weights after each step, through a callback. The loss is the weighted mean negative log-prob; the rate warms up linearly and
//! decays by a cosine. What a step draws is in a [`Cursor`], so that a run which goes on from its [`checkpoint`] ends with the bits
//! of one that was not cut.

pub mod checkpoint;
#[cfg(test)]
mod packed;

use std::sync::Arc;

use hypereyes_domain::Trajectory;
use hypereyes_pictures::{Processor, RgbImage};
use hypereyes_policy::Error;
use hypereyes_policy::device::Device;
use hypereyes_policy::score::Sample;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::placement::Placement;
use crate::trainer::Trainer;

/// Settings of the cold start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SftConfig {
    /// Optimiser steps.
    pub steps: usize,
    /// Tokens per step, about.
    pub batch_tokens: usize,
    /// Peak learning rate. Default the recipe's: 1e-5 for plain training of all parameters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
    /// Learning rate at the end, as a share of the peak.
    pub final_lr: f64,
    /// Steps of linear warm-up.
    pub warmup: usize,
    /// Weight of observation tokens in the loss. Default 0: the agent's own tokens only. What searches find cannot be
    /// predicted, and weight spent on it was seen to slow everything else.
    pub observation_weight: f64,
    /// Where the model is trained: `cpu`, `cuda` or `cuda-bf16`. Default `cpu`.
    pub device: Device,
    /// Tokens of one pass; a step is several passes. Small enough that a pass stays in the caches.
    pub micro_tokens: usize,
    /// Steps between checkpoints; 0 writes one only when the run is stopped by a signal. Default 50.
    pub checkpoint_every: usize,
}

impl SftConfig {
    /// The peak learning rate.
    pub fn peak(&self) -> f64 {
        self.lr.unwrap_or(PLAIN_LR)
    }

    /// Where and how the model is passed through.
    pub fn placement(&self) -> Placement {
        Placement { device: self.device, micro_tokens: self.micro_tokens }
    }
}

impl Default for SftConfig {
    fn default() -> Self {
        Self {
            steps: 2000,
            batch_tokens: 2048,
            lr: None,
            final_lr: 0.05,
            warmup: 30,
            observation_weight: 0.0,
            device: Device::Cpu,
            micro_tokens: 2048,
            checkpoint_every: 50,
        }
    }
}

impl SftConfig {
    /// Refuses what cannot be trained with, naming the key.
    pub fn check(&self) -> Result<(), Error> {
        let refuse = |key: &str, value: &dyn std::fmt::Display, fix: &str| Err(Error::Input(format!("sft.{key} is {value}: {fix}")));
        for (key, value) in [("lr", self.peak()), ("final_lr", self.final_lr), ("observation_weight", self.observation_weight)] {
            if !(value.is_finite() && value >= 0.0) {
                return refuse(key, &value, "give a finite number of at least 0");
            }
        }
        for (key, value) in [("steps", self.steps), ("batch_tokens", self.batch_tokens), ("micro_tokens", self.micro_tokens)] {
            if value == 0 {
                return refuse(key, &value, "give at least 1");
            }
        }
        for (key, rate) in [("lr", self.peak()), ("final_lr", self.final_lr)] {
            if rate > MOST_RATE {
                return refuse(key, &rate, "give at most 10");
            }
        }
        if self.observation_weight > MOST_WEIGHT {
            return refuse("observation_weight", &self.observation_weight, "give at most 1000; the agent's own tokens weigh 1");
        }
        if self.batch_tokens > MOST_TOKENS {
            return refuse("batch_tokens", &self.batch_tokens, "give at most 16777216: a step is held in memory");
        }
        Ok(())
    }
}

/// Peak learning rate of plain training, usual for all parameters of a pretrained model; adapters take ten times as much.
const PLAIN_LR: f64 = 1e-5;
/// Learning rates above this move every weight out of its range in one step.
const MOST_RATE: f64 = 10.0;
/// Weights of observations above this leave nothing of the agent's own tokens.
const MOST_WEIGHT: f64 = 1000.0;
/// Tokens of a step above this are a slip.
const MOST_TOKENS: usize = 1 << 24;

/// What one step measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SftStep {
    /// Steps done.
    pub step: usize,
    /// Weighted mean negative log-prob.
    pub loss: f64,
    /// Share of the agent's tokens that are more likely than not, a cheap stand-in for accuracy.
    pub likely: f64,
    /// Gradient norm before clipping.
    pub grad_norm: f64,
    /// Learning rate used.
    pub lr: f64,
    /// Tokens in the step.
    pub tokens: usize,
    /// Sequences in the step.
    pub sequences: usize,
    /// Passes that they were packed into.
    pub passes: usize,
    /// What the source says of the step, for people; empty where there is nothing to say.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub note: &'static str,
}

/// A demonstration ready for training. Pictures stay pixels until a step needs them: as patches they are eight times as
/// large, and a data set has thousands.
#[derive(Clone, Debug, Default)]
pub struct Example {
    /// All token ids, the prompt's first.
    pub tokens: Vec<u32>,
    /// Tokens of the prompt; all others are trained.
    pub start: usize,
    /// Pictures, in order of appearance.
    pub pictures: Vec<Arc<RgbImage>>,
    /// Who wrote each trained token.
    pub authors: Vec<Author>,
}

/// Who wrote a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Author {
    /// The agent.
    Agent,
    /// The environment.
    Environment,
}

impl Author {
    /// What a token counts in the loss, where an observation's counts `observation_weight` and the agent's own 1.
    pub fn weight(self, observation_weight: f64) -> f32 {
        match self {
            Author::Agent => 1.0,
            Author::Environment => observation_weight as f32,
        }
    }
}

impl Example {
    /// Takes a demonstration and its pictures, in order of appearance.
    pub fn new(trajectory: &Trajectory, pictures: Vec<Arc<RgbImage>>) -> Self {
        let author = |sampled: &bool| if *sampled { Author::Agent } else { Author::Environment };
        Self {
            tokens: trajectory.prompt.iter().chain(&trajectory.response).copied().collect(),
            start: trajectory.prompt.len(),
            pictures,
            authors: trajectory.mask.iter().map(author).collect(),
        }
    }

    /// As the trainer reads it, pictures cut into patches.
    pub fn sample(&self, processor: &Processor) -> Sample {
        Sample {
            tokens: self.tokens.clone(),
            pictures: self.pictures.iter().map(|picture| Arc::new(processor.patches(picture))).collect(),
            asked: (self.start..self.tokens.len()).collect(),
            trunk: 0,
        }
    }
}

/// A sequence of a step, and the weight of each of its trained tokens.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    /// The sequence.
    pub sample: Sample,
    /// One weight per asked token.
    pub weights: Vec<f32>,
}

/// What steps draw their sequences from.
pub trait Source {
    /// Demonstrations of a pass.
    fn count(&self) -> usize;

    /// The next sequence of step number `step`, from 0. It may depend on the step, the deck and the deck's random numbers, so that
    /// a run which goes on draws as one that was not cut.
    fn next(&self, step: usize, deck: &mut Deck<'_>) -> Shown;

    /// What is to be said of a step, for people.
    fn note(&self, _step: usize) -> &'static str {
        ""
    }
}

/// Every demonstration whole, with its pictures, once per pass in random order.
pub struct Plain {
    /// The demonstrations.
    pub examples: Vec<Example>,
    /// What cuts pictures into patches.
    pub processor: Processor,
    /// Weight of observation tokens in the loss.
    pub observation_weight: f64,
}

impl Source for Plain {
    fn count(&self) -> usize {
        self.examples.len()
    }

    fn next(&self, _: usize, deck: &mut Deck<'_>) -> Shown {
        let example = &self.examples[deck.deal()];
        let weights = example.authors.iter().map(|author| author.weight(self.observation_weight)).collect();
        Shown { sample: example.sample(&self.processor), weights }
    }
}

/// Demonstrations of the pass under way, and random numbers, both of a [`Cursor`].
pub struct Deck<'a> {
    order: &'a mut Vec<usize>,
    count: usize,
    /// Random numbers, for whatever a source draws besides.
    pub random: &'a mut ChaCha8Rng,
}

impl Deck<'_> {
    /// The next demonstration; `None` when the pass is over.
    pub fn draw(&mut self) -> Option<usize> {
        self.order.pop()
    }

    /// Begins the next pass, in another order.
    pub fn shuffle(&mut self) {
        *self.order = (0..self.count).collect();
        self.order.shuffle(self.random);
    }

    /// The next demonstration, of the next pass where this one is over.
    pub fn deal(&mut self) -> usize {
        loop {
            match self.draw() {
                Some(index) => return index,
                None => self.shuffle(),
            }
        }
    }
}

/// Learning rate of a step under linear warm-up and cosine decay.
pub fn learning_rate(config: &SftConfig, step: usize) -> f64 {
    if step < config.warmup {
        return config.peak() * (step + 1) as f64 / config.warmup as f64;
    }
    let share = (step - config.warmup) as f64 / (config.steps.saturating_sub(config.warmup)).max(1) as f64;
    let floor = config.peak() * config.final_lr;
    floor + (config.peak() - floor) * 0.5 * (1.0 + (std::f64::consts::PI * share.min(1.0)).cos())
}

/// Where a run is between two steps: what the next one depends on besides weights and moments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// Steps done.
    pub step: usize,
    /// Tokens trained on so far.
    pub tokens: u64,
    /// Demonstrations of the pass under way that are still to be drawn, the next one last.
    order: Vec<usize>,
    seed: u64,
    /// Words that the generator has given, in two halves.
    drawn: [u64; 2],
}

impl Cursor {
    /// Before the first step.
    pub fn new(seed: u64) -> Self {
        Self { step: 0, tokens: 0, order: vec![], seed, drawn: [0; 2] }
    }

    fn random(&self) -> ChaCha8Rng {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        random.set_word_pos(u128::from(self.drawn[0]) << 64 | u128::from(self.drawn[1]));
        random
    }

    fn keep(&mut self, random: &ChaCha8Rng) {
        let drawn = random.get_word_pos();
        self.drawn = [(drawn >> 64) as u64, drawn as u64];
    }
}

/// Trains from `cursor` to `config.steps`, if the settings pass [`SftConfig::check`]; each step takes sequences from `source` until it has `config.batch_tokens`; `report` sees every step, with the cursor
/// behind it, and may stop by returning false.
///
/// # Errors
/// [`TrainError`] for settings, sequences, or a cursor of other demonstrations.
pub fn train(
    trainer: &mut Trainer,
    source: &dyn Source,
    config: &SftConfig,
    cursor: &mut Cursor,
    mut report: impl FnMut(&mut Trainer, &Cursor, SftStep) -> bool,
) -> Result<(), TrainError> {
    config.check()?;
    let count = source.count();
    if count == 0 {
        return Err(Error::Input("there are no demonstrations to train on".into()).into());
    }
    if cursor.order.iter().any(|index| *index >= count) {
        return Err(Error::Input(format!("the checkpoint is of another data set than these {count} demonstrations")).into());
    }
    let mut random = cursor.random();
    for step in cursor.step..config.steps {
        let (mut samples, mut weights, mut tokens) = (vec![], vec![], 0);
        while tokens < config.batch_tokens {
            let mut deck = Deck { order: &mut cursor.order, count, random: &mut random };
            let shown = source.next(step, &mut deck);
            tokens += shown.sample.tokens.len();
            samples.push(shown.sample);
            weights.push(shown.weights);
        }
        let total: f32 = weights.iter().flat_map(|weights| weights.iter()).sum();
        let (mut loss, mut likely, mut own) = (0.0f64, 0usize, 0usize);
        trainer.accumulate(&samples, 1.0, |run, logprobs| {
            let coefficients = |(weights, logprobs): (&Vec<f32>, &Vec<f32>)| -> Vec<f32> {
                for (logprob, weight) in logprobs.iter().zip(weights) {
                    loss -= f64::from(logprob * weight / total);
                    if *weight == 1.0 {
                        own += 1;
                        likely += usize::from(*logprob > -std::f32::consts::LN_2);
                    }
                }
                weights.iter().map(|weight| -weight / total).collect()
            };
            weights[run].iter().zip(logprobs).map(coefficients).collect()
        })?;
        let lr = learning_rate(config, step);
        let grad_norm = trainer.step(lr)?;
        (cursor.step, cursor.tokens) = (step + 1, cursor.tokens + tokens as u64);
        cursor.keep(&random);
        let measured = SftStep {
            step: step + 1,
            loss,
            likely: likely as f64 / own.max(1) as f64,
            grad_norm,
            lr,
            tokens,
            sequences: samples.len(),
            passes: trainer.passes(&samples).len(),
            note: source.note(step),
        };
        if !report(trainer, cursor, measured) {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    #[test]
    fn plain_training_shows_every_demonstration_whole_once_per_pass() {
        let example = |token: u32| Example {
            tokens: vec![token, 10, 11, 30, 12],
            start: 1,
            pictures: vec![Arc::new(RgbImage::new(32, 32))],
            authors: [true, true, false, true].map(|agent| if agent { Author::Agent } else { Author::Environment }).to_vec(),
        };
        let source = Plain { examples: (0..5).map(example).collect(), processor: Processor::default(), observation_weight: 0.0 };
        let (mut order, mut random) = (vec![], ChaCha8Rng::seed_from_u64(3));
        let mut deck = Deck { order: &mut order, count: source.count(), random: &mut random };
        for _ in 0..3 {
            let shown: Vec<Shown> = (0..5).map(|_| source.next(0, &mut deck)).collect();
            let mut seen: Vec<u32> = shown.iter().map(|shown| shown.sample.tokens[0]).collect();
            seen.sort_unstable();
            assert_eq!(seen, [0, 1, 2, 3, 4], "each once");
            for Shown { sample, weights } in &shown {
                assert_eq!((sample.asked.as_slice(), weights.as_slice()), (&[1, 2, 3, 4][..], &[1.0, 1.0, 0.0, 1.0][..]));
                assert_eq!((sample.tokens.len(), sample.pictures.len()), (5, 1), "nothing is cut off or hidden");
            }
        }
        assert_eq!(source.note(0), "");
    }

    #[test]
    fn a_cursor_goes_on_where_it_was_kept() {
        let mut cursor = Cursor::new(7);
        let mut random = cursor.random();
        for _ in 0..100 {
            let bools = (0..random.random_range(1..50)).filter(|_| random.random_bool(0.3)).count();
            assert!(bools < 50);
            cursor.keep(&random);
            let text = serde_json::to_string(&cursor).unwrap();
            assert_eq!(serde_json::from_str::<Cursor>(&text).unwrap().random().random::<u64>(), random.clone().random::<u64>());
        }
        let far = Cursor { drawn: [3, u64::MAX - 1], ..cursor };
        assert_eq!(far.random().get_word_pos(), (3 << 64) + u128::from(u64::MAX - 1));
    }

    #[test]
    fn settings_that_cannot_be_trained_with_are_named() {
        SftConfig::default().check().expect("defaults");
        assert!(SftConfig { lr: Some(f64::NAN), ..SftConfig::default() }.check().is_err());
        assert!(SftConfig { batch_tokens: 0, ..SftConfig::default() }.check().is_err());
    }

    #[test]
    fn the_rate_warms_up_and_decays_to_its_floor() {
        let config = SftConfig { steps: 100, warmup: 10, lr: Some(1.0), final_lr: 0.1, ..SftConfig::default() };
        assert_eq!(learning_rate(&config, 0), 0.1);
        assert_eq!(learning_rate(&config, 10), 1.0);
        assert!((learning_rate(&config, 100) - 0.1).abs() < 1e-12);
        assert!((10..99).all(|step| learning_rate(&config, step) > learning_rate(&config, step + 1)));
    }
}
