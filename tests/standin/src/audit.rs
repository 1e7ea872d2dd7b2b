//! What was asked and what was answered, honestly or not. In: entries. Out: the same, in memory and as JSON lines in a file: what
//! trained tokens are held against.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use parking_lot::Mutex;
use serde::Serialize;

use crate::Lie;
use crate::asked::{Asked, End, Turn};

/// One request.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Entry {
    /// In the order of being answered.
    pub number: u64,
    /// Where it was sent.
    pub route: &'static str,
    /// What the caller calls it, or what it asked for.
    pub id: String,
    /// What was wrong with the answer.
    pub lie: Option<Lie>,
    /// Seed of a turn.
    pub seed: Option<u64>,
    /// BLAKE3 of the prompt as the model read it ([`prompt_digest`]).
    pub prompt: String,
    /// What was sampled, whatever was told.
    pub tokens: Vec<u32>,
    /// The true log-probs.
    pub logprobs: Vec<f32>,
    /// What the weights were called: label, first token, token after the last.
    pub labels: Vec<(String, usize, usize)>,
    /// Why the turn stopped.
    pub end: &'static str,
}

impl Entry {
    /// Of a request that asks for something other than tokens.
    pub(crate) fn of_order(route: &'static str, what: impl Into<String>, lie: Option<Lie>) -> Self {
        Self { route, id: what.into(), lie, ..Self::default() }
    }

    /// Of a turn.
    pub(crate) fn of_turn(route: &'static str, asked: &Asked, turn: &Turn, lie: Option<Lie>) -> Self {
        let end = match turn.end {
            End::EndToken(_) => "end_token",
            End::Stop(_) => "stop",
            End::Length => "length",
            End::Abort => "abort",
        };
        Self {
            number: 0,
            route,
            id: asked.id.clone(),
            lie,
            seed: asked.seed,
            prompt: prompt_digest(&turn.prompt),
            tokens: turn.tokens.clone(),
            logprobs: turn.logprobs.clone(),
            labels: turn.spans().into_iter().map(|(label, start, end)| (label.to_owned(), start, end)).collect(),
            end,
        }
    }
}

/// What an entry calls a prompt, expanded.
pub fn prompt_digest(tokens: &[u32]) -> String {
    let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
    blake3::hash(&bytes).to_hex().to_string()
}

/// Everything that was answered.
#[derive(Debug, Default)]
pub struct Audit {
    entries: Mutex<Vec<Entry>>,
    file: Option<Mutex<File>>,
}

impl Audit {
    /// An empty one, which appends to a file if one is named.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn new(file: Option<&Path>) -> std::io::Result<Self> {
        let file = file.map(|path| OpenOptions::new().create(true).append(true).open(path)).transpose()?;
        Ok(Self { entries: Mutex::default(), file: file.map(Mutex::new) })
    }

    /// Adds an entry and numbers it.
    ///
    /// # Panics
    /// When the file cannot be written: a test without its audit shows nothing.
    pub fn add(&self, entry: Entry) {
        let mut entries = self.entries.lock();
        let entry = Entry { number: entries.len() as u64, ..entry };
        if let Some(file) = &self.file {
            let mut line = serde_json::to_string(&entry).expect("plain data");
            line.push('\n');
            file.lock().write_all(line.as_bytes()).expect("the audit can be written");
        }
        entries.push(entry);
    }

    /// All entries so far.
    pub fn entries(&self) -> Vec<Entry> {
        self.entries.lock().clone()
    }
}
