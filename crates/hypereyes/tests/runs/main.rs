//! Whole runs of many processes. A binary of its own, beside which no other test runs: each of these takes the whole machine, and they
//! take it one after another.

use std::sync::{Mutex, MutexGuard, PoisonError};

#[path = "../../../chassis/tests/authority/mod.rs"]
mod authority;
mod cores;
#[path = "../support/mod.rs"]
mod support;

mod engines_outside;
mod evaluated;
mod evaluating;
mod kubernetes;
mod learner_dies;
mod searching;
mod studies;
mod teacher_swaps;

/// The machine, for the one test that holds it.
struct Machine {
    _alone: MutexGuard<'static, ()>,
}

impl Machine {
    /// Waits for the test that holds it.
    fn alone() -> Self {
        static MACHINE: Mutex<()> = Mutex::new(());
        Self { _alone: MACHINE.lock().unwrap_or_else(PoisonError::into_inner) }
    }
}
