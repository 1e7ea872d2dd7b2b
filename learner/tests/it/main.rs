//! The learner: intake, strangers, a long soak.

mod cases;
mod harness;
mod intake;
mod soak;
mod support;
