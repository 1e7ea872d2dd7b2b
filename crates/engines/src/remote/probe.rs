//! What a server must show before it takes part. In: a server that holds known weights. Out: which log-probs it gives, or why it cannot be
//! rolled out on: it reads a picture as other tokens than we do, or it lies. One picture and a few tokens are asked for.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use hypereyes_domain::Sampling;
use hypereyes_pictures::{Picture, Processor, RgbImage};
use hypereyes_policy::config::ModelConfig;
use tokio::time::{Instant, sleep_until};

use super::check;
use super::compact::compact;
use super::convention::{Convention, Seen, WARM};
use super::dialect::Speak;
use super::exchange::{Question, exchange};
use super::link::Link;
use super::outcome::{Miss, Outcome};
use super::request::{Ask, Reads, Shown, Want};

/// Prompts after which log-probs are looked at, whatever the first ones tell.
const PROMPTS: usize = 4;
/// As many at most, where a policy is so sure of itself after the others that they tell nothing.
const MOST_PROMPTS: usize = 32;
/// Tokens of such a prompt.
const TOKENS: usize = 8;
/// A nucleus that holds the likeliest token alone.
const NARROW: f32 = 1e-6;
/// Sides of the picture, in tokens.
const PICTURE: (usize, usize) = (3, 2);

/// Questions whose answers tell.
#[derive(Clone, Debug)]
pub struct Probe {
    picture: Arc<Ask>,
    prompts: Vec<Vec<u32>>,
    reads: Arc<Reads>,
}

impl Probe {
    /// For a model.
    ///
    /// # Errors
    /// A text, when no picture can be made.
    pub fn of(model: &ModelConfig, processor: &Processor, reads: &Arc<Reads>) -> Result<Self, String> {
        let side = |tokens: usize| (tokens * processor.factor()) as u32;
        let pattern = RgbImage::from_fn(side(PICTURE.0), side(PICTURE.1), |x, y| [(x * 3) as u8, (y * 5) as u8, (x ^ y) as u8].into());
        let picture = Picture::from_image(pattern).map_err(|error| error.to_string())?;
        let store = hypereyes_pictures::Store::new(usize::MAX, hypereyes_pictures::Limits::default());
        let id = store.insert(picture).map_err(|error| error.to_string())?;
        let shown: Vec<Shown> = super::pictures::shown(&[id], &store, processor).map_err(|error| error.to_string())?;
        let special = [model.image_token_id, model.vision_start_token_id, model.vision_end_token_id];
        // Ordinary tokens are in the lower half of every vocabulary; special ones are passed over.
        let plain = |number: usize| {
            let id = (number * 37 + 11) % (reads.vocabulary / 2).max(1);
            (0..reads.vocabulary).map(|more| ((id + more) % reads.vocabulary) as u32).find(|id| !special.contains(id)).unwrap_or(0)
        };
        let mut prompts: Vec<Vec<u32>> =
            (0..MOST_PROMPTS).map(|prompt| (0..TOKENS).map(|at| plain(prompt * TOKENS + at)).collect()).collect();
        // A small vocabulary comes round: the same prompt again is no further evidence.
        let mut known = HashSet::new();
        prompts.retain(|prompt| known.insert(prompt.clone()));
        let pads = std::iter::repeat_n(model.image_token_id, shown[0].tokens);
        let before = [plain(1), model.vision_start_token_id];
        let expanded: Vec<u32> = before.into_iter().chain(pads).chain([model.vision_end_token_id, plain(2), plain(3)]).collect();
        let compact = compact(&expanded, model.image_token_id, &[shown[0].tokens])?;
        let want = Want::Turn { sampling: Sampling::of(1.0, 1.0), seed: 0, max_tokens: 1 };
        let picture = Arc::new(Ask { expanded, compact, pictures: shown, reads: reads.clone(), want });
        Ok(Self { picture, prompts, reads: reads.clone() })
    }

    /// Asks a server that holds the weights of this label. No answer is waited for longer than `patience`, nor any beyond `until`: a
    /// server that forgets one question is not out for as long as it may take to introduce itself.
    ///
    /// # Errors
    /// [`Miss`]: a final one is of a server that can never take part as it is.
    pub async fn ask(
        &self,
        link: &Link,
        speaker: &'static dyn Speak,
        model: &str,
        label: &str,
        patience: Duration,
        until: Instant,
    ) -> Result<Convention, Miss> {
        let ask = async |ask: Arc<Ask>| {
            // One token at a time, alone: no seed is needed.
            let question = Question { ask, model: model.to_owned(), label: label.to_owned(), seeded: false };
            let labels = [label.to_owned()];
            let until = until.min(Instant::now() + patience);
            let read = move |speaker: &'static dyn Speak, reply: &[u8], ask: &Ask| check::turn(ask, 1, &labels, speaker.turn(reply)?);
            exchange(link, speaker, &question, sleep_until(until), read).await
        };
        ask(self.picture.clone()).await.map_err(|miss| {
            let named = |outcome: Outcome| miss.outcome == outcome;
            let advice = if named(Outcome::Refused) { format!("; {}", speaker.advice()) } else { String::new() };
            Miss { reason: format!("asked about a picture, it fails: {}{advice}", miss.reason), ..miss }
        })?;
        let mut seen = Vec::with_capacity(self.prompts.len());
        for prompt in &self.prompts {
            let one = async |sampling: Sampling| {
                let want = Want::Turn { sampling, seed: 1, max_tokens: 1 };
                let text = Ask { expanded: prompt.clone(), compact: prompt.clone(), pictures: vec![], reads: self.reads.clone(), want };
                let checked = ask(Arc::new(text)).await;
                let checked = checked.map_err(|miss| Miss { reason: format!("asked for log-probs, it fails: {}", miss.reason), ..miss })?;
                Ok::<_, Miss>(checked.logprobs[0])
            };
            let plain = one(Sampling::of(1.0, NARROW)).await?;
            let tempered = one(Sampling::of(WARM, NARROW)).await?;
            let whole = one(Sampling::of(1.0, 1.0)).await?;
            seen.push(Seen { plain, tempered, whole });
            if seen.len() >= PROMPTS && Convention::of(&seen) != Convention::Unknown {
                break;
            }
        }
        Ok(Convention::of(&seen))
    }
}
