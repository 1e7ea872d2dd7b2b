//! Work that is asked for, granted and acknowledged: what an actor and the learner must agree on.
//!
//! In: nothing. Out: [`Leased`], the learner's answer to an actor that asks for work, and [`Receipt`], its answer to a group that
//! comes back. Whose lease is whose, and for how long, is the learner's to know.

use std::time::Duration;

use crate::{GroupId, PolicyVersion, Sampling, Task};

/// The right and the duty to roll out one task.
#[derive(Clone, Debug, PartialEq)]
pub struct Lease {
    /// Its name; the finished group carries it.
    pub group: GroupId,
    /// The task.
    pub task: Task,
    /// Rollouts to make.
    pub size: usize,
    /// How to sample.
    pub sampling: Sampling,
    /// Seed of the group; every rollout derives its own from it.
    pub seed: u64,
    /// How long it lasts from its grant on, unless a heartbeat renews it.
    pub lasts: Duration,
    /// Oldest version that may sample a token of it.
    pub min_version: PolicyVersion,
    /// The learner's incarnation that the version belongs to.
    pub incarnation: u32,
    /// Where the group's trace begins, as a W3C `traceparent`; `None` where nobody keeps one.
    pub trace: Option<String>,
}

/// The learner's answer to a request for work.
#[derive(Clone, Debug, PartialEq)]
pub enum Leased {
    /// Work.
    Lease(Box<Lease>),
    /// None now.
    Wait {
        /// When to ask again.
        after: Duration,
        /// Why.
        reason: WaitReason,
    },
    /// None ever again.
    Finished,
}

/// Why there is no work now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitReason {
    /// Enough groups are outstanding for the staleness bound.
    Backpressure,
    /// The epoch's last groups are still out; the next epoch starts after them.
    EpochEnd,
    /// Somebody paused the run.
    Paused,
    /// The learner did not say.
    Unsaid,
}

impl WaitReason {
    /// The counter's label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Backpressure => "backpressure",
            Self::EpochEnd => "epoch_end",
            Self::Paused => "paused",
            Self::Unsaid => "unsaid",
        }
    }
}

/// What became of a group that was handed in; after it the actor owes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// It will be trained on.
    Accepted,
    /// It was handed in before; nothing changed.
    Duplicate,
    /// Its oldest token is older than the staleness bound allows, or a policy sampled it that the learner does not have.
    Stale,
    /// It is not leased (any more) to this actor.
    Expired,
    /// Its parts do not fit together.
    Invalid,
}

impl Receipt {
    /// The counter's label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
            Self::Stale => "stale",
            Self::Expired => "expired",
            Self::Invalid => "invalid",
        }
    }

    /// Why, for people; empty where the group was accepted.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Accepted => "",
            Self::Duplicate => "it was handed in before",
            Self::Stale => "its oldest token lags too far behind",
            Self::Expired => "its lease is not yours (any more)",
            Self::Invalid => "its parts do not fit together",
        }
    }
}
