//! Failures with a type, across gRPC.
//!
//! In: a [`Failure`] and what happened. Out: a `tonic::Status` whose details are an encoded `FailureDetail`; and back.
//! The status code is chosen so that clients that know nothing of hypereyes do something sensible. Details are the
//! message itself, not wrapped in `google.rpc.Status`, since both ends are ours.

use bytes::Bytes;
use hypereyes_domain::{Failure, PictureId};
use prost::Message as _;
use tonic::{Code, Status};

use crate::convert::ids;
use crate::limits::{MAX_DETAIL_BYTES, MAX_MISSING_LISTED};
use crate::v1;

/// A status that carries `failure`. `message` is cut to [`MAX_DETAIL_BYTES`].
pub fn to_status(failure: Failure, message: impl AsRef<str>) -> Status {
    build(code_of(failure), failure, message.as_ref(), &[])
}

/// A status that says which pictures the peer must put before it calls again; at most [`MAX_MISSING_LISTED`] are named.
pub fn missing_pictures(missing: &[PictureId]) -> Status {
    let message = format!("{} pictures are not here: put them and call again", missing.len());
    build(Code::FailedPrecondition, Failure::Infrastructure, &message, missing)
}

/// A status for a peer of another release, which no repetition helps.
pub fn other_release(message: impl AsRef<str>) -> Status {
    let message = cut(message.as_ref());
    let kind = v1::FailureKind::Infrastructure.into();
    let detail = v1::FailureDetail { kind, detail: message.to_owned(), missing_pictures: vec![], wire_version: crate::WIRE_VERSION };
    Status::with_details(Code::FailedPrecondition, message, Bytes::from(detail.encode_to_vec()))
}

/// Whether a status says that the two ends are of different releases.
pub fn is_other_release(status: &Status) -> bool {
    !status.details().is_empty() && v1::FailureDetail::decode(status.details()).is_ok_and(|detail| detail.wire_version != 0)
}

/// The failure in a status, what happened, and the pictures that the peer lacks.
///
/// A status without readable details is never the policy's fault: it is a timeout or a cancellation if its code says
/// so and the connection did not break, and infrastructure otherwise.
pub fn from_status(status: &Status) -> (Failure, String, Vec<PictureId>) {
    let untyped = || {
        let broken = std::error::Error::source(status).is_some();
        let failure = match status.code() {
            Code::DeadlineExceeded => Failure::Timeout,
            Code::Cancelled if !broken => Failure::Cancelled,
            _ => Failure::Infrastructure,
        };
        (failure, format!("{:?}: {}", status.code(), cut(status.message())), Vec::new())
    };
    if status.details().is_empty() {
        return untyped();
    }
    let Ok(detail) = v1::FailureDetail::decode(status.details()) else {
        return untyped();
    };
    let Ok(failure) = Failure::try_from(detail.kind()) else {
        return untyped();
    };
    let missing = detail.missing_pictures.into_iter().take(MAX_MISSING_LISTED);
    let missing = missing.filter_map(|id| ids::picture("missing_pictures", id).ok()).collect();
    (failure, cut(&detail.detail).to_owned(), missing)
}

fn build(code: Code, failure: Failure, message: &str, missing: &[PictureId]) -> Status {
    let message = cut(message);
    let detail = v1::FailureDetail {
        kind: v1::FailureKind::from(failure).into(),
        detail: message.to_owned(),
        missing_pictures: missing.iter().take(MAX_MISSING_LISTED).map(|id| id.as_str().to_owned()).collect(),
        wire_version: 0,
    };
    Status::with_details(code, message, Bytes::from(detail.encode_to_vec()))
}

fn code_of(failure: Failure) -> Code {
    match failure {
        Failure::Policy => Code::InvalidArgument,
        Failure::Tool | Failure::Infrastructure => Code::Unavailable,
        Failure::Judge => Code::Aborted,
        Failure::Timeout => Code::DeadlineExceeded,
        Failure::Cancelled => Code::Cancelled,
    }
}

/// Headers are small; a long text loses its tail at a character boundary.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_DETAIL_BYTES)]
}

impl From<Failure> for v1::FailureKind {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Policy => Self::Policy,
            Failure::Tool => Self::Tool,
            Failure::Infrastructure => Self::Infrastructure,
            Failure::Judge => Self::Judge,
            Failure::Timeout => Self::Timeout,
            Failure::Cancelled => Self::Cancelled,
        }
    }
}

impl TryFrom<v1::FailureKind> for Failure {
    type Error = crate::Invalid;

    fn try_from(kind: v1::FailureKind) -> Result<Self, Self::Error> {
        match kind {
            v1::FailureKind::Policy => Ok(Failure::Policy),
            v1::FailureKind::Tool => Ok(Failure::Tool),
            v1::FailureKind::Infrastructure => Ok(Failure::Infrastructure),
            v1::FailureKind::Judge => Ok(Failure::Judge),
            v1::FailureKind::Timeout => Ok(Failure::Timeout),
            v1::FailureKind::Cancelled => Ok(Failure::Cancelled),
            v1::FailureKind::Unspecified => Err(crate::Invalid::new("failure", "is not said, or is of a kind not known here")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Failure; 6] =
        [Failure::Policy, Failure::Tool, Failure::Infrastructure, Failure::Judge, Failure::Timeout, Failure::Cancelled];

    #[test]
    fn every_failure_survives_a_status() {
        for failure in ALL {
            let status = to_status(failure, "the disk is full");
            assert_eq!(from_status(&status), (failure, "the disk is full".to_owned(), vec![]));
        }
    }

    #[test]
    fn untyped_statuses_are_never_the_policys_fault() {
        for code in (1..=16).map(Code::from_i32) {
            let (failure, _, _) = from_status(&Status::new(code, "x"));
            assert_ne!(failure, Failure::Policy, "{code:?}");
        }
        assert_eq!(from_status(&Status::deadline_exceeded("")).0, Failure::Timeout);
        let garbage = Status::with_details(Code::Internal, "x", Bytes::from_static(&[0xff, 0xff, 0xff]));
        assert_eq!(from_status(&garbage).0, Failure::Infrastructure);
    }

    #[test]
    fn a_status_fits_into_headers_whatever_it_says() {
        let missing: Vec<PictureId> = (0..1000).map(|n| PictureId::new(format!("{n:064x}"))).collect();
        let (_, message, listed) = from_status(&missing_pictures(&missing));
        assert_eq!(listed, missing[..MAX_MISSING_LISTED]);
        assert!(message.contains("1000 pictures"));
        let (_, message, _) = from_status(&to_status(Failure::Tool, "é".repeat(5000)));
        assert_eq!(message, "é".repeat(MAX_DETAIL_BYTES / 2));
        assert!(missing_pictures(&missing).details().len() * 4 / 3 < 8 << 10);
    }
}
