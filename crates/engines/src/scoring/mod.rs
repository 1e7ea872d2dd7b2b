//! A model behind somebody else's HTTP server, asked for log-probs: SGLang's `/generate`, or `/v1/completions` with `prompt_logprobs`.
//!
//! In: sequences; token ids go out as they are, nothing is tokenised again. Out: answers that were held against the tokens asked
//! about, or why there are none: an answer that is short, late or of other tokens is no answer, and nothing is made up. A dialect is a
//! file here and its arms in [`Dialect`].

mod sglang;
mod vllm;

use std::sync::Arc;

use base64::Engine as _;
use futures::stream::{self, StreamExt, TryStreamExt};
use hypereyes_chassis::backoff::{Backoff, BackoffConfig};
use hypereyes_domain::{Answer, PictureId, ScoreSequence};
use hypereyes_pictures::Store;
use metrics::counter;
use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use crate::metrics::SCORED;

/// Longest reply that is read: some hundred bytes for each of a hundred thousand tokens.
const MAX_REPLY_BYTES: usize = 64 << 20;
/// Sequences of one call that are under way at the same moment.
const AT_ONCE: usize = 8;
/// Attempts per sequence, within the call's deadline.
const ATTEMPTS: u32 = 3;

/// The protocol of somebody else's server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// SGLang's `/generate`.
    Sglang,
    /// `/v1/completions` with `prompt_logprobs`, as vLLM serves it.
    Vllm,
}

impl Dialect {
    /// Whether pictures can be shown to such a server: completions take none.
    pub fn takes_pictures(self) -> bool {
        self == Self::Sglang
    }
}

/// Why there are no answers. None of these is a policy's fault; an index is that of a sequence of the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScoringError {
    /// Pictures that are not here.
    MissingPictures(Vec<PictureId>),
    /// A sequence that cannot be asked about.
    Misfit(usize, String),
    /// The server understood and refused, or said nothing that can be used.
    Unusable(usize, String),
    /// The server cannot be reached, or is busy.
    Unreachable(String),
    /// The call's deadline passed.
    Deadline,
    /// A picture could not be written for the server.
    Broken(String),
}

/// A server that gives log-probs.
pub struct ScoringClient {
    /// How it is spoken to.
    dialect: Dialect,
    /// Scheme, host, port and path, without a slash at the end.
    url: String,
    /// The model's name at the server.
    model: String,
    /// What is sent as authorisation, which is shown nowhere.
    key: Option<HeaderValue>,
    /// Tokens of its vocabulary.
    tokens: usize,
    client: reqwest::Client,
}

impl std::fmt::Debug for ScoringClient {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScoringClient").field("dialect", &self.dialect).field("url", &self.url).finish_non_exhaustive()
    }
}

/// One sequence, and how many of the likeliest tokens to name at each place.
struct Asked<'a> {
    sequence: &'a ScoreSequence,
    top: usize,
}

impl Asked<'_> {
    /// Prompt and response.
    fn tokens(&self) -> Vec<u32> {
        self.sequence.prompt.iter().chain(&self.sequence.response).copied().collect()
    }
}

/// What a reply says at one place: the token that it speaks of, its log-prob, and the likeliest tokens.
struct Place {
    token: u32,
    logprob: Option<f32>,
    top: Vec<(u32, f32)>,
}

/// Why an attempt brought nothing.
struct Miss {
    label: &'static str,
    reason: String,
    again: bool,
}

impl Miss {
    fn again(label: &'static str, reason: impl ToString) -> Self {
        Self { label, reason: reason.to_string(), again: true }
    }

    fn last(label: &'static str, reason: impl ToString) -> Self {
        Self { label, reason: reason.to_string(), again: false }
    }
}

impl ScoringClient {
    /// A server of `model` at `url`, reached by `client`. Nothing is sent yet.
    pub fn new(dialect: Dialect, url: String, model: String, key: Option<HeaderValue>, client: reqwest::Client) -> Self {
        Self { dialect, url, model, key, tokens: usize::MAX, client }
    }

    /// The same for a model of so many tokens: it is asked about no others.
    #[must_use]
    pub fn of(self, tokens: usize) -> Self {
        Self { tokens, ..self }
    }

    /// Whether pictures can be shown to it.
    pub fn takes_pictures(&self) -> bool {
        self.dialect.takes_pictures()
    }

    /// Answers at a temperature, one per sequence, with the `top` likeliest tokens at each place.
    ///
    /// # Errors
    /// [`ScoringError`], which concerns the whole call.
    pub async fn score(
        &self,
        sequences: &[ScoreSequence],
        temperature: f32,
        top: usize,
        store: &Arc<Store>,
        deadline: Instant,
    ) -> Result<Vec<Answer>, ScoringError> {
        let misfit = |index: usize, reason: &str| ScoringError::Misfit(index, reason.into());
        if temperature != 1.0 {
            return Err(misfit(0, "its server gives log-probs at temperature 1 only"));
        }
        let missing = store.missing(&sequences.iter().flat_map(|sequence| sequence.pictures.iter().cloned()).collect::<Vec<_>>());
        if !missing.is_empty() && self.takes_pictures() {
            return Err(ScoringError::MissingPictures(missing));
        }
        let mut asked = Vec::with_capacity(sequences.len());
        for (index, sequence) in sequences.iter().enumerate() {
            if sequence.prompt.is_empty() && sequence.mask.first() == Some(&true) {
                return Err(misfit(index, "the first token of all has no log-prob: the prompt is empty"));
            }
            if let Some(token) = sequence.prompt.iter().chain(&sequence.response).find(|token| **token as usize >= self.tokens) {
                return Err(misfit(index, &format!("token {token} is outside its vocabulary of {}", self.tokens)));
            }
            if !sequence.pictures.is_empty() && !self.takes_pictures() {
                return Err(misfit(index, "its server takes no pictures, and a word on pictures that it has not seen is worth nothing"));
            }
            let one = Asked { sequence, top };
            let body = self.body(&one, store)?;
            asked.push(self.one(index, one, body, deadline));
        }
        stream::iter(asked).buffered(AT_ONCE).try_collect().await
    }

    fn body(&self, asked: &Asked<'_>, store: &Store) -> Result<Value, ScoringError> {
        match self.dialect {
            Dialect::Sglang => {
                let pictures = asked.sequence.pictures.iter().map(|id| encoded(id, store)).collect::<Result<Vec<_>, _>>()?;
                Ok(sglang::body(asked, &pictures))
            }
            Dialect::Vllm => Ok(vllm::body(asked, &self.model)),
        }
    }

    async fn one(&self, index: usize, asked: Asked<'_>, body: Value, deadline: Instant) -> Result<Answer, ScoringError> {
        if !asked.sequence.mask.contains(&true) {
            return Ok(Answer::default());
        }
        let mut backoff = Backoff::new(&BackoffConfig { first_ms: 200, max_ms: 4000, ..BackoffConfig::default() });
        let mut attempt = 0;
        loop {
            attempt += 1;
            let missed = match timeout_at(deadline, self.attempt(&asked, &body)).await {
                Ok(Ok(answer)) => {
                    counter!(SCORED, "outcome" => "ok").increment(1);
                    return Ok(answer);
                }
                Ok(Err(missed)) => missed,
                Err(_) => {
                    counter!(SCORED, "outcome" => "slow").increment(1);
                    return Err(ScoringError::Deadline);
                }
            };
            counter!(SCORED, "outcome" => missed.label).increment(1);
            if !missed.again {
                return Err(ScoringError::Unusable(index, missed.reason));
            }
            let pause = backoff.next_delay();
            if attempt >= ATTEMPTS || Instant::now() + pause >= deadline {
                return Err(ScoringError::Unreachable(format!("{} ({attempt} attempts)", missed.reason)));
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt(&self, asked: &Asked<'_>, body: &Value) -> Result<Answer, Miss> {
        let path = match self.dialect {
            Dialect::Sglang => sglang::PATH,
            Dialect::Vllm => vllm::PATH,
        };
        let mut request = self.client.post(format!("{}{path}", self.url)).json(body);
        if let Some(key) = &self.key {
            request = request.header(AUTHORIZATION, key.clone());
        }
        let label = |error: &reqwest::Error| if error.is_connect() { "connect" } else { "transport" };
        let mut response = request.send().await.map_err(|error| Miss::again(label(&error), error.without_url()))?;
        match response.status() {
            StatusCode::OK => {}
            status @ (StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS) => return Err(Miss::again("busy", status)),
            status if status.is_server_error() => return Err(Miss::again("server", status)),
            status => return Err(Miss::last("refused", format!("it refuses with {status}"))),
        }
        let mut text = Vec::new();
        while let Some(part) = response.chunk().await.map_err(|error| Miss::again("transport", error.without_url()))? {
            if text.len() + part.len() > MAX_REPLY_BYTES {
                return Err(Miss::last("too_long", format!("its reply is longer than {MAX_REPLY_BYTES} bytes")));
            }
            text.extend_from_slice(&part);
        }
        // A reply that was cut off parses as nothing; another attempt may bring a whole one.
        let reply: Value =
            serde_json::from_slice(&text).map_err(|error| Miss::again("malformed", format!("its reply is no JSON: {error}")))?;
        let places = match self.dialect {
            Dialect::Sglang => sglang::places(&reply, asked),
            Dialect::Vllm => vllm::places(&reply, asked),
        };
        let places = places.map_err(|reason| Miss::last("malformed", reason))?;
        pick(asked, &places).map_err(|reason| Miss::last("malformed", reason))
    }
}

/// A picture as servers take it. They read pixels as they are stored: one that says how it is to be turned is sent upright.
fn encoded(id: &PictureId, store: &Store) -> Result<String, ScoringError> {
    let picture = store.get(id).ok_or_else(|| ScoringError::MissingPictures(vec![id.clone()]))?;
    let bytes = picture.upright_bytes().map_err(|error| ScoringError::Broken(error.to_string()))?;
    Ok(base64::engine::general_purpose::STANDARD.encode(bytes))
}

/// The answer at the masked-in places, held against the tokens asked about.
fn pick(Asked { sequence, top }: &Asked<'_>, places: &[Place]) -> Result<Answer, String> {
    let mut answer = Answer::default();
    for (at, ((place, token), _)) in
        places.iter().zip(&sequence.response).zip(&sequence.mask).enumerate().filter(|(_, (_, wanted))| **wanted)
    {
        if place.token != *token {
            return Err(format!("it speaks of token {} where {token} was asked about (response token {at})", place.token));
        }
        let logprob = place.logprob.filter(|value| value.is_finite() && *value <= 1e-3);
        answer.logprobs.push(logprob.ok_or_else(|| format!("response token {at} has no log-prob"))?);
        if place.top.len() != *top {
            return Err(format!("{} likeliest tokens came for response token {at}, {top} were asked for", place.top.len()));
        }
        answer.top.extend(&place.top);
    }
    Ok(answer)
}
