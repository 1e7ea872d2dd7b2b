//! A language model as a judge, by the OpenAI chat-completions protocol that every server speaks.
//!
//! In: question, prediction, right answers. Out: a verdict, or none after the attempts or the time are used up. Verdicts
//! are remembered by all that they depend on, the prompt's version included. [`crate::prompt`] is what it is asked,
//! [`crate::reply`] how what it says is read.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, join_all};
use hypereyes_chassis::backoff::BackoffConfig;
use hypereyes_chassis::{BadInput, Findings, Remembered};
use hypereyes_openai::{Client, Endpoint, Miss, Patience, Request};
use hypereyes_scoring::Verdict;
use metrics::{counter, histogram};
use serde::{Deserialize, Serialize};
use serde_json::json;

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
    client: Client,
    cache: Mutex<Remembered<blake3::Hash, Verdict>>,
}

impl std::fmt::Debug for ModelJudge {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelJudge").field("client", &self.client).finish_non_exhaustive()
    }
}

impl ModelJudge {
    /// Checks the settings; nothing is sent yet.
    ///
    /// # Errors
    /// [`BadInput`], which names the key.
    pub fn new(config: &ModelConfig) -> Result<Self, BadInput> {
        let bad = |text: &str| BadInput::new(format!("judge_model.{text}"));
        let endpoint = Endpoint { url: &config.url, model: &config.model, api_key_env: &config.api_key_env };
        let missed = |label| {
            if label != "ok" {
                counter!(names::JUDGE_MISSES, "reason" => label).increment(1);
            }
        };
        let client = Client::new(endpoint, config.concurrency, MAX_REPLY_BYTES, missed).map_err(|error| bad(&error))?;
        if config.model.is_empty() {
            return Err(bad("model is empty; name the model that judges"));
        }
        if config.attempts == 0 || config.attempt_timeout_ms == 0 || config.deadline_ms == 0 || config.concurrency == 0 {
            return Err(bad("attempts, attempt_timeout_ms, deadline_ms and concurrency must be at least 1"));
        }
        Ok(Self { client, cache: Mutex::new(Remembered::new(config.cache_entries)), config: config.clone() })
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Remembered<blake3::Hash, Verdict>> {
        // The worst that a panic leaves is a forgotten verdict.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A hash of all that a verdict depends on; parts carry their lengths, so that none runs into the next.
    fn key_of(&self, question: &str, prediction: &str, answers: &[String]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        let judge = [self.client.url(), self.client.model()];
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

    async fn ask(&self, message: &str) -> Result<Verdict, Miss> {
        let messages = [json!({"role": "user", "content": message})];
        let ModelConfig { max_tokens, temperature, attempts, .. } = self.config;
        let request = Request { messages: &messages, tools: &[], max_tokens, temperature, top_p: None, seed: None };
        let patience = Patience {
            attempts,
            attempt: Duration::from_millis(self.config.attempt_timeout_ms),
            deadline: tokio::time::Instant::now() + Duration::from_millis(self.config.deadline_ms),
            backoff: BackoffConfig { first_ms: 200, max_ms: 4000, ..BackoffConfig::default() },
        };
        let read = |completion| reply::of_completion(&completion).map_err(|why| Miss::again(why.label(), "its reply is no verdict"));
        self.client.ask(&request, &patience, read).await
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
        let began = Instant::now();
        let asked = self.ask(&prompt(question, prediction, answers)).await;
        histogram!(names::JUDGE_SECONDS).record(began.elapsed().as_secs_f64());
        match asked {
            Ok(verdict) => {
                counter!(names::JUDGE_VERDICTS, "outcome" => if verdict == Verdict::Correct { "correct" } else { "wrong" }).increment(1);
                self.cache().insert(key, verdict);
                Some(verdict)
            }
            Err(missed) => {
                counter!(names::JUDGE_VERDICTS, "outcome" => "failed").increment(1);
                tracing::warn!(
                    reason = missed.label,
                    message = missed.message,
                    url = self.client.url(),
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
        assert!(shown.contains("http://127.0.0.1:1/v1") && !shown.contains("/bin"), "{shown}");
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
