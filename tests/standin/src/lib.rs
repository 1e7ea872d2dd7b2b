//! A stand-in for an inference server: our own engine behind the HTTP dialect of vLLM or of SGLang.
//!
//! In: a model folder, a dialect, and how often it shall lie. Out: a server that answers as the real one does (sampled ids with the end
//! token, log-probs in the real one's convention, expanded prompt ids, weight versions), or lies in ways that real ones have been seen
//! to: each lie has a name and a rate, and what was asked and answered is written down, so that a test can check that no lie was
//! trained on. The same seed gives the same tokens as the engine in the process that asks.
//!
//! It knows the dialects' routes that rollouts, scoring and weight updates take, and no others; it knows no task and no trainer.

pub mod asked;
pub mod audit;
mod chat;
pub mod expand;
pub mod lies;
pub mod options;
mod replies;
mod routes;
mod scores;
mod served;
pub mod server;
mod sglang;
mod told;
mod turn;
mod vllm;

pub use audit::{Audit, Entry};
pub use lies::{Lie, Lies};
pub use options::{Dialect, LogprobsMode, Options};
pub use server::Standin;
