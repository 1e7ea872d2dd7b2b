//! The model that judges, against a real HTTP server that is slow, busy, broken or talks nonsense.

mod asked;
mod misbehaving;
mod rig;
#[path = "../../../openai/tests/support/mod.rs"]
mod support;
mod votes;
