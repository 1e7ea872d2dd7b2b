//! A question to a server and its answer, as every dialect has them. In: a sequence that is to go on, or to be scored. Out: plain data.
//! How it is written on the wire is the dialects' matter.

use std::sync::Arc;

use hypereyes_domain::{PictureId, Sampling};

/// A picture as servers take it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its name.
    pub id: PictureId,
    /// Its encoded bytes, upright, as a data URI.
    pub uri: Arc<str>,
    /// Placeholders that it has here.
    pub tokens: usize,
}

/// What a server must know of a model to be asked, whatever the question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reads {
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// The placeholder of pictures: it is never sampled.
    pub pad: u32,
    /// Tokens that end a turn, any of them.
    pub end_tokens: Vec<u32>,
}

/// A question: these tokens, and what is wanted of them.
#[derive(Clone, Debug)]
pub struct Ask {
    /// What the model reads, with every placeholder.
    pub expanded: Vec<u32>,
    /// The same with one placeholder per picture.
    pub compact: Vec<u32>,
    /// The pictures in order.
    pub pictures: Vec<Shown>,
    /// The model.
    pub reads: Arc<Reads>,
    /// What is wanted.
    pub want: Want,
}

/// What is wanted of a question's tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Want {
    /// That they go on.
    Turn {
        /// How tokens are chosen.
        sampling: Sampling,
        /// Of this turn alone.
        seed: u64,
        /// At most so many.
        max_tokens: usize,
    },
    /// Their log-probs.
    Score {
        /// First token of which it is wanted; above 0.
        from: usize,
        /// The likeliest tokens to name at each place.
        top: usize,
    },
}

/// Why a server stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// At an end token.
    Stop,
    /// At the limit.
    Length,
    /// It gave up.
    Abort,
    /// Something else; its word for it.
    Other(String),
}

/// What a server says that it read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Echo {
    /// The ids, pictures expanded.
    pub ids: Option<Vec<u32>>,
    /// How many.
    pub count: Option<usize>,
}

/// Tokens from `start` on, up to `end`, and the label of the weights that sampled them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// First token.
    pub start: usize,
    /// The one after the last.
    pub end: usize,
    /// The weights' label at the server.
    pub label: String,
}

/// What a server says of one token: which one it speaks of, and its log-prob. Either may be missing.
pub type Said = (Option<u32>, Option<f64>);

/// A sampled turn as a server says it: nothing of it is believed yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// Sampled ids.
    pub tokens: Option<Vec<u32>>,
    /// How many it says there are.
    pub count: Option<usize>,
    /// Their log-probs.
    pub logprobs: Option<Vec<Said>>,
    /// Why it ended.
    pub finish: Finish,
    /// What it read.
    pub echo: Echo,
    /// Which weights sampled which tokens.
    pub versions: Option<Vec<Span>>,
}

/// What a server says at one place of given tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// The token that it speaks of.
    pub token: u32,
    /// Its log-prob.
    pub logprob: Option<f64>,
    /// The likeliest tokens, the likeliest first.
    pub top: Vec<(u32, f32)>,
}

/// Scores as a server says them: nothing of it is believed yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// One per token from the first wanted one on.
    pub places: Vec<Place>,
    /// What it read.
    pub echo: Echo,
}
