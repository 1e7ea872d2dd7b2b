//! Why weights did not arrive. In: what went wrong. Out: a text for people and a label for counters.

use hypereyes_domain::{Failure, PolicyVersion};

/// Why weights did not arrive; whatever was there before is untouched.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum WeightsError {
    /// The call failed.
    #[error("weights were not served ({failure}): {message}")]
    Call {
        /// Whose fault it is.
        failure: Failure,
        /// What the peer or the transport said.
        message: String,
    },
    /// The learner is of another release.
    #[error("weights were not served: {0}")]
    OtherRelease(String),
    /// The deadline passed.
    #[error("weights did not arrive in time: {received} bytes came before the deadline; raise it or look at the network")]
    Deadline {
        /// Payload bytes that had arrived.
        received: u64,
    },
    /// What arrived is not what was announced.
    #[error("weights of {version} are refused: {reason}; nothing was installed, fetch again")]
    Broken {
        /// The version.
        version: PolicyVersion,
        /// Counter label: `header`, `shape`, `chunk`, `short`, `digest`, `value`.
        label: &'static str,
        /// What does not fit.
        reason: String,
    },
}

impl WeightsError {
    /// Whether the tensors are those of another model than the reader's: no other version will fit better.
    pub fn is_misfit(&self) -> bool {
        matches!(self, Self::Broken { label: "shape", .. })
    }

    /// The `reason` label of counters.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Call { failure, .. } => failure.label(),
            Self::OtherRelease(_) => "release",
            Self::Deadline { .. } => "timeout",
            Self::Broken { label, .. } => label,
        }
    }
}
