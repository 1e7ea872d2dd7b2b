//! One call to a peer: its deadline, and why it brought nothing.
//!
//! In: a call of a generated client. Out: the reply, or a [`CallError`] in domain words. It does not retry: the caller knows
//! what that is worth.

use std::time::Duration;

use hypereyes_chassis::Retryable;
use hypereyes_domain::{Failure, PictureId};
use tokio::time::timeout;
use tonic::{Code, Status};

use crate::failure;

/// Header in which an actor's process shows a secret, the same with every call that it makes in its name: so it is told from others
/// who use the name, whatever connection it comes over.
pub const INCARNATION: &str = "hypereyes-incarnation";

/// Why a call brought nothing.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{op} failed ({failure}): {message}")]
pub struct CallError {
    /// What was called.
    pub op: &'static str,
    /// Whose fault it is.
    pub failure: Failure,
    /// What happened.
    pub message: String,
    /// Pictures that the peer lacks.
    pub missing: Vec<PictureId>,
    /// The peer understood and refused, or its answer is nonsense: calling again is of no use.
    pub refused: bool,
    /// The peer is of another release: nothing will come of it until both are the same.
    pub other_release: bool,
}

impl Retryable for CallError {
    fn is_retryable(&self) -> bool {
        !self.refused
    }
}

impl CallError {
    /// What a status says.
    pub fn of(op: &'static str, status: &Status) -> Self {
        let (failure, message, missing) = failure::from_status(status);
        // Everything else may pass: peers restart, overload and time out in many ways.
        let refused = matches!(
            status.code(),
            Code::InvalidArgument
                | Code::NotFound
                | Code::AlreadyExists
                | Code::PermissionDenied
                | Code::FailedPrecondition
                | Code::OutOfRange
                | Code::Unimplemented
                | Code::Unauthenticated
        );
        Self { op, failure, message, missing, refused, other_release: failure::is_other_release(status) }
    }

    /// No answer came in time.
    pub fn late(op: &'static str, after: Duration) -> Self {
        let message = format!("no answer within {after:?}");
        Self { op, failure: Failure::Timeout, message, missing: vec![], refused: false, other_release: false }
    }

    /// An answer came that means nothing.
    pub fn nonsense(op: &'static str, reason: impl ToString) -> Self {
        let message = reason.to_string();
        Self { op, failure: Failure::Infrastructure, message, missing: vec![], refused: true, other_release: false }
    }
}

/// Waits for a reply, no longer than `patience`.
///
/// # Errors
/// [`CallError`].
pub async fn within<T>(
    op: &'static str,
    patience: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, CallError> {
    let reply = timeout(patience, call).await.map_err(|_| CallError::late(op, patience))?;
    reply.map(tonic::Response::into_inner).map_err(|status| CallError::of(op, &status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_that_are_away_are_called_again_and_those_that_refuse_are_not() {
        for code in [Code::Unavailable, Code::Cancelled, Code::Internal, Code::Aborted, Code::DeadlineExceeded, Code::Unknown] {
            assert!(CallError::of("x", &Status::new(code, "")).is_retryable(), "{code:?}");
        }
        for code in [Code::InvalidArgument, Code::Unimplemented, Code::FailedPrecondition, Code::OutOfRange] {
            assert!(!CallError::of("x", &Status::new(code, "")).is_retryable(), "{code:?}");
        }
        assert!(CallError::of("x", &failure::to_status(Failure::Judge, "no verdict")).is_retryable());
    }
}
