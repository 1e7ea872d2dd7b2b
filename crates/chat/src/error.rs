//! What can be wrong with a model folder's text side. All of it is found while loading, none while a rollout runs.

use std::path::PathBuf;

use hypereyes_pictures::ProcessorError;
use thiserror::Error;

/// Why a chat could not be loaded or a tiny tokenizer not be written.
#[derive(Debug, Error)]
pub enum ChatError {
    /// A file cannot be read or written.
    #[error("{path}: {reason}; is this a model folder in Hugging Face layout?")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// A file is larger than any sound one.
    #[error("{path} has {size} bytes; at most {limit} are read")]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// `tokenizer.json` cannot be used.
    #[error("{path}: {reason}")]
    Tokenizer {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A control token is not in the vocabulary.
    #[error("the tokenizer has no token {name}; hypereyes needs the Qwen chat layout")]
    MissingToken {
        /// The token's text.
        name: &'static str,
    },
    /// Two files of a model folder mean different tokens.
    #[error("{}: {reason}", .folder.display())]
    Disagree {
        /// Which folder.
        folder: PathBuf,
        /// What differs: the files and the two values.
        reason: String,
    },
    /// The chat template cannot be used.
    #[error("chat template: {reason}")]
    Template {
        /// What is wrong with it.
        reason: String,
    },
    /// The picture processor's configuration cannot be used.
    #[error("picture processor: {0}")]
    Processor(#[from] ProcessorError),
    /// The words for a tiny tokenizer cannot be used.
    #[error("tiny tokenizer: {reason}")]
    Words {
        /// What is wrong with them.
        reason: String,
    },
}
