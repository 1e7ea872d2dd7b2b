//! What can become of a question to a server, each with a name that is counted. In: what went wrong, and whether it may pass. Out: a
//! label, and a text for people. It knows no protocol.

use std::time::Duration;

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// An answer that was held against what was asked.
    Ok,
    /// Fewer ids than the answer itself speaks of.
    ShortIds,
    /// Ids that cannot be meant: outside the vocabulary, after an end token, not those that the log-probs are of.
    OtherIds,
    /// The server read other tokens than were meant: its pictures take other numbers of placeholders.
    Expansion,
    /// A token without a log-prob.
    NoLogprobs,
    /// A log-prob that is no number, or a stand-in for one.
    NotFinite,
    /// A log-prob of a probability above 1.
    PositiveLogprob,
    /// Tokens of weights that this engine has not put there.
    StaleVersion,
    /// No token at all.
    NoTokens,
    /// More tokens than were asked for, or a reply longer than any is read.
    TooLong,
    /// No connection.
    Connect,
    /// A connection that broke.
    Transport,
    /// The server has no time at present.
    Busy,
    /// The server failed.
    Server,
    /// The server understood and refused.
    Refused,
    /// No answer in time.
    Slow,
    /// A reply that cannot be read.
    Malformed,
    /// The server gave the request up.
    Aborted,
}

impl Outcome {
    /// The `outcome` label of counters.
    pub fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ShortIds => "short_ids",
            Self::OtherIds => "other_ids",
            Self::Expansion => "expansion",
            Self::NoLogprobs => "no_logprobs",
            Self::NotFinite => "not_finite",
            Self::PositiveLogprob => "positive_logprob",
            Self::StaleVersion => "stale_version",
            Self::NoTokens => "no_tokens",
            Self::TooLong => "too_long",
            Self::Connect => "connect",
            Self::Transport => "transport",
            Self::Busy => "busy",
            Self::Server => "server",
            Self::Refused => "refused",
            Self::Slow => "slow",
            Self::Malformed => "malformed",
            Self::Aborted => "aborted",
        }
    }
}

/// Why a question brought nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Miss {
    /// What became of it.
    pub outcome: Outcome,
    /// What happened, for people; it does not name the server.
    pub reason: String,
    /// Whether the same question may be answered later, or elsewhere.
    pub again: bool,
    /// The pause that the server asked for.
    pub after: Option<Duration>,
}

impl Miss {
    /// One that may pass.
    pub fn again(outcome: Outcome, reason: impl ToString) -> Self {
        Self { outcome, reason: reason.to_string(), again: true, after: None }
    }

    /// One that will not.
    pub fn last(outcome: Outcome, reason: impl ToString) -> Self {
        Self { outcome, reason: reason.to_string(), again: false, after: None }
    }
}
