//! What a server is asked. In: messages and limits. Out: a body in the words that this server takes.

use serde::Serialize;
use serde_json::Value;

/// A dialogue that is to be gone on with.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Messages, as the protocol has them.
    pub messages: &'a [Value],
    /// Tools that are offered (`{"type": "function", "function": {..}}`).
    pub tools: &'a [Value],
    /// Most tokens of the reply.
    pub max_tokens: u32,
    /// 0 is greedy.
    pub temperature: f64,
    /// Nucleus; absent leaves it to the server.
    pub top_p: Option<f64>,
    /// Seed of the sampling, where the server has one.
    pub seed: Option<u64>,
}

/// Which optional words a server takes; learned from its refusals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Habits {
    /// `max_completion_tokens` in place of `max_tokens`.
    pub(crate) completion_tokens: bool,
    /// No `seed`.
    pub(crate) seedless: bool,
    /// No `temperature` and no `top_p`: it samples as it does.
    pub(crate) own_sampling: bool,
}

/// The body.
#[derive(Serialize)]
pub(crate) struct Body<'a> {
    model: &'a str,
    messages: &'a [Value],
    #[serde(skip_serializing_if = "<[Value]>::is_empty")]
    tools: &'a [Value],
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
}

impl<'a> Request<'a> {
    pub(crate) fn body(&self, model: &'a str, habits: Habits) -> Body<'a> {
        let Self { messages, tools, max_tokens, temperature, top_p, seed } = *self;
        let (old, new) = if habits.completion_tokens { (None, Some(max_tokens)) } else { (Some(max_tokens), None) };
        let seed = seed.filter(|_| !habits.seedless);
        let (temperature, top_p) = if habits.own_sampling { (None, None) } else { (Some(temperature), top_p) };
        Body { model, messages, tools, max_tokens: old, max_completion_tokens: new, temperature, top_p, seed }
    }
}
