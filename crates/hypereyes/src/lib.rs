//! The command line: every command of `hypereyes`.
//!
//! In: a command line, settings. Out: results for people or as JSON, and an exit code. It is the only crate that knows every
//! service; it starts them and asks them, and does none of their work.

pub mod again;
pub mod attempts;
pub mod billed;
pub mod check;
pub mod cli;
pub mod commands;
pub mod config;
pub mod curve;
pub mod endpoint;
pub mod evaluation;
pub mod held_out;
pub mod job;
pub mod kept;
pub mod metrics;
pub mod parts;
pub mod ports;
pub mod progress;
pub mod protocol;
pub mod resume;
pub mod services;
pub mod shared_search;
pub mod study;
pub mod task_sets;
pub mod troubles;

pub use hypereyes_chassis::output;
