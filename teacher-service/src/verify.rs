//! What a model must show before it may serve: finite log-probs on golden prompts, with pictures and without. In: a model
//! that is not verified. Out: one that may serve and says whether it sees, or why it may not.

use std::sync::Arc;
use std::time::Duration;

use hypereyes_domain::{Answer, PictureId, Question, ScoreSequence};
use hypereyes_pictures::{Limits, Picture, RgbImage, Store};
use hypereyes_policy::config::ModelConfig;
use tokio::time::Instant;

use crate::model::{Model, Unverified};

/// Longest time that a model gets for the golden prompts.
const PATIENCE: Duration = Duration::from_secs(300);
/// Response tokens of a golden prompt, spread over the vocabulary.
const TOKENS: usize = 24;
/// Side of a golden picture in pixels.
const SIDE: u32 = 64;

/// Asks the golden prompts.
///
/// # Errors
/// A text that says what the model did.
pub async fn verify(unverified: Unverified) -> Result<Model, String> {
    let sighted = sees(unverified.model()).await?;
    Ok(unverified.verified(sighted))
}

/// Whether the model sees: another picture makes another log-prob.
async fn sees(model: &Model) -> Result<bool, String> {
    let name = model.source();
    let Some(survey) = model.survey() else {
        // A peer has verified its own model; what is left to see is that it answers.
        let text = ScoreSequence { prompt: vec![0], response: vec![1, 0], mask: vec![true; 2], pictures: vec![] };
        ask(model, vec![text], &Arc::new(Store::new(1 << 20, Limits::default()))).await?;
        return Ok(model.card().sighted);
    };
    let config = &survey.config;
    let text = golden(config, 0);
    let store = Arc::new(Store::new(64 << 20, Limits::default()));
    let processor = survey.processor.clone()?;
    let mut sequences = vec![text];
    for seed in [1, 2] {
        let picture = Picture::from_image(pattern(seed)).map_err(|error| error.to_string())?;
        let tokens = processor.tokens(processor.grid(picture.image.dimensions()));
        let id: PictureId = store.insert(picture).map_err(|error| error.to_string())?;
        sequences.push(ScoreSequence { pictures: vec![id], ..golden(config, tokens) });
    }
    let answers = ask(model, sequences, &store).await?;
    let sighted = answers[1].logprobs != answers[2].logprobs;
    if !sighted {
        tracing::warn!(source = %name, "another picture makes no other log-prob: this teacher is blind");
    }
    Ok(sighted)
}

async fn ask(model: &Model, sequences: Vec<ScoreSequence>, store: &Arc<Store>) -> Result<Vec<Answer>, String> {
    let question = Question::new("golden".into(), sequences);
    let answers = model.ask(&question, store, Instant::now() + PATIENCE).await;
    let answers = answers.map_err(|error| format!("{}: a golden prompt fails: {error}", model.source()))?;
    let sound = |answer: &Answer| answer.logprobs.iter().all(|value| value.is_finite() && *value <= 1e-3);
    // Weights that overflow may end as one number for everything.
    let dull = |answer: &Answer| answer.logprobs.len() > 2 && answer.logprobs.iter().all(|value| *value == answer.logprobs[0]);
    let damaged = |at, what| Err(format!("{}: golden prompt {at} has {what}; its weights may be damaged", model.source()));
    if let Some(at) = answers.iter().position(|answer| !sound(answer)) {
        return damaged(at, "a log-prob that is none");
    }
    match answers.iter().position(dull) {
        Some(at) => damaged(at, "the same log-prob for every token"),
        None => Ok(answers),
    }
}

/// A prompt with a picture of so many tokens, and a response of tokens from all over the vocabulary.
fn golden(config: &ModelConfig, picture_tokens: usize) -> ScoreSequence {
    let vocabulary = config.text.vocab_size as u32;
    let plain: Vec<u32> = (0..TOKENS as u32 + 4).map(|at| at * (vocabulary / (TOKENS as u32 + 4)).max(1) % vocabulary).collect();
    let plain: Vec<u32> = plain.into_iter().map(|id| if id == config.image_token_id { (id + 1) % vocabulary } else { id }).collect();
    let (before, response) = plain.split_at(4);
    let pads = std::iter::repeat_n(config.image_token_id, picture_tokens);
    ScoreSequence {
        prompt: before[..2].iter().copied().chain(pads).chain(before[2..].iter().copied()).collect(),
        response: response.to_vec(),
        mask: vec![true; response.len()],
        pictures: vec![],
    }
}

fn pattern(seed: u32) -> RgbImage {
    let at = |x: u32, y: u32| [(x * 3 + seed * 90) as u8, (y * (4 * seed)) as u8, ((x ^ y) * seed * 7) as u8].into();
    RgbImage::from_fn(SIDE, SIDE, at)
}
