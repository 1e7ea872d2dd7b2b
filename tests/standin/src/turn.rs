//! One turn, sampled. In: what a request asks for. Out: tokens, log-probs in the server's convention, what the weights were called at
//! each. Token by token, so that pauses, aborts and other weights come between two of them, as in real servers.

use std::sync::Arc;

use base64::Engine as _;
use bytes::Bytes;
use hypereyes_domain::{Chunk, Failure, Generate, GenerateError, PictureId, Sampling, Sequence, Stop};
use hypereyes_pictures::{Limits, Patches, Picture};
use hypereyes_policy::frozen::{MAX_TOP, ScoreOptions};

use crate::LogprobsMode;
use crate::asked::{Asked, End, Refused, Turn};
use crate::expand::Expanded;
use crate::scores::kept;
use crate::served::Served;

/// Of `data:image/png;base64,..` and bare base64.
const COMMA: &str = ";base64,";

/// What happens to the server after the first token of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Midway {
    Nothing,
    /// Somebody puts in the weights of the start, and calls them something.
    Swap,
    /// The turn is cut off.
    Stop,
}

/// What somebody else calls weights that he puts in.
pub(crate) const FOREIGN: &str = "foreign";

impl Served {
    /// Samples a turn; `None` where it was to be cut off.
    ///
    /// # Errors
    /// [`Refused`]: a request that cannot be answered.
    pub(crate) async fn sample(&self, asked: &Asked, midway: Midway) -> Result<Option<Turn>, Refused> {
        asked.sampling.check().map_err(Refused::request)?;
        let shown = self.shown(&asked.pictures).await?;
        let sizes: Vec<usize> =
            shown.iter().map(|picture| self.chat.processor().tokens(self.chat.processor().grid(picture.image.dimensions()))).collect();
        let placeholder = self.model.image_token_id;
        let Expanded { tokens: prompt, pictures } = Expanded::of(&asked.tokens, placeholder, &sizes)?;
        if prompt.len() >= self.context {
            return Err(Refused::request(format!(
                "The decoder prompt (length {}) is longer than the maximum model length of {}",
                prompt.len(),
                self.context
            )));
        }
        if let Some(most) = asked.max_tokens.filter(|most| asked.must_fit && prompt.len() + most > self.context) {
            return Err(Refused::request(format!(
                "Requested token count exceeds the model's maximum context length of {} tokens: {} of the input and {most} new ones",
                self.context,
                prompt.len()
            )));
        }
        let expanded = Expanded { tokens: prompt, pictures };
        let fed = expanded.fed(placeholder);
        let Expanded { tokens: prompt, pictures } = expanded;
        let mut turn =
            Turn { prompt, pictures, tokens: vec![], logprobs: vec![], top: vec![], labels: vec![], end: End::Length, of_prompt: vec![] };
        let names: Vec<PictureId> = shown.iter().map(|picture| picture.id.clone()).collect();
        self.encode(&names)?;
        if asked.max_tokens != Some(0) && !self.decode(asked, &fed, names.clone(), midway, &mut turn).await? {
            return Ok(None);
        }
        let patches = self.patches(names).await?;
        self.tell(asked, &fed, &patches, &mut turn).await?;
        if let Some(wanted) = asked.of_prompt {
            let options = ScoreOptions { temperature: 1.0, top: wanted.top.min(MAX_TOP) };
            turn.of_prompt = self.scorer().await?.of(fed, patches, wanted.from, options).await?;
        }
        Ok(Some(turn))
    }

    /// Samples until the turn ends; false where it was cut off.
    async fn decode(&self, asked: &Asked, fed: &[u32], pictures: Vec<PictureId>, midway: Midway, turn: &mut Turn) -> Result<bool, Refused> {
        let place = self.place(&asked.id);
        turn.end = End::Abort;
        if place.go().await.is_none() {
            return Ok(true);
        }
        let prompt = Chunk { tokens: fed.to_vec(), pictures };
        let seed = asked.seed.unwrap_or_else(rand::random);
        let mut sequence = self.engine.start(prompt, vec![seed], asked.sampling).await.map_err(failed)?.remove(0);
        let most = asked.max_tokens.unwrap_or(usize::MAX);
        loop {
            let Some(state) = place.go().await else { return Ok(true) };
            let sampled = sequence.advance(Chunk::default(), 1).await.map_err(failed)?;
            if sampled.stop == Stop::ContextFull && sampled.tokens.is_empty() {
                turn.end = End::Length;
                return Ok(true);
            }
            let (token, logprob) = (sampled.tokens[0], sampled.logprobs[0]);
            turn.tokens.push(token);
            turn.logprobs.push(logprob);
            turn.labels.push(state.label.clone());
            drop(state);
            if turn.tokens.len() == 1 {
                match midway {
                    Midway::Nothing => {}
                    Midway::Swap => self.load_start(FOREIGN).await?,
                    Midway::Stop => return Ok(false),
                }
            }
            if token == self.chat.end_token() && !asked.ignore_end {
                turn.end = End::EndToken(token);
                return Ok(true);
            }
            if asked.stop.contains(&token) {
                turn.end = End::Stop(token);
                return Ok(true);
            }
            if turn.tokens.len() >= most {
                turn.end = End::Length;
                return Ok(true);
            }
        }
    }

    /// Turns log-probs as the engine tells them (at the temperature, before truncation) into the server's convention, and names the
    /// likeliest. Weights that came in the middle of the turn are taken as those of all of it.
    async fn tell(&self, asked: &Asked, fed: &[u32], patches: &[Arc<Patches>], turn: &mut Turn) -> Result<(), Refused> {
        let Some(top) = asked.logprobs else { return Ok(()) };
        let Sampling { temperature, top_k, top_p, min_p } = asked.sampling;
        let is_plain = temperature == 0.0 || temperature == 1.0;
        let truncates = temperature > 0.0 && (top_k > 0 || top_p < 1.0 || min_p > 0.0);
        let (at, most) = match self.mode {
            LogprobsMode::Raw => (1.0, if is_plain { 0 } else { 1 }),
            LogprobsMode::Processed if truncates => (temperature, MAX_TOP),
            LogprobsMode::Processed | LogprobsMode::Temperature => (temperature, 0),
        };
        let most = most.max(top.min(MAX_TOP));
        if most == 0 || turn.tokens.is_empty() {
            return Ok(());
        }
        let at = if at == 0.0 { 1.0 } else { f64::from(at) };
        let all = [fed, &turn.tokens].concat();
        let said = self.scorer().await?.of(all, patches.to_vec(), fed.len(), ScoreOptions { temperature: at, top: most }).await?;
        for (at, scored) in said.iter().enumerate() {
            if self.mode == LogprobsMode::Raw && !is_plain {
                turn.logprobs[at] = scored.logprob.unwrap_or_default();
            }
            if self.mode == LogprobsMode::Processed && truncates {
                turn.logprobs[at] -= kept(&scored.top, self.model.text.vocab_size, asked.sampling)? as f32;
            }
        }
        if top > 0 {
            turn.top = said.into_iter().map(|scored| scored.top.into_iter().take(top).collect()).collect();
        }
        Ok(())
    }

    /// The pictures of a request, decoded and lent to the engine while they are held.
    async fn shown(&self, encoded: &[Bytes]) -> Result<Vec<Arc<Picture>>, Refused> {
        if encoded.is_empty() {
            return Ok(vec![]);
        }
        let (encoded, store) = (encoded.to_vec(), self.store.clone());
        let work = move || {
            let decode = |bytes: Bytes| {
                let picture = Picture::from_bytes(bytes.clone(), &Limits::default()).map_err(|error| error.to_string())?;
                // A real server takes pixels as they are stored: such a picture would lie on its side.
                match picture.upright_bytes() {
                    Ok(upright) if upright == bytes => Ok(store.lend(picture)),
                    Ok(_) => Err("the picture says that it is to be turned".to_owned()),
                    Err(error) => Err(error.to_string()),
                }
            };
            encoded.into_iter().map(decode).collect::<Result<Vec<_>, String>>()
        };
        let done = tokio::task::spawn_blocking(work).await.map_err(|died| Refused::server(died.to_string()))?;
        done.map_err(|reason| Refused::request(format!("cannot load the image: {reason}")))
    }

    async fn patches(&self, names: Vec<PictureId>) -> Result<Vec<Arc<Patches>>, Refused> {
        let source = self.pictures.clone();
        let cut = tokio::task::spawn_blocking(move || source.patches(&names)).await;
        cut.map_err(|died| Refused::server(died.to_string()))?.map_err(|missing| Refused::server(missing.to_string()))
    }
}

fn failed(error: GenerateError) -> Refused {
    match error.failure {
        Failure::Policy => Refused::request(error.message),
        _ => Refused::server(error.message),
    }
}

/// The bytes of a picture that is written as a data URI or as bare base64.
///
/// # Errors
/// [`Refused`]: it is neither. No address is followed.
pub(crate) fn bytes_of(text: &str) -> Result<Bytes, Refused> {
    let encoded = match text.strip_prefix("data:") {
        Some(rest) => rest.split_once(COMMA).ok_or_else(|| Refused::request("the data URI has no base64 in it"))?.1,
        None => text,
    };
    let bytes = base64::engine::general_purpose::STANDARD.decode(encoded);
    Ok(bytes.map_err(|error| Refused::request(format!("the image is no base64: {error}")))?.into())
}
