//! Engines: whoever samples from a policy, and whoever gives log-probs of given tokens.
//!
//! In: the `engine` settings and a policy. Out: an [`Engine`], which is one whatever its kind: it implements the port
//! ([`Generate`](hypereyes_domain::Generate)) and takes new weights ([`SetWeights`](hypereyes_domain::SetWeights)). A kind is a file
//! in `kinds` and its two lines beside it; `remote` has those at servers. [`scoring`] asks such servers for log-probs of given tokens;
//! [`http`] makes clients that go where they may.
//!
//! [`open_folder`] opens the engine of a policy that lies in a folder, as actors and evaluators do.
//!
//! This crate knows no task and no reward, nothing of who uses an engine, and of text only where a turn ends.

pub mod command;
pub mod config;
mod engine;
mod folder;
pub mod http;
mod kinds;
pub mod metrics;
mod remote;
pub mod scoring;

pub use config::EngineConfig;
pub use engine::{Engine, EngineSequence};
pub use folder::{OpenError, Opened, open_folder};
pub use kinds::{Policy, open};
pub use remote::kept;
