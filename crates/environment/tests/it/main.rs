//! The integration tests of this crate, as one binary.

mod env_steps;
mod mutated_turns;
