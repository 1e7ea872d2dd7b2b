//! A language model as a judge, by the OpenAI chat-completions protocol that every server speaks.
//!
//! In: question, prediction, right answers. Out: a verdict, or none after the attempts or the time are used up. What it said is
//! remembered by all that it depends on, the prompt's text included. [`crate::prompts`] is what it is asked, [`crate::reply`] how what it
//! says is read, [`crate::votes`] what several replies come to.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::{BoxFuture, join_all};
use futures::stream::FuturesUnordered;
use hypereyes_chassis::backoff::BackoffConfig;
use hypereyes_chassis::{BadInput, Remembered};
use hypereyes_openai::{Client, Endpoint, Miss, Patience, Request};
use hypereyes_scoring::Verdict;
use metrics::{counter, histogram};
use serde_json::json;
use tokio::sync::OnceCell;

use crate::config::ModelConfig;
use crate::kept::Kept;
use crate::prompts::Prompt;
use crate::votes::{MOST_VOTES, Outcome, Votes};
use crate::{Verdicts, metrics as names, quote, reply};

/// Longest reply that is read.
const MAX_REPLY_BYTES: usize = 256 << 10;

/// The judge.
pub struct ModelJudge {
    config: ModelConfig,
    prompt: &'static dyn Prompt,
    /// A hash of the prompt and all other settings that what is said depends on.
    base: blake3::Hash,
    client: Client,
    cache: Mutex<Remembered<blake3::Hash, Verdict>>,
    /// The file behind it, opened when the first verdict is asked for; nothing where there is none, or it cannot be used.
    kept: OnceCell<Option<Kept>>,
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
        if config.votes.is_multiple_of(2) || config.votes > MOST_VOTES {
            return Err(bad(&format!(
                "votes is {}: give an odd number of 1 to {MOST_VOTES}, so that one side has more than half",
                config.votes
            )));
        }
        let mut base = blake3::Hasher::new();
        base.update(config.prompt.hash().as_bytes());
        base.update(&config.temperature.to_le_bytes()).update(&config.reply_tokens().to_le_bytes());
        put(&mut base, client.url());
        put(&mut base, client.model());
        let cache = Mutex::new(Remembered::new(config.cache_entries));
        Ok(Self { client, cache, kept: OnceCell::new(), base: base.finalize(), prompt: config.prompt.prompt(), config: config.clone() })
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Remembered<blake3::Hash, Verdict>> {
        // The worst that a panic leaves is a forgotten verdict.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file of verdicts, opened once and taken into memory. A judge whose file cannot be used judges without it.
    async fn kept(&self) -> Option<&Kept> {
        let path = self.config.cache_path.as_ref()?;
        let open = async || {
            let (file, most) = (path.clone(), self.config.cache_entries);
            match tokio::task::spawn_blocking(move || Kept::open(&file, most)).await.unwrap_or_else(|error| Err(error.into())) {
                Ok((kept, votes)) => {
                    let mut cache = self.cache();
                    for (key, verdict) in votes {
                        cache.insert(key, verdict);
                    }
                    Some(kept)
                }
                Err(error) => {
                    counter!(names::JUDGE_CACHE_ERRORS, "reason" => "open").increment(1);
                    tracing::warn!(path = %path.display(), %error, "judge_model.cache_path cannot be used; verdicts are not kept");
                    None
                }
            }
        };
        self.kept.get_or_init(open).await.as_ref()
    }

    /// Seeds of the votes. One vote has none, as before there were several; of several each has its own, so that a server that caches
    /// by request does not give one reply for all.
    fn seeds(&self) -> impl Iterator<Item = Option<u64>> + use<> {
        let several = self.config.votes > 1;
        (0..u64::from(self.config.votes)).map(move |vote| several.then_some(vote))
    }

    /// A hash of all that a vote depends on.
    fn key_of(&self, seed: Option<u64>, question: &str, prediction: &str, answers: &[String]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.base.as_bytes());
        hasher.update(&[u8::from(seed.is_some())]).update(&seed.unwrap_or_default().to_le_bytes());
        [question, prediction].into_iter().chain(answers.iter().map(String::as_str)).for_each(|part| put(&mut hasher, part));
        hasher.finalize()
    }

    async fn ask(&self, message: &str, seed: Option<u64>) -> Result<Verdict, Miss> {
        let messages = [json!({"role": "user", "content": message})];
        let ModelConfig { temperature, attempts, .. } = self.config;
        let request = Request { messages: &messages, tools: &[], max_tokens: self.config.reply_tokens(), temperature, top_p: None, seed };
        let patience = Patience {
            attempts,
            attempt: Duration::from_millis(self.config.attempt_timeout_ms),
            deadline: tokio::time::Instant::now() + Duration::from_millis(self.config.deadline_ms),
            backoff: BackoffConfig { first_ms: 200, max_ms: 4000, ..BackoffConfig::default() },
        };
        let read = |completion| {
            let read = reply::of_completion(&completion, |said| self.prompt.read(said));
            read.map_err(|why| Miss::again(why.label(), "its reply is no verdict"))
        };
        self.client.ask(&request, &patience, read).await
    }

    /// One verdict, remembered or asked for; nothing when the attempts or the time are used up, or no side has more than half.
    async fn verdict(&self, question: &str, prediction: &str, answers: &[String]) -> Option<Verdict> {
        if quote::is_too_long(prediction, answers) {
            counter!(names::JUDGE_VERDICTS, "outcome" => "too_long").increment(1);
            return Some(Verdict::Wrong);
        }
        let wanted = |seed| Wanted { seed, key: self.key_of(seed, question, prediction, answers) };
        let all: Vec<Wanted> = self.seeds().map(wanted).collect();
        let kept = self.kept().await;
        let mut votes = Votes::new(self.config.votes);
        let mut missing = vec![];
        {
            let cache = self.cache();
            for one in &all {
                match cache.get(&one.key) {
                    Some(known) => votes.take(*known),
                    None => missing.push(*one),
                }
            }
        }
        if let Some(Outcome::Verdict(known)) = votes.outcome() {
            counter!(names::JUDGE_VERDICTS, "outcome" => "remembered").increment(1);
            return Some(known);
        }
        if votes.outcome().is_some() {
            // What is known leaves no side more than half: all are asked anew, like whatever else is no verdict.
            missing = all;
            votes = Votes::new(self.config.votes);
        }
        let began = Instant::now();
        let message = self.prompt.message(question, prediction, answers);
        let missed = self.collect(&mut votes, missing, &message, kept).await;
        histogram!(names::JUDGE_SECONDS).record(began.elapsed().as_secs_f64());
        if let Some(Outcome::Verdict(verdict)) = votes.outcome() {
            counter!(names::JUDGE_VERDICTS, "outcome" => label(verdict)).increment(1);
            return Some(verdict);
        }
        let (reason, message) =
            missed.map_or(("split", "no verdict has more than half of the votes".into()), |miss| (miss.label, miss.message));
        if reason == "split" {
            counter!(names::JUDGE_MISSES, "reason" => reason).increment(1);
        }
        counter!(names::JUDGE_VERDICTS, "outcome" => "failed").increment(1);
        tracing::warn!(
            reason,
            message,
            url = self.client.url(),
            "the judge gave no verdict; the rollout counts neither as right nor as wrong"
        );
        None
    }

    /// Asks for the votes that are missing, at the same time, until it is known what they come to; the last miss, if there was one.
    async fn collect(&self, votes: &mut Votes, missing: Vec<Wanted>, message: &str, kept: Option<&Kept>) -> Option<Miss> {
        let ask = |Wanted { seed, key }| async move { (key, self.ask(message, seed).await) };
        let mut asked: FuturesUnordered<_> = missing.into_iter().map(ask).collect();
        let mut last = None;
        while votes.outcome().is_none()
            && let Some((key, said)) = asked.next().await
        {
            let vote = match said {
                Ok(verdict) => {
                    self.cache().insert(key, verdict);
                    if let Some(kept) = kept {
                        kept.add(key, verdict);
                    }
                    votes.take(verdict);
                    label(verdict)
                }
                Err(miss) => {
                    votes.miss();
                    last = Some(miss);
                    "missing"
                }
            };
            if self.config.votes > 1 {
                counter!(names::JUDGE_VOTES, "vote" => vote).increment(1);
            }
        }
        last
    }
}

/// A vote that is to be had.
#[derive(Clone, Copy)]
struct Wanted {
    seed: Option<u64>,
    /// By which it is remembered.
    key: blake3::Hash,
}

/// A part of a hash; it carries its length, so that none runs into the next.
fn put(hasher: &mut blake3::Hasher, part: &str) {
    hasher.update(&(part.len() as u64).to_le_bytes());
    hasher.update(part.as_bytes());
}

fn label(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Correct => "correct",
        Verdict::Wrong => "wrong",
        Verdict::NotAttempted => "not_attempted",
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
    use std::collections::HashSet;

    use super::*;
    use crate::prompts::PromptKind;

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
        for votes in [0, 2, 100, 101] {
            refused(ModelConfig { votes, ..sound.clone() }, "judge_model.votes");
        }
        refused(ModelConfig { api_key_env: "NO_SUCH_VARIABLE_HERE".into(), ..sound }, "NO_SUCH_VARIABLE_HERE");
    }

    #[test]
    fn a_verdict_is_remembered_by_all_that_it_depends_on() {
        let config = ModelConfig { url: "http://127.0.0.1:1".into(), model: "m".into(), ..ModelConfig::default() };
        let answers = |list: &[&str]| list.iter().map(|answer| (*answer).to_owned()).collect::<Vec<_>>();
        let of = |config: &ModelConfig, seed: Option<u64>, question: &str, prediction: &str, right: &[&str]| {
            ModelJudge::new(config).expect("sound").key_of(seed, question, prediction, &answers(right))
        };
        let base = of(&config, None, "q", "p", &["a", "b"]);
        assert_eq!(base, of(&config, None, "q", "p", &["a", "b"]));
        assert_eq!(base, of(&ModelConfig { max_tokens: Some(30), ..config.clone() }, None, "q", "p", &["a", "b"]), "the same, said");
        let mut seen = HashSet::from([base]);
        for (at, other) in [
            of(&config, None, "q", "p", &["a"]),
            of(&config, None, "q", "p", &["b", "a"]),
            of(&config, None, "q", "p", &["ab"]),
            of(&config, None, "qp", "", &["a", "b"]),
            of(&config, Some(0), "q", "p", &["a", "b"]),
            of(&config, Some(1), "q", "p", &["a", "b"]),
            of(&ModelConfig { model: "n".into(), ..config.clone() }, None, "q", "p", &["a", "b"]),
            of(&ModelConfig { url: "http://127.0.0.1:2".into(), ..config.clone() }, None, "q", "p", &["a", "b"]),
            of(&ModelConfig { temperature: 0.5, ..config.clone() }, None, "q", "p", &["a", "b"]),
            of(&ModelConfig { max_tokens: Some(31), ..config.clone() }, None, "q", "p", &["a", "b"]),
            of(&ModelConfig { prompt: PromptKind::HyperEyes, ..config.clone() }, None, "q", "p", &["a", "b"]),
            of(&ModelConfig { prompt: PromptKind::SimpleQa, ..config.clone() }, None, "q", "p", &["a", "b"]),
        ]
        .into_iter()
        .enumerate()
        {
            assert!(seen.insert(other), "{at} is like another");
        }
    }
}
