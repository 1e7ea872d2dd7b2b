//! Files with one JSON value on each line, read line by line.
//!
//! In: a file or bytes, and the most bytes that a line may have. Out: the lines, or the values in them, with their numbers. A line that
//! is longer is passed over without being kept, and said to be so; the lines behind it are read as usual.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::files;

/// Lines of one input.
#[derive(Debug)]
pub struct Lines<R> {
    input: BufReader<R>,
    limit: usize,
    line: Vec<u8>,
    number: u64,
    /// Bytes that were read or passed over.
    at: u64,
}

/// One line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Counted from 1.
    pub number: u64,
    /// Bytes of the input before it.
    pub at: u64,
    /// Its bytes without the end of the line; `None` when there are more than the limit.
    pub bytes: Option<&'a [u8]>,
    /// False for the last line where nothing ends it, as after a write that was cut short.
    pub whole: bool,
}

/// One value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row<T> {
    /// Its line, counted from 1.
    pub number: u64,
    /// The value, or why the line is none.
    pub value: Result<T, String>,
}

impl Lines<File> {
    /// Lines of a regular file, which may have any size.
    ///
    /// # Errors
    /// As [`files::open`].
    pub fn open(path: &Path, limit: usize) -> io::Result<Self> {
        Ok(Self::new(files::open(path, u64::MAX)?, limit))
    }
}

impl<R: Read> Lines<R> {
    /// Lines of at most `limit` bytes.
    pub fn new(input: R, limit: usize) -> Self {
        Self { input: BufReader::new(input), limit, line: Vec::new(), number: 0, at: 0 }
    }

    /// The next line; `None` at the end.
    ///
    /// # Errors
    /// Those of the input.
    pub fn next_line(&mut self) -> io::Result<Option<Line<'_>>> {
        self.line.clear();
        // One more for the end of the line.
        let most = self.limit as u64 + 1;
        let read = self.input.by_ref().take(most).read_until(b'\n', &mut self.line)?;
        if read == 0 {
            return Ok(None);
        }
        let at = self.at;
        self.at += read as u64;
        self.number += 1;
        let mut whole = self.line.last() == Some(&b'\n');
        if whole {
            self.line.pop();
        }
        let short = self.line.len() <= self.limit;
        if !short {
            whole = self.skip()?;
        }
        Ok(Some(Line { number: self.number, at, bytes: short.then_some(&self.line), whole }))
    }

    /// Passes over the rest of a line; whether it was ended.
    fn skip(&mut self) -> io::Result<bool> {
        loop {
            let ahead = self.input.fill_buf()?;
            if ahead.is_empty() {
                return Ok(false);
            }
            let end = ahead.iter().position(|byte| *byte == b'\n');
            let passed = end.map_or(ahead.len(), |end| end + 1);
            self.input.consume(passed);
            self.at += passed as u64;
            if end.is_some() {
                return Ok(true);
            }
        }
    }

    /// The values of all lines that are not blank, each made by `parse`.
    pub fn rows<T, E: ToString>(mut self, parse: impl Fn(&[u8]) -> Result<T, E>) -> impl Iterator<Item = io::Result<Row<T>>> {
        let limit = self.limit;
        std::iter::from_fn(move || {
            loop {
                let line = match self.next_line() {
                    Ok(line) => line?,
                    Err(error) => return Some(Err(error)),
                };
                let value = match line.bytes {
                    Some(bytes) if bytes.trim_ascii().is_empty() => continue,
                    Some(bytes) => parse(bytes).map_err(|error| error.to_string()),
                    None => Err(format!("longer than {limit} bytes")),
                };
                return Some(Ok(Row { number: line.number, value }));
            }
        })
    }

    /// The values of all lines that are not blank, as their type says.
    pub fn values<T: DeserializeOwned>(self) -> impl Iterator<Item = io::Result<Row<T>>> {
        self.rows(|line| serde_json::from_slice(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str, limit: usize) -> Vec<(u64, Option<String>, bool)> {
        let mut lines = Lines::new(text.as_bytes(), limit);
        let mut all = Vec::new();
        while let Some(line) = lines.next_line().expect("memory") {
            let text = line.bytes.map(|bytes| String::from_utf8(bytes.to_vec()).expect("text"));
            all.push((line.number, text, line.whole));
        }
        all
    }

    #[test]
    fn lines_are_numbered_and_bounded() {
        let all = lines("ab\n\nabcd\nabcde\nx", 4);
        let want = [(1, Some("ab"), true), (2, Some(""), true), (3, Some("abcd"), true), (4, None, true), (5, Some("x"), false)];
        assert_eq!(all, want.map(|(number, text, whole)| (number, text.map(str::to_owned), whole)));
        assert_eq!(lines(&"y".repeat(100_000), 4), [(1, None, false)]);
        assert_eq!(lines(&format!("{}\n1", "y".repeat(100_000)), 4)[1], (2, Some("1".to_owned()), false));
        assert!(lines("", 4).is_empty());
    }

    #[test]
    fn lines_know_where_they_begin() {
        let text = format!("ab\n\n{}\nxy", "y".repeat(100_000));
        let mut lines = Lines::new(text.as_bytes(), 4);
        let mut all = Vec::new();
        while let Some(line) = lines.next_line().expect("memory") {
            all.push(line.at);
        }
        assert_eq!(all, [0, 3, 4, 100_005]);
    }

    #[test]
    fn values_come_with_the_number_of_their_line_or_what_is_wrong_with_it() {
        let rows: Vec<Row<u32>> = Lines::new("1\n\n \nx\n1234567\n5".as_bytes(), 5).values().collect::<io::Result<_>>().expect("memory");
        let numbers: Vec<u64> = rows.iter().map(|row| row.number).collect();
        assert_eq!(numbers, [1, 4, 5, 6]);
        assert_eq!((&rows[0].value, &rows[3].value), (&Ok(1), &Ok(5)));
        assert_eq!(rows[2].value, Err("longer than 5 bytes".to_owned()));
        assert!(rows[1].value.as_ref().is_err_and(|error| error.contains("expected value")));
    }
}
