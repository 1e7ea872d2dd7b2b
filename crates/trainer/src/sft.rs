//! Cold start: supervised training on demonstrations.
//!
//! In: samples whose trained tokens carry weights. Out: weights after each step, through a callback. The loss is the
//! weighted mean negative log-prob; the rate warms up linearly and decays by a cosine. What a step draws is in a [`Cursor`], so
//! that a run which goes on from its [`checkpoint`] ends with the bits of one that was not cut.

pub mod checkpoint;

use std::sync::Arc;

use hypereyes_domain::{IMAGE_SEARCH, Trajectory};
use hypereyes_pictures::{Processor, RgbImage};
use hypereyes_policy::Error;
use hypereyes_policy::device::Device;
use hypereyes_policy::score::Sample;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
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
    /// Peak learning rate.
    pub lr: f64,
    /// Learning rate at the end, as a share of the peak.
    pub final_lr: f64,
    /// Steps of linear warm-up.
    pub warmup: usize,
    /// Weight of observation tokens in the loss. Default 0: the agent's own tokens only. What searches find cannot be
    /// predicted, and weight spent on it was seen to slow everything else.
    pub observation_weight: f64,
    /// Share of look-up drills among the sequences of the blind steps.
    pub blind_drills: f64,
    /// Share of look-up drills afterwards.
    pub drills: f64,
    /// Share of picture tasks that are shown without their picture afterwards, so that reading is not forgotten.
    pub blind_share: f64,
    /// Share of the picture tasks shown with their picture that end after the first turn: where the pictures are is
    /// learned from many mosaics, and a glance costs a quarter of a whole demonstration.
    pub glances: f64,
    /// First steps that train without pictures: they are cut from the prompts, and turns that search them are not
    /// trained. Reading and choosing are then learned from what searches found, before looking is.
    pub blind_steps: usize,
    /// Where the model is trained: `cpu`, `cuda` or `cuda-bf16`. Default `cpu`.
    pub device: Device,
    /// Tokens of one pass; a step is several passes. Small enough that a pass stays in the caches.
    pub micro_tokens: usize,
    /// Steps between checkpoints; 0 writes one only when the run is stopped by a signal. Default 50.
    pub checkpoint_every: usize,
}

impl SftConfig {
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
            lr: 2e-3,
            final_lr: 0.05,
            warmup: 30,
            observation_weight: 0.0,
            blind_drills: 0.5,
            drills: 0.08,
            blind_share: 0.15,
            glances: 0.4,
            blind_steps: 430,
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
        for (key, share) in
            [("blind_drills", self.blind_drills), ("drills", self.drills), ("blind_share", self.blind_share), ("glances", self.glances)]
        {
            if !(0.0..=1.0).contains(&share) {
                return refuse(key, &share, "give a share within 0..=1");
            }
        }
        for (key, value) in [("lr", self.lr), ("final_lr", self.final_lr), ("observation_weight", self.observation_weight)] {
            if !(value.is_finite() && value >= 0.0) {
                return refuse(key, &value, "give a finite number of at least 0");
            }
        }
        for (key, value) in [("steps", self.steps), ("batch_tokens", self.batch_tokens), ("micro_tokens", self.micro_tokens)] {
            if value == 0 {
                return refuse(key, &value, "give at least 1");
            }
        }
        if self.lr > MOST_RATE || self.final_lr > MOST_RATE {
            return refuse(if self.lr > MOST_RATE { "lr" } else { "final_lr" }, &self.lr.max(self.final_lr), "give at most 10");
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
    /// Whether the step trained without pictures.
    pub blind: bool,
}

/// A demonstration ready for training. Pictures stay pixels until a step needs them: as patches they are eight times as
/// large, and a data set has thousands.
#[derive(Clone, Debug)]
pub struct Example {
    sample: Sample,
    pictures: Vec<Arc<RgbImage>>,
    /// Per trained token: who wrote it.
    authors: Vec<Author>,
}

/// Who wrote a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Author {
    /// The agent, in a turn that searches a picture.
    Looking,
    /// The agent, in any other turn.
    Agent,
    /// The environment.
    Environment,
}

impl Author {
    fn weight(self, config: &SftConfig, blind: bool) -> f32 {
        match self {
            Author::Looking if blind => 0.0,
            Author::Looking | Author::Agent => 1.0,
            Author::Environment => config.observation_weight as f32,
        }
    }
}

impl Example {
    /// Takes a demonstration and its pictures, in order of appearance.
    pub fn new(trajectory: &Trajectory, pictures: Vec<Arc<RgbImage>>) -> Self {
        let start = trajectory.prompt.len();
        let tokens: Vec<u32> = trajectory.prompt.iter().chain(&trajectory.response).copied().collect();
        let (mut authors, mut turn) = (vec![], 0);
        let mut before = false;
        for sampled in &trajectory.mask {
            // Turns are the runs of sampled tokens; turn i made round i, and the last one answered.
            turn += usize::from(before && !sampled);
            before = *sampled;
            let round = trajectory.course.rounds.get(turn);
            let looks = round.and_then(|round| round.call.as_deref()).is_some_and(|call| call.tool == IMAGE_SEARCH);
            authors.push(match (sampled, looks) {
                (true, true) => Author::Looking,
                (true, false) => Author::Agent,
                (false, _) => Author::Environment,
            });
        }
        let trained = (start..tokens.len()).collect();
        Self { sample: Sample { tokens, pictures: vec![], asked: trained, trunk: 0 }, pictures, authors }
    }

    /// The demonstration up to the end of its first turn.
    fn glance(&self, image_tokens: [u32; 3]) -> Self {
        let first = self.authors.iter().position(|author| *author == Author::Environment).unwrap_or(self.authors.len());
        let (mut sample, start) = (self.sample.clone(), self.sample.asked[0]);
        sample.tokens.truncate(start + first);
        sample.asked.truncate(first);
        let [_, vision_start, _] = image_tokens;
        let seen = sample.tokens.iter().filter(|token| **token == vision_start).count();
        Self { sample, pictures: self.pictures.iter().take(seen).cloned().collect(), authors: self.authors[..first].to_vec() }
    }

    /// Tokens, pictures cut away if blind, and the weight of each trained token.
    fn view(&self, config: &SftConfig, processor: &Processor, image_tokens: [u32; 3], blind: bool) -> (Sample, Vec<f32>) {
        let weights = |authors: &[Author]| authors.iter().map(|author| author.weight(config, blind)).collect();
        if !blind || self.pictures.is_empty() {
            let pictures = self.pictures.iter().map(|picture| Arc::new(processor.patches(picture))).collect();
            return (Sample { pictures, ..self.sample.clone() }, weights(&self.authors));
        }
        let mut sample = Sample::default();
        let mut authors = vec![];
        let start = self.sample.asked[0];
        for (at, token) in self.sample.tokens.iter().enumerate() {
            if image_tokens.contains(token) {
                continue;
            }
            if at >= start {
                sample.asked.push(sample.tokens.len());
                authors.push(self.authors[at - start]);
            }
            sample.tokens.push(*token);
        }
        (sample, weights(&authors))
    }
}

/// Learning rate of a step under linear warm-up and cosine decay.
pub fn learning_rate(config: &SftConfig, step: usize) -> f64 {
    if step < config.warmup {
        return config.lr * (step + 1) as f64 / config.warmup as f64;
    }
    let share = (step - config.warmup) as f64 / (config.steps.saturating_sub(config.warmup)).max(1) as f64;
    let floor = config.lr * config.final_lr;
    floor + (config.lr - floor) * 0.5 * (1.0 + (std::f64::consts::PI * share.min(1.0)).cos())
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

/// Trains from `cursor` to `config.steps`, if the settings pass [`SftConfig::check`]; `report` sees every step, with the cursor
/// behind it, and may stop by returning false.
///
/// # Errors
/// [`TrainError`] for settings, examples, or a cursor of other ones.
pub fn train(
    trainer: &mut Trainer,
    examples: &[Example],
    drills: &[Example],
    processor: &Processor,
    config: &SftConfig,
    cursor: &mut Cursor,
    mut report: impl FnMut(&mut Trainer, &Cursor, SftStep) -> bool,
) -> Result<(), TrainError> {
    config.check()?;
    if examples.is_empty() {
        return Err(Error::Input("there are no demonstrations to train on".into()).into());
    }
    if cursor.order.iter().any(|index| *index >= examples.len()) {
        return Err(Error::Input(format!("the checkpoint is of another data set than these {} demonstrations", examples.len())).into());
    }
    let model = trainer.config();
    let image_tokens = [model.image_token_id, model.vision_start_token_id, model.vision_end_token_id];
    let mut random = cursor.random();
    for step in cursor.step..config.steps {
        let blind = step < config.blind_steps;
        let (mut samples, mut weights, mut tokens) = (vec![], vec![], 0);
        while tokens < config.batch_tokens {
            let share = if blind { config.blind_drills } else { config.drills };
            let example = if !drills.is_empty() && random.random_bool(share) {
                &drills[random.random_range(0..drills.len())]
            } else {
                let Some(index) = cursor.order.pop() else {
                    cursor.order = (0..examples.len()).collect();
                    cursor.order.shuffle(&mut random);
                    continue;
                };
                &examples[index]
            };
            let hide = blind || random.random_bool(config.blind_share);
            let glanced =
                (!hide && !example.pictures.is_empty() && random.random_bool(config.glances)).then(|| example.glance(image_tokens));
            let (sample, weight) = glanced.as_ref().unwrap_or(example).view(config, processor, image_tokens, hide);
            tokens += sample.tokens.len();
            samples.push(sample);
            weights.push(weight);
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
        let measured = SftStep { step: step + 1, loss, likely: likely as f64 / own.max(1) as f64, grad_norm, lr, tokens, blind };
        if !report(trainer, cursor, measured) {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use hypereyes_domain::{Call, Course, Ending, PictureId, Round};

    use super::*;

    const IMAGE: [u32; 3] = [90, 91, 92];

    /// A prompt with a picture, a turn that looks, an observation with a second picture, an answer.
    fn example() -> Example {
        let area = hypereyes_domain::Area { x1: 0.0, y1: 0.0, x2: 1.0, y2: 1.0 };
        let call = Call::image_search("img_0", &[area]);
        let trajectory = Trajectory {
            prompt: vec![1, 91, 90, 90, 92, 2],
            response: vec![10, 11, 30, 91, 90, 92, 12],
            mask: vec![true, true, false, false, false, false, true],
            logprobs: vec![0.0; 7],
            versions: vec![Default::default(); 7],
            pictures: vec![PictureId::new("one"), PictureId::new("two")],
            course: Course {
                rounds: vec![Round { call: Some(Box::new(call)), ..Round::counted(1, 0) }],
                ending: Ending::Answered,
                answer: Some("yes".into()),
            },
        };
        let pictures = [1, 2].map(|side| Arc::new(RgbImage::new(32 * side, 32)));
        Example::new(&trajectory, pictures.to_vec())
    }

    #[test]
    fn a_glance_is_the_first_turn_with_the_pictures_it_has_seen() {
        let glance = example().glance(IMAGE);
        assert_eq!(glance.sample.tokens, [1, 91, 90, 90, 92, 2, 10, 11]);
        assert_eq!(glance.sample.asked, [6, 7]);
        assert_eq!(glance.authors, [Author::Looking; 2]);
        assert_eq!(glance.pictures.iter().map(|picture| picture.width()).collect::<Vec<_>>(), [32]);
    }

    #[test]
    fn blind_views_lose_the_picture_and_the_turns_that_looked() {
        let (sample, weights) = example().view(&SftConfig::default(), &Processor::default(), IMAGE, true);
        assert_eq!(sample.tokens, [1, 2, 10, 11, 30, 12]);
        assert_eq!((sample.asked, sample.pictures.len()), (vec![2, 3, 4, 5], 0));
        assert_eq!(weights, [0.0, 0.0, 0.0, 1.0]);
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
        let error = SftConfig { glances: 1.5, ..SftConfig::default() }.check().expect_err("a share of 1.5").to_string();
        assert!(error.contains("sft.glances is 1.5"), "{error}");
        assert!(SftConfig { lr: f64::NAN, ..SftConfig::default() }.check().is_err());
        assert!(SftConfig { batch_tokens: 0, ..SftConfig::default() }.check().is_err());
    }

    #[test]
    fn the_rate_warms_up_and_decays_to_its_floor() {
        let config = SftConfig { steps: 100, warmup: 10, lr: 1.0, final_lr: 0.1, ..SftConfig::default() };
        assert_eq!(learning_rate(&config, 0), 0.1);
        assert_eq!(learning_rate(&config, 10), 1.0);
        assert!((learning_rate(&config, 100) - 0.1).abs() < 1e-12);
        assert!((10..99).all(|step| learning_rate(&config, step) > learning_rate(&config, step + 1)));
    }
}
