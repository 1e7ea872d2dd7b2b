//! The learner: intake, ranks, strangers, a long soak.

mod cases;
mod intake;
mod ranks;
mod room;
mod soak;
mod support;
