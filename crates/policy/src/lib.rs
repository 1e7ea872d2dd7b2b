//! The policy: tokens and pictures in, tokens and log-probs out.
//!
//! In: a model folder in Hugging Face layout, token ids, picture patches. Out: hidden states, log-probs of given tokens,
//! sampled continuations. Burn lives here, in the learner and in the weight transport, and nowhere else.
//!
//! Not known here: text, tools, rewards, the network.

pub mod aligned;
pub mod backend;
pub mod batch;
pub mod checkpoint;
pub mod config;
pub mod device;
pub mod embed;
pub mod engine;
pub mod faults;
pub mod frozen;
pub mod init;
pub mod lanes;
pub mod metrics;
pub mod models;
pub mod ops;
pub mod probe;
pub mod score;
pub mod tape;

use std::path::Path;

/// What can go wrong with a model.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or a request that cannot be used; the text says what and where.
    #[error("{0}")]
    Input(String),
    /// Reading or writing failed.
    #[error("{path}: {source}")]
    Io {
        /// File or folder.
        path: String,
        /// Cause.
        source: std::io::Error,
    },
    /// A device, or a thread that holds a model, has failed; the process ends soon.
    #[error("{0}")]
    Device(String),
}

impl Error {
    fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.display().to_string(), source }
    }
}
