//! A model behind somebody else's HTTP server: SGLang's `/generate`, or `/v1/completions` with `prompt_logprobs`.
//!
//! In: questions; token ids go out as they are, nothing is tokenised again. Out: answers that were held against the tokens asked
//! about, or why there are none: an answer that is short, late or of other tokens is no answer, and nothing is made up.

use std::sync::Arc;

use base64::Engine as _;
use futures::stream::{self, StreamExt, TryStreamExt};
use hypereyes_chassis::Reach;
use hypereyes_chassis::backoff::{Backoff, BackoffConfig};
use hypereyes_domain::{Answer, Question, ScoreSequence, TeacherId};
use hypereyes_pictures::Store;
use metrics::counter;
use reqwest::StatusCode;
use reqwest::header::AUTHORIZATION;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use crate::access::Key;
use crate::error::ScoreError;
use crate::metrics::REMOTE;
use crate::source::{Dialect, Server};
use crate::web;

/// Longest reply that is read: some hundred bytes for each of a hundred thousand tokens.
const MAX_REPLY_BYTES: usize = 64 << 20;
/// Sequences of one call that are under way at the same moment.
const AT_ONCE: usize = 8;
/// Attempts per sequence, within the call's deadline.
const ATTEMPTS: u32 = 3;

/// The server.
pub struct Remote {
    id: TeacherId,
    server: Server,
    key: Option<Key>,
    /// Tokens of its vocabulary.
    tokens: usize,
    client: reqwest::Client,
}

impl std::fmt::Debug for Remote {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").field("id", &self.id).field("server", &self.server).finish_non_exhaustive()
    }
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

impl Remote {
    /// Nothing is sent yet.
    ///
    /// # Errors
    /// A text that says what is wrong.
    pub fn new(id: TeacherId, server: Server, key: Option<Key>, reach: &Reach) -> Result<Self, String> {
        // Questions go where the source says, and nowhere else.
        let client = web::client(&server.address().ok_or("it has no address")?, reach)?;
        Ok(Self { id, server, key, tokens: usize::MAX, client })
    }

    /// The same for a model of so many tokens: it is asked about no others.
    #[must_use]
    pub fn of(self, tokens: usize) -> Self {
        Self { tokens, ..self }
    }

    /// Whether pictures can be shown to it: completions take none.
    pub fn takes_pictures(&self) -> bool {
        self.server.dialect == Dialect::Sglang
    }

    /// Answers, one per sequence.
    ///
    /// # Errors
    /// [`ScoreError`].
    pub async fn ask(&self, question: &Question, store: &Arc<Store>, deadline: Instant) -> Result<Vec<Answer>, ScoreError> {
        let misfit = |index: usize, reason: &str| ScoreError::Misfit { model: self.id.clone(), index, reason: reason.into() };
        if question.temperature != 1.0 {
            return Err(misfit(0, "its server gives log-probs at temperature 1 only"));
        }
        let missing = store.missing(&question.sequences.iter().flat_map(|sequence| sequence.pictures.iter().cloned()).collect::<Vec<_>>());
        if !missing.is_empty() && self.takes_pictures() {
            return Err(ScoreError::MissingPictures(missing));
        }
        let mut asked = Vec::with_capacity(question.sequences.len());
        for (index, sequence) in question.sequences.iter().enumerate() {
            if sequence.prompt.is_empty() && sequence.mask.first() == Some(&true) {
                return Err(misfit(index, "the first token of all has no log-prob: the prompt is empty"));
            }
            if let Some(token) = sequence.prompt.iter().chain(&sequence.response).find(|token| **token as usize >= self.tokens) {
                return Err(misfit(index, &format!("token {token} is outside its vocabulary of {}", self.tokens)));
            }
            if !sequence.pictures.is_empty() && !self.takes_pictures() {
                return Err(misfit(index, "its server takes no pictures, and a word on pictures that it has not seen is worth nothing"));
            }
            asked.push(self.one(index, sequence, question.top, self.body(sequence, question.top, store)?, deadline));
        }
        stream::iter(asked).buffered(AT_ONCE).try_collect().await
    }

    fn body(&self, sequence: &ScoreSequence, top: usize, store: &Store) -> Result<Value, ScoreError> {
        let tokens: Vec<u32> = sequence.prompt.iter().chain(&sequence.response).copied().collect();
        match self.server.dialect {
            Dialect::Sglang => {
                let picture = |id| {
                    let picture = store.get(id).ok_or_else(|| ScoreError::MissingPictures(vec![id.clone()]))?;
                    // Such servers take pixels as they are stored: a picture that says how it is to be turned is sent upright.
                    let bytes = picture
                        .upright_bytes()
                        .map_err(|error| ScoreError::Broken { model: self.id.clone(), reason: error.to_string() })?;
                    Ok(base64::engine::general_purpose::STANDARD.encode(bytes))
                };
                let pictures: Vec<String> = sequence.pictures.iter().map(picture).collect::<Result<_, ScoreError>>()?;
                Ok(json!({
                    "input_ids": tokens,
                    "image_data": pictures,
                    "sampling_params": {"temperature": 0, "max_new_tokens": 0, "skip_special_tokens": false},
                    "return_logprob": true,
                    "logprob_start_len": sequence.prompt.len().saturating_sub(1),
                    "top_logprobs_num": top,
                }))
            }
            Dialect::Vllm => Ok(json!({
                "model": self.server.model,
                "prompt": tokens,
                "max_tokens": 1,
                "temperature": 0,
                "prompt_logprobs": top.max(1),
            })),
        }
    }

    async fn one(&self, index: usize, sequence: &ScoreSequence, top: usize, body: Value, deadline: Instant) -> Result<Answer, ScoreError> {
        if !sequence.mask.contains(&true) {
            return Ok(Answer::default());
        }
        let mut backoff = Backoff::new(&BackoffConfig { first_ms: 200, max_ms: 4000, ..BackoffConfig::default() });
        let mut attempt = 0;
        loop {
            attempt += 1;
            let missed = match timeout_at(deadline, self.attempt(sequence, top, &body)).await {
                Ok(Ok(answer)) => {
                    counter!(REMOTE, "outcome" => "ok").increment(1);
                    return Ok(answer);
                }
                Ok(Err(missed)) => missed,
                Err(_) => {
                    counter!(REMOTE, "outcome" => "slow").increment(1);
                    return Err(ScoreError::Deadline);
                }
            };
            counter!(REMOTE, "outcome" => missed.label).increment(1);
            let model = self.id.clone();
            if !missed.again {
                return Err(ScoreError::Unusable { model, index, reason: missed.reason });
            }
            let pause = backoff.next_delay();
            if attempt >= ATTEMPTS || Instant::now() + pause >= deadline {
                return Err(ScoreError::Unreachable { model, reason: format!("{} ({attempt} attempts)", missed.reason) });
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt(&self, sequence: &ScoreSequence, top: usize, body: &Value) -> Result<Answer, Miss> {
        let path = match self.server.dialect {
            Dialect::Sglang => "/generate",
            Dialect::Vllm => "/v1/completions",
        };
        let mut request = self.client.post(format!("{}{path}", self.server.url)).json(body);
        if let Some(key) = &self.key {
            request = request.header(AUTHORIZATION, key.header());
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
        let places = match self.server.dialect {
            Dialect::Sglang => sglang(&reply, sequence.response.len(), top),
            Dialect::Vllm => vllm(&reply, sequence, top),
        };
        let places = places.map_err(|reason| Miss::last("malformed", reason))?;
        pick(sequence, top, &places).map_err(|reason| Miss::last("malformed", reason))
    }
}

/// What a reply says at one place: the token that it speaks of, its log-prob, and the likeliest tokens.
struct Place {
    token: u32,
    logprob: Option<f32>,
    top: Vec<(u32, f32)>,
}

/// `meta_info.input_token_logprobs`: lists of (log-prob or null, token id, ...), of which the last ones are the response's.
fn sglang(reply: &Value, response: usize, top: usize) -> Result<Vec<Place>, String> {
    let pair =
        |entry: &Value| Some((entry[1].as_u64().and_then(|id| u32::try_from(id).ok())?, entry[0].as_f64().map(|value| value as f32)));
    let list = |name: &str| {
        let list = reply["meta_info"][name].as_array().ok_or_else(|| format!("meta_info.{name} is missing"))?;
        let from =
            list.len().checked_sub(response).ok_or_else(|| format!("meta_info.{name} has {} entries for {response} tokens", list.len()))?;
        Ok::<_, String>(&list[from..])
    };
    let own = list("input_token_logprobs")?;
    let tops = if top > 0 { Some(list("input_top_logprobs")?) } else { None };
    let place = |(at, entry): (usize, &Value)| {
        let (token, logprob) = pair(entry).ok_or_else(|| format!("entry {at} of input_token_logprobs is no (log-prob, token)"))?;
        let named = tops.and_then(|tops| tops[at].as_array()).into_iter().flatten();
        let top = named.filter_map(|entry| pair(entry).and_then(|(id, logprob)| Some((id, logprob?)))).collect();
        Ok(Place { token, logprob, top })
    };
    own.iter().enumerate().map(place).collect()
}

/// `choices[0].prompt_logprobs`: per token null or {token id: {logprob, ..}}, the token itself among them.
fn vllm(reply: &Value, sequence: &ScoreSequence, top: usize) -> Result<Vec<Place>, String> {
    let list = reply["choices"][0]["prompt_logprobs"].as_array().ok_or("choices[0].prompt_logprobs is missing")?;
    let whole = sequence.prompt.len() + sequence.response.len();
    if list.len() != whole {
        return Err(format!("prompt_logprobs has {} entries for {whole} tokens", list.len()));
    }
    let place = |(entry, token): (&Value, &u32)| {
        let named = entry.as_object().into_iter().flatten();
        let read = |(id, value): (&String, &Value)| Some((id.parse().ok()?, value["logprob"].as_f64()? as f32));
        let mut all: Vec<(u32, f32)> = named.filter_map(read).collect();
        let logprob = all.iter().find(|(id, _)| id == token).map(|(_, logprob)| *logprob);
        all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        all.truncate(top);
        Place { token: *token, logprob, top: all }
    };
    Ok(list[sequence.prompt.len()..].iter().zip(&sequence.response).map(place).collect())
}

/// The answer at the masked-in places, held against the tokens asked about.
fn pick(sequence: &ScoreSequence, top: usize, places: &[Place]) -> Result<Answer, String> {
    let mut answer = Answer::default();
    for (at, ((place, token), _)) in
        places.iter().zip(&sequence.response).zip(&sequence.mask).enumerate().filter(|(_, (_, wanted))| **wanted)
    {
        if place.token != *token {
            return Err(format!("it speaks of token {} where {token} was asked about (response token {at})", place.token));
        }
        let logprob = place.logprob.filter(|value| value.is_finite() && *value <= 1e-3);
        answer.logprobs.push(logprob.ok_or_else(|| format!("response token {at} has no log-prob"))?);
        if place.top.len() != top {
            return Err(format!("{} likeliest tokens came for response token {at}, {top} were asked for", place.top.len()));
        }
        answer.top.extend(&place.top);
    }
    Ok(answer)
}
