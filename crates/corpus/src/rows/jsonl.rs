//! Documents as JSON lines, packed by gzip or not. In: a file. Out: rows. A line that is no object of ours is refused by itself.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::read::MultiGzDecoder;
use hypereyes_outside::files;
use hypereyes_outside::jsonl::Lines;
use serde::Deserialize;

use super::{Row, Rows};
use crate::document::{Fields, MOST_TEXT};
use crate::refused::Refusal;

/// Bytes of a line, at most: the longest text as JSON may write it (`\u0000` for a byte), and all else.
const MOST_LINE: usize = 8 * MOST_TEXT;

/// A row as JSON has it. Ids may be numbers.
#[derive(Deserialize)]
struct Object {
    id: Option<Id>,
    title: Option<String>,
    text: Option<String>,
    contents: Option<String>,
    url: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Id {
    Text(String),
    Number(serde_json::Number),
}

struct Json {
    lines: Lines<Box<dyn Read>>,
    read: Arc<AtomicU64>,
    bytes: u64,
}

/// Counts what is read.
struct Counted {
    inner: File,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(into)?;
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

pub(super) fn open(path: &Path, packed: bool) -> Result<Box<dyn Rows>, String> {
    let file = files::open(path, u64::MAX).map_err(|error| error.to_string())?;
    let bytes = file.metadata().map_err(|error| error.to_string())?.len();
    let read = Arc::new(AtomicU64::new(0));
    let counted = Counted { inner: file, read: read.clone() };
    let input: Box<dyn Read> = if packed { Box::new(MultiGzDecoder::new(counted)) } else { Box::new(counted) };
    Ok(Box::new(Json { lines: Lines::new(input, MOST_LINE), read, bytes }))
}

impl Rows for Json {
    fn next_row(&mut self) -> Result<Option<Row>, String> {
        loop {
            let Some(line) = self.lines.next_line().map_err(|error| error.to_string())? else { return Ok(None) };
            let document = match line.bytes {
                Some(bytes) if bytes.trim_ascii().is_empty() => continue,
                Some(bytes) => document(bytes),
                None => Err(Refusal::new("too_long", format!("the line has more than {MOST_LINE} bytes"))),
            };
            return Ok(Some(Row { number: Some(line.number), document }));
        }
    }

    fn share(&self) -> f64 {
        self.read.load(Ordering::Relaxed) as f64 / self.bytes.max(1) as f64
    }
}

fn document(line: &[u8]) -> Result<crate::Document, Refusal> {
    let Object { id, title, text, contents, url } =
        serde_json::from_slice(line).map_err(|error| Refusal::new("no_row", error.to_string()))?;
    let id = id.map(|id| match id {
        Id::Text(text) => text,
        Id::Number(number) => number.to_string(),
    });
    Fields { id, title, text, contents, url }.document()
}
