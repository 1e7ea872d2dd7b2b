//! Reading and replacing small files of a model folder. In: a path. Out: its bytes, or an error that names it.

use std::fs;
use std::path::Path;

use crate::ChatError;

/// The largest `tokenizer.json` that is read; the published Qwen ones have 11 MB.
pub const TOKENIZER_LIMIT: u64 = 128 << 20;
/// The largest template or configuration file that is read.
pub const CONFIG_LIMIT: u64 = 4 << 20;

/// Reads a file of at most `limit` bytes.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, ChatError> {
    let fault = |reason: std::io::Error| ChatError::File { path: path.to_owned(), reason: reason.to_string() };
    hypereyes_outside::files::read(path, limit).map_err(|error| match error.kind() {
        std::io::ErrorKind::FileTooLarge => {
            ChatError::TooLarge { path: path.to_owned(), size: fs::metadata(path).map_or(limit + 1, |file| file.len()), limit }
        }
        _ => fault(error),
    })
}

/// Reads a small text file.
pub(crate) fn read_text(path: &Path) -> Result<String, ChatError> {
    String::from_utf8(read(path, CONFIG_LIMIT)?)
        .map_err(|_| ChatError::File { path: path.to_owned(), reason: "it is not UTF-8 text".into() })
}

/// Replaces a file in one step, so that a reader sees the old one or the new one.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), ChatError> {
    let fault = |reason: std::io::Error| ChatError::File { path: path.to_owned(), reason: reason.to_string() };
    hypereyes_outside::atomic::write(path, bytes).map_err(fault)
}
