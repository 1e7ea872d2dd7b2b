//! Rows of JSON: an object on each line, or one array of objects; packed by gzip or not. In: a file. Out: rows. A line or an item that is
//! no object is refused by itself; a file that breaks off is an error, but for the last line, which is refused like any other.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::read::MultiGzDecoder;
use hypereyes_outside::jsonl::Lines;
use serde::de::DeserializeSeed;

use crate::Cell;
use crate::bounded::{Bounded, TOO_LARGE};
use crate::table::{Fault, Limits, Row, Rows};

/// How a file is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    Plain,
    Gzip,
}

/// What some programs begin a text with.
const BYTE_ORDER_MARK: &[u8] = &[0xef, 0xbb, 0xbf];

type Input = BufReader<Box<dyn Read>>;

/// How much of a file was read.
struct Share {
    read: Arc<AtomicU64>,
    bytes: u64,
}

impl Share {
    fn now(&self) -> f64 {
        self.read.load(Ordering::Relaxed) as f64 / self.bytes.max(1) as f64
    }
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

pub(crate) fn open(file: File, limits: &Limits, packing: Packing) -> Result<Box<dyn Rows>, String> {
    let bytes = file.metadata().map_err(|error| error.to_string())?.len();
    let read = Arc::new(AtomicU64::new(0));
    let share = Share { read: read.clone(), bytes };
    let counted = Counted { inner: file, read };
    let input: Box<dyn Read> = match packing {
        Packing::Plain => Box::new(counted),
        Packing::Gzip => Box::new(MultiGzDecoder::new(counted)),
    };
    let mut input = BufReader::new(input);
    let ahead = input.fill_buf().map_err(|error| error.to_string())?;
    if ahead.starts_with(BYTE_ORDER_MARK) {
        input.consume(BYTE_ORDER_MARK.len());
    }
    let is_array = input.buffer().trim_ascii_start().starts_with(b"[");
    let limits = limits.clone();
    Ok(match is_array {
        true => Box::new(Items { input, limits, share, item: Vec::new(), number: 0, state: State::Before }),
        false => Box::new(Objects { lines: Lines::new(Box::new(input), limits.row), limits, share }),
    })
}

/// The row in some text.
fn cells(text: &[u8], limits: &Limits) -> Result<Cell, Fault> {
    let mut left = limits.row;
    let mut reader = serde_json::Deserializer::from_slice(text);
    let read = Bounded { left: &mut left, most: limits.cell }.deserialize(&mut reader).and_then(|cell| reader.end().map(|()| cell));
    read.map_err(|error| {
        let text = error.to_string();
        if text.starts_with(TOO_LARGE) { Fault::TooLarge(text) } else { Fault::Wrong(text) }
    })
}

fn too_long(what: &str, limits: &Limits) -> Fault {
    Fault::TooLarge(format!("the {what} has more than {} bytes", limits.row))
}

/// An object on each line.
struct Objects {
    lines: Lines<Box<dyn Read>>,
    limits: Limits,
    share: Share,
}

impl Rows for Objects {
    fn columns(&self) -> Option<&[String]> {
        None
    }

    fn declared(&self) -> Option<u64> {
        None
    }

    fn next_row(&mut self) -> Result<Option<Row>, String> {
        loop {
            let Some(line) = self.lines.next_line().map_err(|error| error.to_string())? else { return Ok(None) };
            let cells = match line.bytes {
                Some(bytes) if bytes.trim_ascii().is_empty() => continue,
                Some(bytes) => cells(bytes, &self.limits),
                None => Err(too_long("line", &self.limits)),
            };
            return Ok(Some(Row::of(line.number - 1, cells)));
        }
    }

    fn share(&self) -> f64 {
        self.share.now()
    }
}

/// Where the reading of an array stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Before,
    Within,
    Behind,
}

/// One array of objects.
struct Items {
    input: Input,
    limits: Limits,
    share: Share,
    /// The text of the item that is read.
    item: Vec<u8>,
    number: u64,
    state: State,
}

/// What ends an item.
enum End {
    Comma,
    Bracket,
}

impl Items {
    fn byte(&mut self) -> Result<Option<u8>, String> {
        let ahead = self.input.fill_buf().map_err(|error| error.to_string())?;
        let first = ahead.first().copied();
        if first.is_some() {
            self.input.consume(1);
        }
        Ok(first)
    }

    /// Reads the text of an item and what ends it; whether it was kept, or has too many bytes.
    fn item(&mut self) -> Result<(bool, End), String> {
        self.item.clear();
        let (mut depth, mut in_text, mut escaped, mut kept) = (0u64, false, false, true);
        loop {
            let Some(byte) = self.byte()? else { return Err(format!("breaks off within row {}", self.number)) };
            match byte {
                _ if escaped => escaped = false,
                b'\\' if in_text => escaped = true,
                b'"' => in_text = !in_text,
                _ if in_text => {}
                b'{' | b'[' => depth += 1,
                b',' if depth == 0 => return Ok((kept, End::Comma)),
                b']' if depth == 0 => return Ok((kept, End::Bracket)),
                b'}' | b']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            kept &= self.item.len() < self.limits.row;
            if kept {
                self.item.push(byte);
            }
        }
    }
}

impl Rows for Items {
    fn columns(&self) -> Option<&[String]> {
        None
    }

    fn declared(&self) -> Option<u64> {
        None
    }

    fn next_row(&mut self) -> Result<Option<Row>, String> {
        if self.state == State::Before {
            // Blanks, then the bracket that was seen.
            while self.byte()?.is_some_and(|byte| byte != b'[') {}
        }
        if self.state == State::Behind {
            return Ok(None);
        }
        let (kept, end) = self.item()?;
        let is_blank = kept && self.item.trim_ascii().is_empty();
        if matches!(end, End::Bracket) {
            while let Some(byte) = self.byte()? {
                if !byte.is_ascii_whitespace() {
                    return Err("has more behind its array".into());
                }
            }
            let is_empty = is_blank && self.state == State::Before;
            self.state = State::Behind;
            if is_empty {
                return Ok(None);
            }
        } else {
            self.state = State::Within;
        }
        let cells = if kept { cells(&self.item, &self.limits) } else { Err(too_long("row", &self.limits)) };
        let row = Row::of(self.number, cells);
        self.number += 1;
        Ok(Some(row))
    }

    fn share(&self) -> f64 {
        self.share.now()
    }
}
