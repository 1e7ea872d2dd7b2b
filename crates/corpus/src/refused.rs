//! What was not taken into an index, and why. In: refusals as they come. Out: a file with all of them, counts by reason, the first few.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use serde::Serialize;

use crate::Error;

/// The file in an index that lists them, a JSON object on each line.
pub(crate) const FILE: &str = "refused.jsonl";
/// How many of them are told besides.
const TOLD: usize = 10;
/// Characters of a sentence, at most: what is wrong with a row may quote all of it.
const MOST_MESSAGE: usize = 300;

/// Why a row or a picture is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// One word, by which they are counted.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}

impl Refusal {
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// One that was refused.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The file.
    pub file: String,
    /// Its row there, counted from 1; none where the file is one document or one picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row: Option<u64>,
    /// One word: `no_row`, `no_text`, `too_long`, `unreadable`, `bytes`, `size`, `format`, `broken`, `unknown_file`.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}

/// All that were refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// How many, by reason.
    pub counts: BTreeMap<&'static str, u64>,
    /// The first few.
    pub first: Vec<Line>,
}

impl Refused {
    /// How many.
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }
}

/// Writes them down as they come.
pub(crate) struct List {
    out: BufWriter<File>,
    refused: Refused,
}

impl List {
    pub fn create(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(FILE);
        let file = File::create(&path).map_err(|error| Error::io(&path, error))?;
        Ok(Self { out: BufWriter::new(file), refused: Refused::default() })
    }

    pub fn add(&mut self, file: &Path, row: Option<u64>, refusal: Refusal) -> Result<(), Error> {
        let Refusal { reason, mut message } = refusal;
        if let Some((end, _)) = message.char_indices().nth(MOST_MESSAGE) {
            message.truncate(end);
            message.push('\u{2026}');
        }
        let line = Line { file: file.display().to_string(), row, reason, message };
        let text = serde_json::to_string(&line).expect("plain values");
        writeln!(self.out, "{text}").map_err(|error| Error::io(Path::new(FILE), error))?;
        *self.refused.counts.entry(reason).or_default() += 1;
        if self.refused.first.len() < TOLD {
            self.refused.first.push(line);
        }
        Ok(())
    }

    pub fn total(&self) -> u64 {
        self.refused.total()
    }

    pub fn finish(mut self) -> Result<Refused, Error> {
        self.out.flush().map_err(|error| Error::io(Path::new(FILE), error))?;
        Ok(self.refused)
    }
}
