//! The learner: taught groups in, policy versions out.
//!
//! In: demonstrations (cold start) or groups that actors submit (reinforcement learning). Out: weights, versions, metrics,
//! a ledger of every group's fate, checkpoints. One room with two modes: [`sft`] and [`rl`].
//!
//! It does not know how rollouts are made, what a tool is, or how answers are judged.

pub mod checkpoint;
pub mod intake;
pub mod ledger;
pub mod metrics;
pub mod optim;
pub mod rl;
pub mod service;
pub mod sft;
pub mod step;
pub mod tasks;
pub mod trainer;
