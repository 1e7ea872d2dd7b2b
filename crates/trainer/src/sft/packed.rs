//! Several short demonstrations in one pass are as good as one by one: the same loss, the same gradients, no row that is no token.

use std::sync::Arc;

use hypereyes_pictures::{Processor, RgbImage};
use hypereyes_policy::config::{ModelConfig, SmallShape};
use hypereyes_policy::device::Device;
use hypereyes_policy::score::{self, Sample};
use hypereyes_policy::{checkpoint::HostWeights, init};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Author, Example};
use crate::layout::Gradients;
use crate::runner::{self, ModelRunner};
use crate::{OptimConfig, Placement, Trainer};

const VOCABULARY: usize = 64;
/// Placeholder of a merged cell of a picture.
const PAD: u32 = 61;

fn model() -> (ModelConfig, HostWeights) {
    let shape = SmallShape { width: 32, layers: 2, heads: 2, inner: 64, vision_width: 32, vision_depth: 1 };
    let model = shape.model(VOCABULARY, PAD, 62, 63);
    let weights = init::fresh(&model, &Default::default(), 5);
    (model, weights)
}

/// Demonstrations of very different lengths, every third with a picture of its own; agents and environments take turns.
fn examples(count: usize) -> Vec<Example> {
    let mut random = ChaCha8Rng::seed_from_u64(11);
    let example = |at: usize| {
        let (start, length) = (random.random_range(2..9), random.random_range(3..60));
        let mut tokens: Vec<u32> = (0..start + length).map(|_| random.random_range(0..PAD)).collect();
        let mut pictures = vec![];
        let mut prompt = start;
        if at.is_multiple_of(3) {
            // 64 x 64 pixels are four merged cells.
            tokens.splice(1..1, [PAD; 4]);
            prompt += 4;
            let shades = (0..64 * 64 * 3).map(|place| (place * (at + 3)) as u8).collect();
            pictures.push(Arc::new(RgbImage::from_raw(64, 64, shades).expect("of this size")));
        }
        let authors = (0..length).map(|at| if at % 7 < 4 { Author::Agent } else { Author::Environment }).collect();
        Example { tokens, start: prompt, pictures, authors }
    };
    (0..count).map(example).collect()
}

/// The loss of a set, as [`super::train`] has it, and its gradients, where `runs` says who shares a pass.
fn measured(
    runner: &dyn ModelRunner,
    config: &ModelConfig,
    samples: &[Sample],
    weights: &[Vec<f32>],
    runs: &[std::ops::Range<usize>],
) -> (f64, Gradients) {
    let total: f32 = weights.iter().flatten().sum();
    let (mut loss, mut sum) = (0.0, Gradients::new());
    for run in runs {
        let laid = score::lay_out(config, &samples[run.clone()]).expect("it fits");
        let wanted = weights[run.clone()].concat();
        let gradients = runner.gradients(vec![laid], 1.0, &mut |_, logprobs| {
            loss -= logprobs.iter().zip(&wanted).map(|(logprob, weight)| f64::from(logprob * weight / total)).sum::<f64>();
            wanted.iter().map(|weight| -weight / total).collect()
        });
        for (name, gradient) in gradients.into_iter().flatten().flatten() {
            match sum.get_mut(&name) {
                Some(sum) => sum.iter_mut().zip(gradient).for_each(|(sum, more)| *sum += more),
                None => drop(sum.insert(name, gradient)),
            }
        }
    }
    (loss, sum)
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum::<f64>().sqrt()
}

#[test]
fn packed_demonstrations_have_the_loss_and_the_gradients_of_single_ones() {
    let (config, weights) = model();
    let runner = runner::place(&config, &weights, Device::Cpu, 1).expect("placed");
    let (examples, processor) = (examples(24), Processor::default());
    let samples: Vec<Sample> = examples.iter().map(|example| example.sample(&processor)).collect();
    let weights: Vec<Vec<f32>> = examples.iter().map(|one| one.authors.iter().map(|author| author.weight(0.0)).collect()).collect();
    let single: Vec<_> = (0..samples.len()).map(|at| at..at + 1).collect();
    let (loss, gradients) = measured(&*runner, &config, &samples, &weights, &single);
    let whole = 0..samples.len();
    let (packed_loss, packed) = measured(&*runner, &config, &samples, &weights, std::slice::from_ref(&whole));
    assert!((packed_loss / loss - 1.0).abs() < 1e-6, "{packed_loss} packed, {loss} one by one");
    assert!(packed.keys().eq(gradients.keys()) && gradients.len() > 20, "{}", gradients.len());
    let pairs = || gradients.iter().map(|(name, one)| (name, one, &packed[name]));
    let apart = norm(pairs().flat_map(|(_, one, other)| one.iter().zip(other).map(|(a, b)| f64::from(*a) - f64::from(*b))));
    let size = norm(gradients.values().flatten().map(|value| f64::from(*value)));
    eprintln!("loss {loss}, packed {packed_loss}; gradients of norm {size}, {:.2e} of it apart", apart / size);
    assert!(apart / size < 1e-6, "gradients are {:.2e} of their norm apart", apart / size);
    // No tensor hides in the sum of all.
    for (name, one, other) in pairs() {
        let apart = norm(one.iter().zip(other).map(|(a, b)| f64::from(*a) - f64::from(*b)));
        let own = norm(one.iter().map(|value| f64::from(*value)));
        assert!(apart <= 1e-5 * own + 1e-7 * size, "{name}: {apart} of {own}");
    }
}

#[test]
fn a_pass_has_a_row_per_token_and_trains_the_agents_tokens_alone() {
    let (config, weights) = model();
    let (examples, processor) = (examples(24), Processor::default());
    let samples: Vec<Sample> = examples.iter().map(|example| example.sample(&processor)).collect();
    let placement = Placement { device: Device::Cpu, micro_tokens: 256 };
    let trainer = Trainer::new(config.clone(), weights, OptimConfig::default(), placement).expect("placed");
    let (passes, mut rows, mut most) = (trainer.passes(&samples), 0, 0);
    for pass in &passes {
        let (batch, _) = score::lay_out(&config, &samples[pass.clone()]).expect("it fits");
        assert_eq!(batch.lengths, samples[pass.clone()].iter().map(|sample| sample.tokens.len()).collect::<Vec<_>>());
        rows += batch.rows.tokens.len();
        most = most.max(batch.rows.tokens.len());
        // Every sequence begins at the beginning.
        let mut at = 0;
        for length in &batch.lengths {
            assert_eq!(batch.rows.positions[at], batch.rows.positions[0]);
            at += length;
        }
    }
    let tokens: usize = examples.iter().map(|example| example.tokens.len()).sum();
    let padded: usize =
        passes.iter().map(|pass| pass.len() * samples[pass.clone()].iter().map(|one| one.tokens.len()).max().unwrap_or(0)).sum();
    eprintln!(
        "{} sequences of {tokens} tokens in {} passes: {rows} rows, padded to the longest of a pass they would be {padded}",
        samples.len(),
        passes.len()
    );
    assert_eq!(rows, tokens, "nothing is padded");
    assert!(passes.len() < samples.len() && most <= 256 && padded > tokens);
    let weights: Vec<f32> = examples[1].authors.iter().map(|author| author.weight(0.0)).collect();
    assert_eq!(
        weights.iter().filter(|weight| **weight == 1.0).count(),
        examples[1].authors.iter().filter(|one| **one == Author::Agent).count()
    );
    assert!(weights.iter().all(|weight| [0.0, 1.0].contains(weight)));
}
