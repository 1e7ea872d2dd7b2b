//! One file per command.

pub mod sft;
pub mod synth;
