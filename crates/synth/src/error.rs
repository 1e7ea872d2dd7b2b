//! What can go wrong while a data set is made.

use std::path::PathBuf;

use hypereyes_domain::GenerateError;
use thiserror::Error;

/// Why there is no data set.
#[derive(Debug, Error)]
pub enum SynthError {
    /// A key of the configuration cannot be used.
    #[error("synth.{key}: {reason}")]
    Config {
        /// Which key.
        key: &'static str,
        /// What is wrong with its value.
        reason: String,
    },
    /// The world has too little for the tasks that were asked for.
    #[error("the world does not suffice: {0}")]
    World(String),
    /// No draw of a task passed all filters.
    #[error("task {index} was given up after {attempts} draws ({reasons}); loosen the filters or widen the world")]
    GivenUp {
        /// The task's index.
        index: usize,
        /// Draws made.
        attempts: usize,
        /// How often each reason dropped one.
        reasons: String,
    },
    /// A task took longer than its deadline.
    #[error("task {index} took longer than {seconds} s; is the search backend answering?")]
    Late {
        /// The task's index.
        index: usize,
        /// The deadline.
        seconds: u64,
    },
    /// An explorer could not be rolled out.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// A file cannot be read or written.
    #[error("{path}: {reason}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// What was made cannot be kept.
    #[error("{0}")]
    Kept(String),
    /// Work was abandoned because the runtime is shutting down.
    #[error("making task {index} was interrupted: {reason}")]
    Interrupted {
        /// The task's index.
        index: usize,
        /// What happened.
        reason: String,
    },
}
