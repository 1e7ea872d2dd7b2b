//! Leases and receipts.
//!
//! In: the learner's answers to an actor. Out: their messages, and back; a lease that nobody can roll out never comes out.

use std::time::Duration;

use hypereyes_chassis::TraceContext;
use hypereyes_domain::{Lease, Leased, PolicyVersion, Receipt, Sampling, Task, WaitReason};

use super::{Invalid, ids, present};
use crate::limits::MAX_GROUP_SIZE;
use crate::v1;

/// In whole milliseconds, as durations travel.
fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl From<Lease> for v1::Lease {
    fn from(lease: Lease) -> Self {
        Self {
            group_id: lease.group.to_string(),
            task: Some(lease.task.into()),
            group_size: u32::try_from(lease.size).unwrap_or(u32::MAX),
            temperature: lease.sampling.temperature,
            top_p: lease.sampling.top_p,
            seed: lease.seed,
            deadline_ms: millis(lease.lasts),
            min_version: lease.min_version.0,
            incarnation: lease.incarnation,
            traceparent: lease.trace.unwrap_or_default(),
        }
    }
}

impl TryFrom<v1::Lease> for Lease {
    type Error = Invalid;

    fn try_from(lease: v1::Lease) -> Result<Self, Invalid> {
        let size = lease.group_size as usize;
        if size == 0 || size > MAX_GROUP_SIZE {
            return Err(Invalid::new("group_size", format!("is {size}; 1..={MAX_GROUP_SIZE} are rolled out")));
        }
        let sampling = Sampling::of(lease.temperature, lease.top_p);
        if !(0.0..=100.0).contains(&sampling.temperature) || !(0.0..=1.0).contains(&sampling.top_p) {
            return Err(Invalid::new("sampling", format!("is {sampling:?}; temperatures 0..=100 and top_p 0..=1 are known")));
        }
        Ok(Self {
            group: ids::group("group_id", lease.group_id)?,
            task: Task::try_from(present("task", lease.task)?)?,
            size,
            sampling,
            seed: lease.seed,
            lasts: Duration::from_millis(lease.deadline_ms),
            min_version: PolicyVersion(lease.min_version),
            incarnation: lease.incarnation,
            // A trace is no part of the work: one that means nothing is none.
            trace: Some(lease.traceparent).filter(|text| TraceContext::parse(text).is_some()),
        })
    }
}

impl From<WaitReason> for v1::WaitReason {
    fn from(reason: WaitReason) -> Self {
        match reason {
            WaitReason::Backpressure => Self::Backpressure,
            WaitReason::EpochEnd => Self::EpochEnd,
            WaitReason::Paused => Self::Paused,
            WaitReason::Unsaid => Self::Unspecified,
        }
    }
}

impl From<v1::WaitReason> for WaitReason {
    fn from(reason: v1::WaitReason) -> Self {
        match reason {
            v1::WaitReason::Backpressure => Self::Backpressure,
            v1::WaitReason::EpochEnd => Self::EpochEnd,
            v1::WaitReason::Paused => Self::Paused,
            v1::WaitReason::Unspecified => Self::Unsaid,
        }
    }
}

impl From<Leased> for v1::LeaseReply {
    fn from(leased: Leased) -> Self {
        use v1::lease_reply::Outcome;
        let outcome = match leased {
            Leased::Lease(lease) => Outcome::Lease((*lease).into()),
            Leased::Wait { after, reason } => {
                Outcome::Wait(v1::Wait { retry_after_ms: millis(after), reason: v1::WaitReason::from(reason).into() })
            }
            Leased::Finished => Outcome::Finished(v1::Finished {}),
        };
        Self { outcome: Some(outcome) }
    }
}

impl TryFrom<v1::LeaseReply> for Leased {
    type Error = Invalid;

    fn try_from(reply: v1::LeaseReply) -> Result<Self, Invalid> {
        use v1::lease_reply::Outcome;
        match present("outcome", reply.outcome)? {
            Outcome::Lease(lease) => {
                let id = lease.group_id.clone();
                let lease = Lease::try_from(lease).map_err(|invalid| invalid.within(format_args!("lease {id:?}")))?;
                Ok(Self::Lease(Box::new(lease)))
            }
            Outcome::Wait(wait) => Ok(Self::Wait { after: Duration::from_millis(wait.retry_after_ms), reason: wait.reason().into() }),
            Outcome::Finished(_) => Ok(Self::Finished),
        }
    }
}

impl From<Receipt> for v1::ReceiptOutcome {
    fn from(receipt: Receipt) -> Self {
        match receipt {
            Receipt::Accepted => Self::Accepted,
            Receipt::Duplicate => Self::Duplicate,
            Receipt::Stale => Self::Stale,
            Receipt::Expired => Self::Expired,
            Receipt::Invalid => Self::Invalid,
        }
    }
}

impl TryFrom<v1::ReceiptOutcome> for Receipt {
    type Error = Invalid;

    fn try_from(outcome: v1::ReceiptOutcome) -> Result<Self, Invalid> {
        match outcome {
            v1::ReceiptOutcome::Accepted => Ok(Self::Accepted),
            v1::ReceiptOutcome::Duplicate => Ok(Self::Duplicate),
            v1::ReceiptOutcome::Stale => Ok(Self::Stale),
            v1::ReceiptOutcome::Expired => Ok(Self::Expired),
            v1::ReceiptOutcome::Invalid => Ok(Self::Invalid),
            v1::ReceiptOutcome::Unspecified => Err(Invalid::new("outcome", "is not said")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::samples;

    fn lease() -> Lease {
        Lease {
            group: "t@1".into(),
            task: samples::task(),
            size: 2,
            sampling: Sampling::of(1.0, 1.0),
            seed: 7,
            lasts: Duration::from_millis(20_001),
            min_version: PolicyVersion(3),
            incarnation: 9,
            trace: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
        }
    }

    #[test]
    fn answers_to_a_request_for_work_survive_the_wire() {
        let reasons = [WaitReason::Backpressure, WaitReason::EpochEnd, WaitReason::Paused, WaitReason::Unsaid];
        let waits = reasons.map(|reason| Leased::Wait { after: Duration::from_millis(100), reason });
        for leased in waits.into_iter().chain([Leased::Lease(Box::new(lease())), Leased::Finished]) {
            assert_eq!(Leased::try_from(v1::LeaseReply::from(leased.clone())), Ok(leased));
        }
        assert_eq!(Leased::try_from(v1::LeaseReply { outcome: None }).expect_err("nothing is said").what, "outcome");
    }

    #[test]
    fn receipts_survive_the_wire() {
        for receipt in [Receipt::Accepted, Receipt::Duplicate, Receipt::Stale, Receipt::Expired, Receipt::Invalid] {
            assert_eq!(Receipt::try_from(v1::ReceiptOutcome::from(receipt)), Ok(receipt));
        }
        assert_eq!(Receipt::try_from(v1::ReceiptOutcome::Unspecified).expect_err("nothing is said").what, "outcome");
    }

    #[test]
    fn leases_that_cannot_be_rolled_out_are_named() {
        let good = v1::Lease::from(lease());
        let cases = [
            ("group_size", v1::Lease { group_size: 0, ..good.clone() }),
            ("group_size", v1::Lease { group_size: u32::MAX, ..good.clone() }),
            ("sampling", v1::Lease { temperature: f32::NAN, ..good.clone() }),
            ("sampling", v1::Lease { top_p: -0.5, ..good.clone() }),
            ("task", v1::Lease { task: None, ..good.clone() }),
            ("group_id", v1::Lease { group_id: String::new(), ..good }),
        ];
        for (what, lease) in cases {
            assert_eq!(Lease::try_from(lease).expect_err(what).what, what);
        }
    }
}
