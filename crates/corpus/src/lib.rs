//! A corpus of one's own: documents and pictures, made into an index once and searched from then on.
//!
//! In: files of documents, a folder of pictures, a vision tower. Out: a folder that is there whole or not at all ([`build`]), and one
//! [`hypereyes_environment::Search`] over it ([`Corpus`]). Texts are found by BM25, pictures by the tower's vectors of them, each
//! compared with all: nothing is found approximately. Not known here: services, caches, settings, the network.

mod build;
pub mod document;
mod folder;
pub mod metrics;
mod pictures;
mod readonly;
mod refused;
mod rows;
mod search;
mod shown;
mod sight;
mod texts;
pub mod vectors;
mod whiten;

use std::path::{Path, PathBuf};

pub use build::{Built, Inputs, Progress, build};
pub use document::Document;
pub use refused::{Line, Refused};
pub use search::Corpus;
pub use sight::Sight;

/// Why there is no index.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something that was given cannot be used; the text says what and where.
    #[error("{0}")]
    Input(String),
    /// Reading or writing failed.
    #[error("{}: {source}", .path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// An index is not what was built.
    #[error("{}: {why}; build it again with `hypereyes index build`", .folder.display())]
    Damaged {
        /// The index.
        folder: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Something failed that is nobody's input.
    #[error("{0}")]
    Failed(String),
}

impl Error {
    fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    fn damaged(folder: &Path, why: impl Into<String>) -> Self {
        Self::Damaged { folder: folder.to_owned(), why: why.into() }
    }
}

impl From<hypereyes_policy::Error> for Error {
    fn from(error: hypereyes_policy::Error) -> Self {
        match error {
            hypereyes_policy::Error::Input(why) => Self::Input(why),
            other => Self::Failed(other.to_string()),
        }
    }
}
