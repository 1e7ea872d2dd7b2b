//! What a request asks for, and what is answered, whatever the dialect. Data; nothing is done here.

use axum::http::StatusCode;
use bytes::Bytes;
use hypereyes_domain::Sampling;

/// A request for tokens or for log-probs of given ones.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The caller's name for it.
    pub id: String,
    /// Token ids, with one placeholder per picture.
    pub tokens: Vec<u32>,
    /// Encoded pictures, in order.
    pub pictures: Vec<Bytes>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Seed of the turn; a random one where it has none.
    pub seed: Option<u64>,
    /// Most tokens; as many as there is room for where it says nothing.
    pub max_tokens: Option<usize>,
    /// Tokens that end the turn beside the model's own end.
    pub stop: Vec<u32>,
    /// Goes on after the model's own end.
    pub ignore_end: bool,
    /// Whether log-probs of sampled tokens are wanted, and how many of the likeliest with each.
    pub logprobs: Option<usize>,
    /// Whether log-probs of the prompt are wanted.
    pub of_prompt: Option<OfPrompt>,
    /// Whether the expanded prompt is to be echoed.
    pub echo: bool,
    /// Refuses a request for more tokens than there is room for, instead of stopping when it is full.
    pub must_fit: bool,
}

/// Log-probs of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OfPrompt {
    /// The first token that is spoken of, counted in the expanded prompt.
    pub from: usize,
    /// How many of the likeliest are named at each.
    pub top: usize,
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// The prompt as the model reads it.
    pub prompt: Vec<u32>,
    /// Where pictures are in it: (first placeholder, placeholders).
    pub pictures: Vec<(usize, usize)>,
    /// Sampled tokens, with the one that ended the turn.
    pub tokens: Vec<u32>,
    /// Log-prob of each.
    pub logprobs: Vec<f32>,
    /// The likeliest at each place, where asked for.
    pub top: Vec<Vec<(u32, f32)>>,
    /// What the weights were called when each was sampled.
    pub labels: Vec<String>,
    /// Why it stopped.
    pub end: End,
    /// What was asked of the prompt, one per token from the first that is spoken of.
    pub of_prompt: Vec<Scored>,
}

/// One token of a prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// The token.
    pub token: u32,
    /// Its log-prob; the first of all has none.
    pub logprob: Option<f32>,
    /// The likeliest at its place.
    pub top: Vec<(u32, f32)>,
}

/// Why a turn stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The model's own end token.
    EndToken(u32),
    /// A token that the request named.
    Stop(u32),
    /// As many tokens as asked for, or as there is room for.
    Length,
    /// Somebody aborted it.
    Abort,
}

impl Turn {
    /// Runs of equal labels: label, first token, token after the last.
    pub fn spans(&self) -> Vec<(&str, usize, usize)> {
        let mut spans: Vec<(&str, usize, usize)> = vec![];
        for (at, label) in self.labels.iter().enumerate() {
            match spans.last_mut() {
                Some((last, _, end)) if last == label => *end = at + 1,
                _ => spans.push((label, at, at + 1)),
            }
        }
        spans
    }
}

/// A request that is not answered, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// HTTP status.
    pub status: StatusCode,
    /// What is wrong.
    pub message: String,
}

impl Refused {
    /// The request is wrong.
    pub fn request(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message: message.into() }
    }

    /// The server is.
    pub fn server(message: impl Into<String>) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, message: message.into() }
    }
}
