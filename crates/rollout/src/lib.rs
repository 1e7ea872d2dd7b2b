//! Episodes: a policy and the search environment talk until an answer, and a trajectory is what remains.
//!
//! In: a task with its pictures, a [`hypereyes_domain::Generate`], a search backend. Out: one trajectory per seed, with
//! the tokens exactly as the policy sampled them, and the crops that the environment returned.
//!
//! [`completions`] plays the same episodes with a chat endpoint instead: text in, text out, for measuring and never for training.
//!
//! It knows no model, no reward and no file. Behind the token port text exists only on its way into the tool parser.

#[cfg(test)]
mod cases;
pub mod closed_book;
pub mod completions;
pub mod config;
pub mod group;
#[cfg(test)]
mod hostile;
pub mod metrics;
pub mod player;
pub mod recorder;
#[cfg(test)]
mod scripted;
mod tokens;
mod turns;

pub use closed_book::closed_book;
pub use completions::ChatPlayer;
pub use config::{RolloutConfig, Setup};
pub use group::{Rollouts, run_group};
pub use player::{Player, TokenPlayer};
