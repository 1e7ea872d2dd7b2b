//! Episodes: a policy and the search environment talk until an answer, and a trajectory is what remains.
//!
//! In: a task with its pictures, a [`hypereyes_domain::Generate`], a search backend. Out: one trajectory per seed, with
//! the tokens exactly as the policy sampled them, and the crops that the environment returned.
//!
//! It knows no model, no reward, no network and no file. Text exists here only on its way into the tool parser.

#[cfg(test)]
mod cases;
pub mod closed_book;
pub mod config;
pub mod group;
pub mod metrics;
pub mod recorder;
#[cfg(test)]
mod scripted;
pub mod turns;

pub use closed_book::closed_book;
pub use config::{RolloutConfig, Setup};
pub use group::{Rollouts, run_group};
