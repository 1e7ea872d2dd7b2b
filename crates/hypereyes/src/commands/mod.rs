//! One file per command.

pub mod ask;
pub mod bench;
pub mod coldstart;
pub mod compare;
pub mod data;
pub mod doctor;
mod engine_args;
pub mod eval;
pub mod index;
pub mod prepare;
pub mod report;
pub mod search;
pub mod service;
pub mod sft;
pub mod status;
pub mod study;
pub mod synth;
pub mod teacher;
pub mod teacher_check;
pub mod up;
pub mod world;

pub use engine_args::EngineArgs;
