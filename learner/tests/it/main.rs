//! The learner: intake, strangers, a long soak.

mod cases;
mod intake;
mod room;
mod soak;
mod support;
