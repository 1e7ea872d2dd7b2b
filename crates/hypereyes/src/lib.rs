//! The front door: every command of `hypereyes`.

pub mod cli;
pub mod commands;
pub mod config;
pub mod output;
pub mod parts;
pub mod progress;
