//! Rows of Arrow IPC, files and streams, as `datasets` and pyarrow write them. In: a file. Out: rows.
//!
//! A file is a stream with a mark before and a directory behind it, so that both are read from front to back: a message, its body, the next
//! one. What is written at once is held at once. Lengths are compared with what is left of the file before memory is set aside for them.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufReader, Read};

use arrow_array::{Array, RecordBatch, StructArray};
use arrow_buffer::{Buffer, MutableBuffer};
use arrow_ipc::reader::StreamDecoder;
use arrow_ipc::root_as_message;

use crate::convert;
use crate::table::{Limits, Row, Rows, caught};

/// What a file begins with; a stream begins with a message.
pub(crate) const MAGIC: &[u8] = b"ARROW1";
/// What a message begins with.
pub(crate) const CONTINUATION: [u8; 4] = [0xff; 4];
/// What a file has before its first message: the mark and two zeros.
const BEFORE: u64 = 8;

pub(crate) struct Arrow {
    input: BufReader<File>,
    bytes: u64,
    left: u64,
    decoder: StreamDecoder,
    columns: Vec<String>,
    limits: Limits,
    /// What was decoded and not begun.
    batches: VecDeque<RecordBatch>,
    batch: StructArray,
    next: usize,
    done: u64,
    ended: bool,
}

pub(crate) fn open(file: File, limits: &Limits) -> Result<Arrow, String> {
    let opened = caught(|| {
        let bytes = file.metadata().map_err(|error| error.to_string())?.len();
        let mut input = BufReader::new(file);
        let mut left = bytes;
        let mut head = [0; BEFORE as usize];
        input.read_exact(&mut head).map_err(|error| error.to_string())?;
        if head.starts_with(MAGIC) {
            left -= BEFORE;
        } else {
            input.seek_relative(-(BEFORE as i64)).map_err(|error| error.to_string())?;
        }
        let empty = RecordBatch::new_empty(arrow_schema::Schema::empty().into()).into();
        let decoder = StreamDecoder::new();
        let limits = limits.clone();
        let batches = VecDeque::new();
        let mut arrow =
            Arrow { input, bytes, left, decoder, columns: vec![], limits, batches, batch: empty, next: 0, done: 0, ended: false };
        // The columns come first, and are known once something follows them.
        while arrow.decoder.schema().is_none() && !arrow.ended {
            arrow.message()?;
        }
        let schema = arrow.decoder.schema().ok_or("it begins with something else than its columns")?;
        arrow.columns = schema.fields().iter().map(|field| field.name().clone()).collect();
        Ok(arrow)
    });
    opened.map_err(|why| format!("cannot be read as Arrow: {why}"))
}

impl Arrow {
    /// Takes in a message, or that there is no more.
    fn message(&mut self) -> Result<(), String> {
        let mut head = [0; 8];
        self.exact(&mut head)?;
        if head[..4] != CONTINUATION {
            return Err("a part of it begins with what begins none".into());
        }
        let size = u64::from(u32::from_le_bytes([head[4], head[5], head[6], head[7]]));
        if size == 0 {
            self.ended = true;
            return self.decode(Buffer::from(&head[..]));
        }
        self.fits(size, "a part's description")?;
        let mut message = vec![0; size as usize];
        self.exact(&mut message)?;
        let body = root_as_message(&message).map_err(|error| format!("a part's description is damaged: {error}"))?.bodyLength();
        let body = u64::try_from(body).map_err(|_| format!("a part claims {body} bytes"))?;
        self.fits(body, "a part")?;
        let mut whole = MutableBuffer::from_len_zeroed(head.len() + message.len() + body as usize);
        whole.as_slice_mut()[..head.len()].copy_from_slice(&head);
        whole.as_slice_mut()[head.len()..][..message.len()].copy_from_slice(&message);
        self.exact(&mut whole.as_slice_mut()[head.len() + message.len()..])?;
        self.decode(whole.into())
    }

    /// Makes rows of bytes. What has a body of no bytes is only looked at when something follows.
    fn decode(&mut self, mut bytes: Buffer) -> Result<(), String> {
        while !bytes.is_empty() {
            self.batches.extend(self.decoder.decode(&mut bytes).map_err(|error| error.to_string())?);
        }
        Ok(())
    }

    fn exact(&mut self, into: &mut [u8]) -> Result<(), String> {
        self.input.read_exact(into).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => "it breaks off".to_owned(),
            _ => error.to_string(),
        })?;
        // A file that grew meanwhile has more.
        self.left = self.left.saturating_sub(into.len() as u64);
        Ok(())
    }

    fn fits(&self, size: u64, what: &str) -> Result<(), String> {
        if size > self.left {
            return Err(format!("{what} claims {size} bytes where {} are left", self.left));
        }
        if size > self.limits.batch as u64 {
            return Err(format!("{what} has {size} bytes, at most {} are read at once: write it in smaller batches", self.limits.batch));
        }
        Ok(())
    }
}

impl Rows for Arrow {
    fn columns(&self) -> Option<&[String]> {
        Some(&self.columns)
    }

    fn declared(&self) -> Option<u64> {
        None
    }

    fn next_row(&mut self) -> Result<Option<Row>, String> {
        while self.next == self.batch.len() {
            if let Some(batch) = self.batches.pop_front() {
                (self.batch, self.next) = (batch.into(), 0);
            } else if self.ended {
                return Ok(None);
            } else {
                let done = self.done;
                caught(|| self.message()).map_err(|why| format!("is damaged behind row {done}: {why}"))?;
            }
        }
        let cells = convert::row(&self.batch, self.next, &self.limits);
        let row = Row::of(self.done, cells);
        self.next += 1;
        self.done += 1;
        Ok(Some(row))
    }

    fn share(&self) -> f64 {
        1.0 - self.left as f64 / self.bytes.max(1) as f64
    }
}
