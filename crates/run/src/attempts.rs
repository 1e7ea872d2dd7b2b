//! How often a run was started, and what it was told anew each time: the lines of `attempts.jsonl`.
//!
//! In: a start. Out: its line, and the starts read back. What the settings mean is for who compares them.

use std::fmt;
use std::io;

use hypereyes_outside::atomic;
use hypereyes_outside::jsonl::Lines;
use serde::{Deserialize, Serialize};

use crate::folder::RunFolder;

/// Longest line that is read.
const MAX_LINE: usize = 1 << 20;

/// A setting that a resumed run was told anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The key.
    pub key: String,
    /// Its value before, as TOML has it; empty where there was none.
    pub was: String,
    /// Its value from here on.
    pub is: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |value: &str| if value.is_empty() { "nothing".to_owned() } else { value.to_owned() };
        write!(f, "{} = {} (was {})", self.key, show(&self.is), show(&self.was))
    }
}

/// One start of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// From 1.
    pub attempt: u32,
    /// When, in seconds since 1970; 0 where it is not known.
    pub time: u64,
    /// Of the program.
    pub version: String,
    /// Optimiser steps done before.
    pub step: u64,
    /// What was told anew.
    pub changes: Vec<Change>,
}

/// Writes a start down, in the place of one under its number: that one was killed before it was counted.
///
/// # Errors
/// Those of the file system.
pub fn record(folder: &RunFolder, start: Attempt) -> io::Result<()> {
    let mut all = read(folder);
    all.retain(|one| one.attempt < start.attempt);
    all.push(start);
    let text: String = all.iter().map(|one| serde_json::to_string(one).expect("plain values") + "\n").collect();
    atomic::write(&folder.attempts_list(), text.as_bytes())
}

/// The starts of a run, in order; those of before there was a history are not in it.
pub fn read(folder: &RunFolder) -> Vec<Attempt> {
    let Ok(lines) = Lines::open(&folder.attempts_list(), MAX_LINE) else { return Vec::new() };
    lines.values().map_while(Result::ok).filter_map(|row| row.value.ok()).collect()
}

/// What was told anew on the way, one sentence per start; empty when nothing was.
pub fn told(attempts: &[Attempt]) -> Vec<String> {
    let changed = attempts.iter().filter(|attempt| !attempt.changes.is_empty());
    changed
        .map(|attempt| {
            let changes: Vec<String> = attempt.changes.iter().map(ToString::to_string).collect();
            format!("from step {} on: {}", attempt.step, changes.join(", "))
        })
        .collect()
}
