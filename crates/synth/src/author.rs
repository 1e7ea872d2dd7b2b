//! A model that writes. In: what it is asked, and which form its reply must have. Out: the reply as a value, or why there is none; and
//! everything that it wrote with what it was asked, whatever became of it. It knows no task.
//!
//! A reply is JSON of one form and nothing else; thoughts before it and a code fence around it are no part of it. One of another form is
//! asked for again, with what was wrong with it, so often and no oftener.

use std::sync::Arc;
use std::time::Duration;

use hypereyes_chassis::backoff::BackoffConfig;
use hypereyes_domain::Sampling;
use hypereyes_openai::{Client, Completion, Finish, Miss, Patience, Request};
use metrics::counter;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::metrics::REPLIES;
use crate::served::Bill;

/// Attempts per request, where the server is busy or broken.
const ATTEMPTS: u32 = 6;
/// Letters of a reply that are sent back with what is wrong with it.
const MAX_SHOWN: usize = 4000;

/// The model, and how it is asked.
#[derive(Clone)]
pub struct Author {
    /// Its server.
    pub client: Arc<Client>,
    /// How it is sampled.
    pub sampling: Sampling,
    /// Tokens of a reply.
    pub max_tokens: u32,
    /// Replies that one question may take, at least 1.
    pub replies: u32,
    /// Longest wait for one answer of the server.
    pub attempt: Duration,
    /// Longest wait for one answer, all that is asked again included.
    pub patience: Duration,
}

/// What came of a question.
#[derive(Clone, Debug)]
pub struct Wrote<T> {
    /// The value, or what was wrong with the last reply.
    pub value: Result<T, &'static str>,
    /// Every reply and what it was asked for.
    pub written: Vec<Value>,
    /// What all replies cost.
    pub bill: Bill,
}

/// A server that did not answer, which says nothing of the question; and what it had written until then.
#[derive(Debug)]
pub struct Unanswered {
    /// Why there is no answer.
    pub missed: Miss,
    /// Every reply before, and what it was asked for.
    pub written: Vec<Value>,
    /// What those cost.
    pub bill: Bill,
}

impl Author {
    /// What it is called.
    pub fn model(&self) -> String {
        format!("{} at {}", self.client.model(), self.client.url())
    }

    /// Asks for something of a form. `purpose` and `about` say what for, in what is kept.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub async fn ask<T>(
        &self,
        purpose: &'static str,
        about: &Value,
        system: &str,
        user: &str,
        seed: u64,
        read: impl Fn(Value) -> Result<T, &'static str>,
    ) -> Result<Wrote<T>, Unanswered> {
        let mut messages = vec![json!({"role": "system", "content": system}), json!({"role": "user", "content": user})];
        let mut wrote = Wrote { value: Err("nothing was asked"), written: vec![], bill: Bill::default() };
        for number in 0..self.replies.max(1) {
            let seed = seed.wrapping_add(u64::from(number));
            let completion = match self.complete(&messages, seed).await {
                Ok(completion) => completion,
                Err(missed) => return Err(Unanswered { missed, written: wrote.written, bill: wrote.bill }),
            };
            if let Some(usage) = completion.usage {
                wrote.bill += Bill { sent: usage.prompt, said: usage.completion };
            }
            let said = completion.text.clone().unwrap_or_default();
            wrote.value = json_of(&completion).and_then(&read);
            let outcome = wrote.value.as_ref().err().copied().unwrap_or("ok");
            counter!(REPLIES, "outcome" => outcome).increment(1);
            wrote.written.push(json!({
                "purpose": purpose, "model": self.model(), "about": about, "seed": seed, "messages": messages, "said": said, "outcome": outcome,
            }));
            if wrote.value.is_ok() {
                break;
            }
            let shown: String = said.chars().take(MAX_SHOWN).collect();
            messages.push(json!({"role": "assistant", "content": shown}));
            messages.push(
                json!({"role": "user", "content": format!("That cannot be used: {outcome}. Reply again, in the form that was asked for.")}),
            );
        }
        Ok(wrote)
    }

    async fn complete(&self, messages: &[Value], seed: u64) -> Result<Completion, Miss> {
        let Sampling { temperature, top_p, .. } = self.sampling;
        let decimal = |number: f32| number.to_string().parse().unwrap_or(f64::from(number));
        let request = Request {
            messages,
            tools: &[],
            max_tokens: self.max_tokens,
            temperature: decimal(temperature),
            top_p: Some(decimal(top_p)).filter(|top_p| *top_p < 1.0),
            seed: Some(seed),
        };
        let patience = Patience {
            attempts: ATTEMPTS,
            attempt: self.attempt,
            deadline: Instant::now() + self.patience,
            backoff: BackoffConfig { first_ms: 500, max_ms: 20_000, ..BackoffConfig::default() },
        };
        self.client.ask(&request, &patience, Ok).await
    }
}

/// The JSON of a reply.
fn json_of(completion: &Completion) -> Result<Value, &'static str> {
    match completion.finish {
        Finish::Length => return Err("it was cut at its token limit"),
        Finish::Withheld => return Err("the server withheld it"),
        Finish::Done => {}
    }
    let text = completion.text.as_deref().unwrap_or_default();
    let aloud = text.rsplit_once("</think>").map_or(text, |(_, aloud)| aloud).trim();
    let fenced = aloud.strip_prefix("```json").or_else(|| aloud.strip_prefix("```")).and_then(|rest| rest.strip_suffix("```"));
    serde_json::from_str(fenced.unwrap_or(aloud).trim()).map_err(|_| "it is not JSON and nothing else")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_json_and_nothing_else() {
        let read = |text: &str, finish| json_of(&Completion { text: Some(text.into()), finish, ..Completion::default() });
        let done = |text: &str| read(text, Finish::Done);
        for text in ["{\"a\":1}", " {\"a\":1}\n", "```json\n{\"a\":1}\n```", "```\n{\"a\":1}```", "<think>{\"b\":2}</think>\n{\"a\":1}"] {
            assert_eq!(done(text), Ok(json!({"a": 1})), "{text}");
        }
        for text in ["", "Here it is: {\"a\":1}", "{\"a\":1} I hope this helps", "{\"a\":1}{\"a\":1}", "<think>{\"a\":1}"] {
            assert_eq!(done(text), Err("it is not JSON and nothing else"), "{text}");
        }
        assert_eq!(read("{\"a\":1}", Finish::Length), Err("it was cut at its token limit"));
        assert_eq!(read("{}", Finish::Withheld), Err("the server withheld it"));
    }
}
