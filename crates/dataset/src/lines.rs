//! Files of a set that have a JSON value on each line. In: a file, and what a line is. Out: all of them, or the first line that is
//! none. Knows no task.

use std::io::Write;
use std::path::Path;

use hypereyes_outside::jsonl::Lines;
use serde::Serialize;

use crate::error::{DataError, file};

/// The most rows of one file.
pub const MAX_TASKS: usize = 1_000_000;
/// Longest line read, in bytes; a trajectory of 38,000 tokens has about 2 MB.
pub(crate) const MAX_LINE: usize = 16 << 20;
/// A larger file is no task set; its lines are streamed.
pub(crate) const MAX_FILE: u64 = 64 << 30;

/// Writes a line per row.
pub(crate) fn write_lines<T: Serialize>(out: &mut dyn Write, rows: &[T]) -> std::io::Result<()> {
    for row in rows {
        serde_json::to_writer(&mut *out, row)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// Reads them all.
pub(crate) fn read_lines<T>(path: &Path, parse: impl Fn(&[u8]) -> serde_json::Result<T>) -> Result<Vec<T>, DataError> {
    let input = hypereyes_outside::files::open(path, MAX_FILE).map_err(|error| file(path, &error))?;
    let mut rows = Vec::new();
    for row in Lines::new(input, MAX_LINE).rows(parse) {
        let row = row.map_err(|error| file(path, &error))?;
        let fault =
            |reason: String| DataError::Line { path: path.to_owned(), line: usize::try_from(row.number).unwrap_or(usize::MAX), reason };
        let value = row.value.map_err(fault)?;
        if rows.len() == MAX_TASKS {
            return Err(fault(format!("more than {MAX_TASKS} rows")));
        }
        rows.push(value);
    }
    Ok(rows)
}
