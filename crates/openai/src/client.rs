//! A server of chat completions. In: where it is, requests, how long one waits. Out: what the caller reads in a completion, or a [`Miss`].
//!
//! Who is busy or broken is asked again, after the pause that it asks for or a growing one, until attempts or time are used up. Optional
//! words that a server refuses (`max_tokens`, `seed`, `temperature`) are said as it wants them, or not, from then on.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hypereyes_chassis::backoff::{Backoff, BackoffConfig};
use hypereyes_chassis::secret::SecretText;
use reqwest::header::AUTHORIZATION;
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::completion::Completion;
use crate::miss::{Complaint, Miss};
use crate::request::{Habits, Request};

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Bytes of a refusal that are read.
const MOST_ERROR_BYTES: usize = 16 << 10;
/// Bytes of a list of models that are read.
const MOST_LIST_BYTES: usize = 4 << 20;

/// Where completions are asked for. Keys of settings have these names.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint<'a> {
    /// Base of the API, such as `https://api.example.com/v1`; `/chat/completions` is added.
    pub url: &'a str,
    /// Name of the model.
    pub model: &'a str,
    /// Environment variable that holds the API key; empty sends none.
    pub api_key_env: &'a str,
}

/// How long one waits for a completion, and how often it is asked for.
#[derive(Clone, Debug)]
pub struct Patience {
    /// Attempts, at least 1.
    pub attempts: u32,
    /// Longest wait for one of them.
    pub attempt: Duration,
    /// When all of them, their pauses and the wait for a free place are over.
    pub deadline: Instant,
    /// Pauses between them.
    pub backoff: BackoffConfig,
}

/// A server of chat completions.
pub struct Client {
    base: String,
    model: String,
    key: Option<SecretText>,
    http: reqwest::Client,
    slots: Semaphore,
    most_bytes: usize,
    counted: fn(&'static str),
    completion_tokens: AtomicBool,
    seedless: AtomicBool,
    own_sampling: AtomicBool,
}

impl fmt::Debug for Client {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("base", &self.base).field("model", &self.model).field("key", &self.key).finish_non_exhaustive()
    }
}

impl Client {
    /// A server that is sent `concurrency` requests at the same moment and whose replies have at most `most_bytes`. `counted` is told how
    /// every attempt ended: `ok`, or the label of its miss. Nothing is sent yet.
    ///
    /// # Errors
    /// A sentence that begins with the key of [`Endpoint`] that cannot be used.
    pub fn new(endpoint: Endpoint<'_>, concurrency: usize, most_bytes: usize, counted: fn(&'static str)) -> Result<Self, String> {
        let Endpoint { url, model, api_key_env } = endpoint;
        if !(url.starts_with("http://") || url.starts_with("https://")) {
            return Err(format!("url is {url:?}; give the base of an OpenAI-compatible API, such as http://127.0.0.1:8000/v1"));
        }
        let bare = |url: &Url| url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
        if !Url::parse(url).ok().is_some_and(|url| bare(&url)) {
            // It is not quoted: it may hold a password.
            return Err("url is no plain address (no password, no ?, no #); a key goes into the variable that api_key_env names".into());
        }
        let key = SecretText::of_variable("api_key_env", api_key_env)?;
        // No proxy and no redirect: what is asked goes where the settings say, and nowhere else.
        let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).connect_timeout(CONNECT).build();
        Ok(Self {
            base: url.trim_end_matches('/').to_owned(),
            model: model.to_owned(),
            key,
            http: http.map_err(|error| format!("url cannot be reached: no HTTP client: {error}"))?,
            slots: Semaphore::new(concurrency.clamp(1, Semaphore::MAX_PERMITS)),
            most_bytes,
            counted,
            completion_tokens: AtomicBool::new(false),
            seedless: AtomicBool::new(false),
            own_sampling: AtomicBool::new(false),
        })
    }

    /// The same server, asked for another of its models.
    #[must_use]
    pub fn of(self, model: String) -> Self {
        Self { model, ..self }
    }

    /// Name of the model.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Base of the API, which holds no secret.
    pub fn url(&self) -> &str {
        &self.base
    }

    /// Asks for a completion and reads it with `read`; what `read` misses is asked for again if it says so.
    ///
    /// # Errors
    /// The last [`Miss`], once attempts or time are used up.
    pub async fn ask<T>(
        &self,
        request: &Request<'_>,
        patience: &Patience,
        read: impl Fn(Completion) -> Result<T, Miss>,
    ) -> Result<T, Miss> {
        let asked = timeout_at(patience.deadline, self.attempts(request, patience, read)).await;
        asked.unwrap_or_else(|_| {
            (self.counted)("deadline");
            Err(Miss::last("deadline", "no completion came before the deadline"))
        })
    }

    async fn attempts<T>(
        &self,
        request: &Request<'_>,
        patience: &Patience,
        read: impl Fn(Completion) -> Result<T, Miss>,
    ) -> Result<T, Miss> {
        let _slot = self.slots.acquire().await.expect("it is never closed");
        let mut backoff = Backoff::new(&patience.backoff);
        let mut attempt = 1;
        loop {
            let late = |_| Miss::again("slow", format!("no completion came within {:.1} s", patience.attempt.as_secs_f64()));
            let asked = timeout(patience.attempt, self.attempt(request)).await.map_err(late);
            let missed = match asked.and_then(|reply| reply).and_then(&read) {
                Ok(done) => {
                    (self.counted)("ok");
                    return Ok(done);
                }
                Err(missed) => missed,
            };
            (self.counted)(missed.label);
            let pause = backoff.next_delay().max(missed.after.unwrap_or_default());
            if !missed.again || attempt >= patience.attempts || patience.deadline.saturating_duration_since(Instant::now()) <= pause {
                return Err(missed);
            }
            attempt += 1;
            sleep(pause).await;
        }
    }

    async fn attempt(&self, request: &Request<'_>) -> Result<Completion, Miss> {
        loop {
            let habits = self.habits();
            let body = request.body(&self.model, habits);
            let sent = self.send(self.http.post(format!("{}/chat/completions", self.base)).json(&body)).await;
            let reply = match sent {
                Err(missed) if self.adapts(&missed, habits) => continue,
                sent => self.body(sent?, self.most_bytes).await?,
            };
            return Completion::read(&reply).map_err(|reason| Miss::again("malformed", format!("its reply cannot be used: {reason}")));
        }
    }

    fn habits(&self) -> Habits {
        let is = |habit: &AtomicBool| habit.load(Ordering::Relaxed);
        Habits { completion_tokens: is(&self.completion_tokens), seedless: is(&self.seedless), own_sampling: is(&self.own_sampling) }
    }

    /// Whether the request can be made in other words than it was, after what the server said of it.
    fn adapts(&self, missed: &Miss, made: Habits) -> bool {
        let (other, was) = match missed.complaint {
            Some(Complaint::MaxTokens) => (&self.completion_tokens, made.completion_tokens),
            Some(Complaint::Seed) => (&self.seedless, made.seedless),
            Some(Complaint::Sampling) => (&self.own_sampling, made.own_sampling),
            Some(Complaint::Context | Complaint::Tools) | None => return false,
        };
        if !was && !other.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                url = self.base,
                "the server does not take a part of the request, which is said otherwise from now on: {missed}"
            );
        }
        !was
    }

    /// Models that the server lists; none where it has no list.
    ///
    /// # Errors
    /// A [`Miss`] where it cannot be reached, does not answer within `limit`, or refuses.
    pub async fn models(&self, limit: Duration) -> Result<Vec<String>, Miss> {
        let list = async {
            let reply = match self.send(self.http.get(format!("{}/models", self.base))).await {
                Ok(reply) => self.body(reply, MOST_LIST_BYTES).await?,
                Err(missed) if matches!(missed.status, Some(404 | 405 | 501)) => return Ok(vec![]),
                Err(missed) => return Err(missed),
            };
            let list: Value = serde_json::from_slice(&reply).unwrap_or(Value::Null);
            let names = list["data"].as_array().into_iter().flatten().filter_map(|model| model["id"].as_str());
            Ok(names.map(str::to_owned).collect())
        };
        let late = |_| Err(Miss::last("slow", format!("nothing came within {:.1} s", limit.as_secs_f64())));
        timeout(limit, list).await.unwrap_or_else(late)
    }

    /// Sends a request with the key; a status other than success is a miss.
    async fn send(&self, request: RequestBuilder) -> Result<Response, Miss> {
        let request = match &self.key {
            Some(key) => request.header(AUTHORIZATION, key.header("Bearer ")),
            None => request,
        };
        let mut reply = request.send().await.map_err(Miss::of_transport)?;
        let status = reply.status();
        if status.is_success() {
            return Ok(reply);
        }
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            // Its words are not told on: they may be about the key.
            let key = self.key.as_ref().map_or("no key was sent".into(), |key| format!("with the key in {}", key.from()));
            return Err(Miss { status: Some(status.as_u16()), ..Miss::last("refused", format!("it refuses: {status} ({key})")) });
        }
        let headers = reply.headers().clone();
        let mut said = Vec::new();
        while said.len() < MOST_ERROR_BYTES
            && let Ok(Some(part)) = reply.chunk().await
        {
            said.extend_from_slice(&part[..part.len().min(MOST_ERROR_BYTES - said.len())]);
        }
        let said = String::from_utf8_lossy(&said);
        let hidden = |text: &str| self.key.as_ref().map_or_else(|| text.to_owned(), |key| key.hidden_in(text));
        let missed = Miss::of_status(status, &headers, &hidden(&said));
        // Once more: JSON may have held it escaped.
        Err(Miss { message: hidden(&missed.message), ..missed })
    }

    async fn body(&self, mut reply: Response, most: usize) -> Result<Vec<u8>, Miss> {
        let mut body = Vec::new();
        while let Some(part) = reply.chunk().await.map_err(Miss::of_transport)? {
            if body.len() + part.len() > most {
                return Err(Miss::again("too_long", format!("its reply is longer than {most} bytes")));
            }
            body.extend_from_slice(&part);
        }
        Ok(body)
    }
}
