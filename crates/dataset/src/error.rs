//! Why a set cannot be read or written. Names the file, and the line where the file has lines.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why a data set cannot be read or written.
#[derive(Debug, Error)]
pub enum DataError {
    /// A file cannot be read or written.
    #[error("{path}: {reason}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A line of a file cannot be used.
    #[error("{path}, line {line}: {reason}")]
    Line {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
}

/// What the system says of a file.
pub(crate) fn file(path: &Path, error: &std::io::Error) -> DataError {
    DataError::File { path: path.to_owned(), reason: error.to_string() }
}
