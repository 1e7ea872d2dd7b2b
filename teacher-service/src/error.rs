//! Why a call got no log-probs. In: what went wrong. Out: a text for people and a label for the counter.

use hypereyes_domain::{PictureId, TeacherId};
use hypereyes_engines::scoring::ScoringError;

/// Why a call got no log-probs. None of these is a policy's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScoreError {
    /// Pictures that are not here: the caller puts them and calls again.
    #[error("{} pictures are not here: put them and call again", .0.len())]
    MissingPictures(Vec<PictureId>),
    /// A sequence that does not fit the model: a token outside its vocabulary, placeholders without pictures, no prompt.
    #[error("sequence {index} does not fit model {model}: {reason}; are policy and teacher of one family?")]
    Misfit {
        /// The model.
        model: TeacherId,
        /// Which sequence of the call.
        index: usize,
        /// What does not fit.
        reason: String,
    },
    /// A sequence longer than a pass may be.
    #[error("sequence {index} has {tokens} tokens, this service takes {limit}; raise max_batch_tokens")]
    TooLong {
        /// Which sequence of the call.
        index: usize,
        /// Its tokens.
        tokens: usize,
        /// The limit.
        limit: usize,
    },
    /// The model gave something that is no number.
    #[error("model {model} gave {value} for response token {at} of sequence {index}; its weights may be damaged")]
    NotFinite {
        /// The model.
        model: TeacherId,
        /// Which sequence of the call.
        index: usize,
        /// Which response token.
        at: usize,
        /// What it gave.
        value: String,
    },
    /// The caller's deadline passed.
    #[error("not scored before the deadline; raise it, or give the service more threads")]
    Deadline,
    /// The server behind the model cannot be reached, or is busy.
    #[error("the server of model {model} gives no answer: {reason}")]
    Unreachable {
        /// The model.
        model: TeacherId,
        /// What happened.
        reason: String,
    },
    /// The server behind the model understood and refused, or says nothing that can be used.
    #[error("the server of model {model} says nothing usable of sequence {index}: {reason}")]
    Unusable {
        /// The model.
        model: TeacherId,
        /// Which sequence of the call.
        index: usize,
        /// What it said.
        reason: String,
    },
    /// The model's thread or a pass of it failed.
    #[error("model {model} could not score: {reason}; see the log of the service")]
    Broken {
        /// The model.
        model: TeacherId,
        /// What happened.
        reason: String,
    },
}

impl ScoreError {
    /// What the server of a model could not do.
    pub fn of_server(model: &TeacherId, error: ScoringError) -> Self {
        let model = model.clone();
        match error {
            ScoringError::MissingPictures(missing) => Self::MissingPictures(missing),
            ScoringError::Misfit(index, reason) => Self::Misfit { model, index, reason },
            ScoringError::Unusable(index, reason) => Self::Unusable { model, index, reason },
            ScoringError::Unreachable(reason) => Self::Unreachable { model, reason },
            ScoringError::Deadline => Self::Deadline,
            ScoringError::Broken(reason) => Self::Broken { model, reason },
        }
    }

    /// The `outcome` label of the counter.
    pub fn label(&self) -> &'static str {
        match self {
            Self::MissingPictures(_) => "missing_pictures",
            Self::Misfit { .. } => "misfit",
            Self::TooLong { .. } => "too_long",
            Self::NotFinite { .. } => "not_finite",
            Self::Deadline => "deadline",
            Self::Unreachable { .. } => "unreachable",
            Self::Unusable { .. } => "unusable",
            Self::Broken { .. } => "broken",
        }
    }
}
