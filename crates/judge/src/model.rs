//! A language model as a judge, by the OpenAI chat-completions protocol that every server speaks.
//!
//! In: question, prediction, right answers. Out: a verdict, or none after the attempts or the time are used up. Verdicts
//! are remembered by all that they depend on, the prompt's version included. [`crate::prompt`] is what it is asked,
//! [`crate::reply`] how what it says is read.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, join_all};
use hypereyes_chassis::backoff::{Backoff, BackoffConfig};
use hypereyes_chassis::{BadInput, Findings, Remembered};
use hypereyes_scoring::Verdict;
use metrics::{counter, histogram};
use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::prompt::{self, prompt};
use crate::{Verdicts, metrics as names, reply};

/// Longest reply that is read.
const MAX_REPLY_BYTES: usize = 256 << 10;

/// Settings of the model that judges.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// Base of the API, such as `https://api.example.com/v1`; `/chat/completions` is added.
    pub url: String,
    /// Name of the model.
    pub model: String,
    /// Environment variable that holds the API key; empty sends none. The key itself is in no file and no log.
    pub api_key_env: String,
    /// Sampling temperature. Default 0, as released.
    pub temperature: f64,
    /// Tokens of a reply; one that needs more is no verdict. Default 30, as released: more for a model that thinks first.
    pub max_tokens: u32,
    /// Attempts per verdict. Default 3.
    pub attempts: u32,
    /// Longest wait for one attempt, in milliseconds. Default 20000.
    pub attempt_timeout_ms: u64,
    /// Longest wait for a verdict, all attempts and pauses included, in milliseconds. Default 25000: below the deadline of a
    /// scoring call.
    pub deadline_ms: u64,
    /// Requests at the same moment; others wait. Default 32.
    pub concurrency: usize,
    /// Verdicts remembered. Default 100000, some ten MiB.
    pub cache_entries: usize,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            url: String::new(),
            model: String::new(),
            api_key_env: String::new(),
            temperature: 0.0,
            max_tokens: 30,
            attempts: 3,
            attempt_timeout_ms: 20_000,
            deadline_ms: 25_000,
            concurrency: 32,
            cache_entries: 100_000,
        }
    }
}

impl ModelConfig {
    /// Which of the numbers nobody can mean.
    pub fn findings(&self) -> Findings {
        let mut found = Findings::default();
        found.within("temperature", self.temperature, 0.0..=100.0);
        found.at_least_one("max_tokens", self.max_tokens);
        found.span("attempt_timeout_ms", self.attempt_timeout_ms.max(1), 1, 1000);
        found.span("deadline_ms", self.deadline_ms.max(1), 1, 1000);
        found
    }
}

/// The judge.
pub struct ModelJudge {
    config: ModelConfig,
    endpoint: String,
    key: Option<HeaderValue>,
    client: reqwest::Client,
    slots: Semaphore,
    cache: Mutex<Remembered<blake3::Hash, Verdict>>,
}

impl std::fmt::Debug for ModelJudge {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelJudge").field("endpoint", &self.endpoint).field("model", &self.config.model).finish_non_exhaustive()
    }
}

/// Why an attempt gave no verdict.
enum Miss {
    /// Another attempt may succeed.
    Again(&'static str),
    /// No attempt will.
    Final(&'static str),
}

impl ModelJudge {
    /// Checks the settings; nothing is sent yet.
    ///
    /// # Errors
    /// [`BadInput`], which names the key.
    pub fn new(config: &ModelConfig) -> Result<Self, BadInput> {
        let bad = |text: String| Err(BadInput::new(format!("judge_model.{text}")));
        if !(config.url.starts_with("http://") || config.url.starts_with("https://")) {
            return bad(format!("url is {:?}; give the base of an OpenAI-compatible API, such as http://127.0.0.1:8000/v1", config.url));
        }
        let base = reqwest::Url::parse(&config.url).ok();
        let bare =
            |url: &reqwest::Url| url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
        if !base.as_ref().is_some_and(bare) {
            // It is not quoted: it may hold a password.
            return bad("url is no plain address (no password, no ?, no #); a key goes into the variable that api_key_env names".into());
        }
        if config.model.is_empty() {
            return bad("model is empty; name the model that judges".into());
        }
        if config.attempts == 0 || config.attempt_timeout_ms == 0 || config.deadline_ms == 0 || config.concurrency == 0 {
            return bad("attempts, attempt_timeout_ms, deadline_ms and concurrency must be at least 1".into());
        }
        let key = match config.api_key_env.as_str() {
            "" => None,
            // What cannot be a variable's name may be the key itself.
            name if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') => {
                return bad("api_key_env is no name of an environment variable; it names one, and never holds the key itself".into());
            }
            name => match std::env::var(name) {
                Ok(key) if key.trim().is_empty() => return bad(format!("api_key_env names {name}, which is empty")),
                Ok(key) => match HeaderValue::from_str(&format!("Bearer {key}")) {
                    Ok(mut header) => {
                        header.set_sensitive(true);
                        Some(header)
                    }
                    Err(_) => return bad(format!("api_key_env names {name}, whose value cannot be a header (a line break at its end?)")),
                },
                Err(_) => return bad(format!("api_key_env names {name}, which is not set")),
            },
        };
        // No proxy and no redirect: what is judged goes where the settings say, and nowhere else.
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build();
        let client = client.map_err(|error| BadInput::new(format!("judge_model: no HTTP client: {error}")))?;
        Ok(Self {
            endpoint: format!("{}/chat/completions", config.url.trim_end_matches('/')),
            key,
            client,
            slots: Semaphore::new(config.concurrency.min(Semaphore::MAX_PERMITS)),
            cache: Mutex::new(Remembered::new(config.cache_entries)),
            config: config.clone(),
        })
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Remembered<blake3::Hash, Verdict>> {
        // The worst that a panic leaves is a forgotten verdict.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A hash of all that a verdict depends on; parts carry their lengths, so that none runs into the next.
    fn key_of(&self, question: &str, prediction: &str, answers: &[String]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        let judge = [self.endpoint.as_str(), self.config.model.as_str()];
        let parts = judge.into_iter().chain([question, prediction]).chain(answers.iter().map(String::as_str));
        hasher.update(&prompt::VERSION.to_le_bytes());
        hasher.update(&self.config.temperature.to_le_bytes());
        hasher.update(&self.config.max_tokens.to_le_bytes());
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.finalize()
    }

    async fn attempt(&self, body: &Value) -> Result<Verdict, Miss> {
        let mut request = self.client.post(&self.endpoint).json(body);
        if let Some(key) = &self.key {
            request = request.header(AUTHORIZATION, key.clone());
        }
        let mut response = request.send().await.map_err(|error| Miss::Again(if error.is_connect() { "connect" } else { "transport" }))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::REQUEST_TIMEOUT | StatusCode::CONFLICT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
                return Err(Miss::Again("busy"));
            }
            status if status.is_server_error() => return Err(Miss::Again("server")),
            _ => return Err(Miss::Final("refused")),
        }
        let mut text = Vec::new();
        while let Some(part) = response.chunk().await.map_err(|_| Miss::Again("transport"))? {
            if text.len() + part.len() > MAX_REPLY_BYTES {
                return Err(Miss::Again("too_long"));
            }
            text.extend_from_slice(&part);
        }
        reply::of_completion(&text).map_err(|why| Miss::Again(why.label()))
    }

    async fn ask(&self, body: &Value) -> Result<Verdict, &'static str> {
        let _slot = self.slots.acquire().await.map_err(|_| "closed")?;
        let mut backoff = Backoff::new(&BackoffConfig { first_ms: 200, max_ms: 4000, ..BackoffConfig::default() });
        let mut last = "attempts";
        for attempt in 0..self.config.attempts {
            if attempt > 0 {
                tokio::time::sleep(backoff.next_delay()).await;
            }
            let limit = Duration::from_millis(self.config.attempt_timeout_ms);
            let missed = match tokio::time::timeout(limit, self.attempt(body)).await {
                Ok(Ok(verdict)) => return Ok(verdict),
                Ok(Err(missed)) => missed,
                Err(_) => Miss::Again("slow"),
            };
            let (reason, again) = match missed {
                Miss::Again(reason) => (reason, true),
                Miss::Final(reason) => (reason, false),
            };
            counter!(names::JUDGE_MISSES, "reason" => reason).increment(1);
            last = reason;
            if !again {
                break;
            }
        }
        Err(last)
    }
}

impl ModelJudge {
    /// One verdict, remembered or asked for; nothing when the attempts or the time are used up.
    async fn verdict(&self, question: &str, prediction: &str, answers: &[String]) -> Option<Verdict> {
        if prompt::is_too_long(prediction, answers) {
            counter!(names::JUDGE_VERDICTS, "outcome" => "too_long").increment(1);
            return Some(Verdict::Wrong);
        }
        let key = self.key_of(question, prediction, answers);
        if let Some(known) = self.cache().get(&key).copied() {
            counter!(names::JUDGE_VERDICTS, "outcome" => "remembered").increment(1);
            return Some(known);
        }
        let body = json!({
            "model": self.config.model,
            "messages": [{"role": "user", "content": prompt(question, prediction, answers)}],
            "temperature": self.config.temperature,
            "max_tokens": self.config.max_tokens,
        });
        let began = Instant::now();
        let asked = tokio::time::timeout(Duration::from_millis(self.config.deadline_ms), self.ask(&body)).await;
        histogram!(names::JUDGE_SECONDS).record(began.elapsed().as_secs_f64());
        match asked.unwrap_or(Err("deadline")) {
            Ok(verdict) => {
                counter!(names::JUDGE_VERDICTS, "outcome" => if verdict == Verdict::Correct { "correct" } else { "wrong" }).increment(1);
                self.cache().insert(key, verdict);
                Some(verdict)
            }
            Err(reason) => {
                counter!(names::JUDGE_VERDICTS, "outcome" => "failed").increment(1);
                tracing::warn!(
                    reason,
                    endpoint = self.endpoint,
                    "the judge gave no verdict; the rollout counts neither as right nor as wrong"
                );
                None
            }
        }
    }
}

impl Verdicts for ModelJudge {
    fn verdicts<'a>(&'a self, question: &'a str, predictions: &'a [&'a str], answers: &'a [String]) -> BoxFuture<'a, Vec<Option<Verdict>>> {
        Box::pin(join_all(predictions.iter().map(move |prediction| self.verdict(question, prediction, answers))))
    }

    fn label(&self) -> &'static str {
        "model"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_work_are_named_and_the_key_stays_hidden() {
        let sound = ModelConfig { url: "http://127.0.0.1:1/v1/".into(), model: "m".into(), ..ModelConfig::default() };
        let judge = ModelJudge::new(&ModelConfig { api_key_env: "PATH".into(), ..sound.clone() }).expect("sound");
        let shown = format!("{judge:?}");
        assert!(shown.contains("http://127.0.0.1:1/v1/chat/completions") && !shown.contains("/bin"), "{shown}");
        let refused = |config: ModelConfig, mentions: &str| {
            let error = ModelJudge::new(&config).expect_err(mentions).to_string();
            assert!(error.contains(mentions), "{error}");
        };
        refused(ModelConfig { url: "ftp://x".into(), ..sound.clone() }, "judge_model.url");
        refused(ModelConfig { model: String::new(), ..sound.clone() }, "judge_model.model");
        refused(ModelConfig { attempts: 0, ..sound.clone() }, "judge_model.attempts");
        refused(ModelConfig { api_key_env: "NO_SUCH_VARIABLE_HERE".into(), ..sound }, "NO_SUCH_VARIABLE_HERE");
    }

    #[test]
    fn a_verdict_is_remembered_by_all_that_it_depends_on() {
        let config = ModelConfig { url: "http://127.0.0.1:1".into(), model: "m".into(), ..ModelConfig::default() };
        let judge = ModelJudge::new(&config).expect("sound");
        let other = ModelJudge::new(&ModelConfig { model: "n".into(), ..config }).expect("sound");
        let answers = |list: &[&str]| list.iter().map(|answer| (*answer).to_owned()).collect::<Vec<_>>();
        let base = judge.key_of("q", "p", &answers(&["a", "b"]));
        assert_eq!(base, judge.key_of("q", "p", &answers(&["a", "b"])));
        for other in [
            judge.key_of("q2", "p", &answers(&["a", "b"])),
            judge.key_of("q", "p2", &answers(&["a", "b"])),
            judge.key_of("q", "p", &answers(&["ab"])),
            judge.key_of("qp", "", &answers(&["a", "b"])),
            other.key_of("q", "p", &answers(&["a", "b"])),
        ] {
            assert_ne!(base, other);
        }
    }
}
