//! Rows of files of documents, one after the other: a file of any size takes the memory of one row, of parquet of some rows and one
//! page a column, as large as the file has them.
//!
//! In: a path; its ending says what it is. Out: rows, each a document or why it is none. A file that breaks off is an error: what comes
//! behind it would be left out silently.

mod table;
mod text;

use std::path::Path;

use crate::document::Document;
use crate::refused::Refusal;

/// Rows of a file.
pub(crate) trait Rows {
    /// The next one.
    ///
    /// # Errors
    /// A sentence about the file, which cannot be read on.
    fn next_row(&mut self) -> Result<Option<Row>, String>;

    /// Which part of the file was read, about: 0..=1.
    fn share(&self) -> f64;
}

/// One row.
pub(crate) struct Row {
    /// Counted from 1; none where the file is one document.
    pub number: Option<u64>,
    /// What it is, or why it is nothing.
    pub document: Result<Document, Refusal>,
}

/// What endings mean.
const KINDS: &str = "documents are in .parquet, .jsonl (or .jsonl.gz), .txt and .md files";

/// Opens a file of documents.
///
/// # Errors
/// A sentence without the path.
pub(crate) fn open(path: &Path) -> Result<Box<dyn Rows>, String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    if ends(&[".parquet", ".pq", ".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz"]) {
        table::open(path)
    } else if ends(&[".txt", ".md"]) {
        text::open(path)
    } else {
        Err(format!("is of no kind that is read: {KINDS}"))
    }
}
