//! How servers are spoken to. In: questions as data. Out: calls to make, and what replies say. A dialect is a file beside this one and
//! its line in [`Dialect::speaker`]; it opens no connection and believes nothing.

use std::fmt;

use bytes::Bytes;

use super::link::{Call, Link};
use super::outcome::Miss;
use super::request::{Ask, Reply, Scores};
use super::{sglang, vllm};

/// The protocol of somebody else's server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// vLLM: `/inference/v1/generate`.
    Vllm,
    /// SGLang: `/generate`.
    Sglang,
}

impl Dialect {
    /// Its name in settings and sources.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
        }
    }

    pub(crate) fn speaker(self) -> &'static dyn Speak {
        match self {
            Self::Vllm => &vllm::Vllm,
            Self::Sglang => &sglang::Sglang,
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a server says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Models that it serves, with the tokens that a sequence may have.
    pub models: Vec<(String, Option<usize>)>,
    /// What it can do at once, and with seeds.
    pub limits: Limits,
    /// The label of its weights.
    pub label: String,
}

/// What a server says of its limits; it may say nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Requests that it works on at once.
    pub requests: Option<usize>,
    /// What becomes of the seeds of turns.
    pub seeds: Seeds,
}

/// What a server does with the seeds of turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Seeds {
    /// It draws by them.
    #[default]
    Kept,
    /// It takes them and draws without; how it is started that keeps them.
    Ignored(&'static str),
    /// It would end at one, so that none is sent; how it is started that keeps them.
    Fatal(&'static str),
}

/// Words around a question that are the engine's, not the sequence's.
#[derive(Clone, Copy, Debug)]
pub struct Around<'a> {
    /// The model's name at the server.
    pub model: &'a str,
    /// The label of the weights: what the server remembers of prompts is apart for each.
    pub label: &'a str,
    /// The request's own name.
    pub request: &'a str,
    /// Whether the turn's seed is sent.
    pub seeded: bool,
}

/// One protocol.
pub(crate) trait Speak: Send + Sync {
    /// A turn, or scores, as the server is asked for them.
    fn question(&self, ask: &Ask, around: &Around<'_>) -> Call;

    /// What the reply to a turn says.
    ///
    /// # Errors
    /// [`Miss`] for one that cannot be read.
    fn turn(&self, reply: &[u8]) -> Result<Reply, Miss>;

    /// What the reply to a question for scores says.
    ///
    /// # Errors
    /// [`Miss`] for one that cannot be read.
    fn scores(&self, reply: &[u8], ask: &Ask) -> Result<Scores, Miss>;

    /// What the server answers to when it is well.
    fn health(&self) -> Call {
        Call::get("/health")
    }

    /// Gives a request up, where the end of its connection does not.
    fn abort(&self, _request: &str) -> Option<Call> {
        None
    }

    /// Stops between two steps; requests stay where they are.
    fn pause(&self) -> Call;

    /// Puts the weights of a folder in the place of those that are there, forgets what was computed with them, and labels them.
    fn reload(&self, folder: &str, label: &str) -> Vec<Call>;

    /// How often a folder must be loaded to be in place whole, where weights of this label are.
    fn loads(&self, _label: &str) -> usize {
        1
    }

    /// Goes on. Harmless where nothing stands still.
    fn resume(&self) -> Call;

    /// Asks for the label of the weights.
    fn label(&self) -> Call;

    /// The label in the reply to that.
    ///
    /// # Errors
    /// [`Miss`] where there is none.
    fn read_label(&self, reply: &[u8]) -> Result<String, Miss>;

    /// How a server is started that does all of this: what to say where it does not.
    fn advice(&self) -> &'static str;

    /// Asks for what the server says of its models.
    fn models(&self) -> Call {
        Call::get("/v1/models")
    }

    /// Asks for the server's limits.
    fn limits(&self) -> Call;

    /// What the reply to that says.
    fn read_limits(&self, reply: &[u8]) -> Limits;
}

/// JSON that is posted.
pub(crate) fn posted(path: &'static str, body: &impl serde::Serialize) -> Call {
    let body = serde_json::to_vec(body).expect("questions are plain data");
    Call { path, body: Some(Bytes::from(body)) }
}

/// Asks a server what it is.
///
/// # Errors
/// [`Miss`]; one that is final means that the server can never serve.
pub(crate) async fn facts(link: &Link, speaker: &dyn Speak, until: tokio::time::Instant) -> Result<Facts, Miss> {
    #[derive(serde::Deserialize)]
    struct Models {
        data: Vec<Card>,
    }
    #[derive(serde::Deserialize)]
    struct Card {
        id: String,
        max_model_len: Option<usize>,
    }
    let advise = |miss: Miss| match miss.again {
        true => miss,
        false => Miss { reason: format!("{}; {}", miss.reason, speaker.advice()), ..miss },
    };
    let models: Models = super::link::read(&link.ask(&speaker.models(), until).await?)?;
    let label = link.ask(&speaker.label(), until).await.and_then(|reply| speaker.read_label(&reply)).map_err(advise)?;
    // What is not said of limits is no reason to do without a server.
    let limits = link.ask(&speaker.limits(), until).await.map(|reply| speaker.read_limits(&reply)).unwrap_or_default();
    Ok(Facts { models: models.data.into_iter().map(|card| (card.id, card.max_model_len)).collect(), limits, label })
}
