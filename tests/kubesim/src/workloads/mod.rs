//! Controllers: from what is wanted and what is there to what is to be done next.
//!
//! Pure functions, called again whenever something has changed; none remembers a plan.

pub mod deployment;
pub mod job;
pub mod scaler;
pub mod stateful;

use crate::plan::Blueprint;

/// One thing to do.
#[derive(Debug)]
pub enum Action {
    /// Make a pod.
    Create(Blueprint),
    /// End the pod with this uid, gracefully.
    Delete(String, &'static str),
}
