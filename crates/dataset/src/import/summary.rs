//! What an import came to. In: tasks and refused rows as they come. Out: counts, and lists of a bounded length. It keeps no task.

use std::collections::BTreeMap;
use std::path::Path;

use hypereyes_domain::{Task, TaskId};
use serde::Serialize;

use super::format::Format;
use crate::loaders::Refused;

/// Rows that each list holds at most; all refused ones are in the set's `refused.jsonl`.
const LISTED: usize = 10_000;
/// Characters of a reason at most: what is wrong with a row may quote all of it.
const MOST_REASON: usize = 400;
/// Kinds that are counted apart.
const KINDS: usize = 1000;

/// What an import came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Rows that were read.
    pub rows: u64,
    /// Those that are tasks.
    pub tasks: u64,
    /// Pictures of tasks, each counted once.
    pub pictures: u64,
    /// All other rows, at most 10,000 of them.
    pub refused: Vec<Refused>,
    /// How many there are.
    pub refused_total: u64,
    /// Those of them that were there before.
    pub duplicates: u64,
    /// The layout; several are joined by `+`, and of files without a row there is none.
    pub format: String,
    /// Tasks by kind.
    pub kinds: BTreeMap<String, u64>,
    /// Tasks with a known cost.
    pub references: u64,
    /// What is odd about rows that are tasks, at most 10,000 of them.
    pub warnings: Vec<Refused>,
    /// How many there are.
    pub warnings_total: u64,
    /// Tasks that are held out as well, where a set was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlaps: Option<u64>,
    /// At most 10,000 of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub overlap: Vec<Overlap>,
    /// What each file came to.
    pub files: Vec<FileSummary>,
}

/// A task that is also held out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Overlap {
    /// Its file.
    pub file: String,
    /// Its row, from 0.
    pub row: u64,
    /// What it is called.
    pub task: TaskId,
    /// What it is called where it is held out.
    pub held_out: TaskId,
}

/// What a file came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct FileSummary {
    /// Which.
    pub file: String,
    /// Its layout; none where it has no row that could be read.
    pub format: Option<Format>,
    /// Rows that were read.
    pub rows: u64,
    /// Those that are tasks.
    pub tasks: u64,
}

impl Summary {
    /// Writes down a refused row.
    pub(super) fn refuse(&mut self, file: &Path, row: u64, reason: String) -> Refused {
        let refused = line(file, row, reason);
        self.refused_total += 1;
        if self.refused.len() < LISTED {
            self.refused.push(refused.clone());
        }
        refused
    }

    /// Writes down what is odd.
    pub(super) fn warn(&mut self, file: &Path, row: u64, reason: String) {
        self.warnings_total += 1;
        if self.warnings.len() < LISTED {
            self.warnings.push(line(file, row, reason));
        }
    }

    /// Writes down a task that is held out as well.
    pub(super) fn overlap(&mut self, file: &Path, row: u64, task: &TaskId, held_out: &TaskId) {
        *self.overlaps.get_or_insert(0) += 1;
        if self.overlap.len() < LISTED {
            let file = file.display().to_string();
            self.overlap.push(Overlap { file, row, task: task.clone(), held_out: held_out.clone() });
        }
    }

    /// Counts a task.
    pub(super) fn task(&mut self, task: &Task) {
        self.tasks += 1;
        self.references += u64::from(task.reference.is_some());
        let kind = task.kind.as_str();
        if self.kinds.len() < KINDS || self.kinds.contains_key(kind) {
            *self.kinds.entry(kind.to_owned()).or_default() += 1;
        }
    }

    /// Says the layouts of all files in one word.
    pub(super) fn name_format(&mut self) {
        let mut names: Vec<&str> = Vec::new();
        for name in self.files.iter().filter_map(|file| file.format).map(Format::name) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        self.format = names.join("+");
    }
}

fn line(file: &Path, row: u64, mut reason: String) -> Refused {
    if let Some((end, _)) = reason.char_indices().nth(MOST_REASON) {
        reason.truncate(end);
        reason.push('\u{2026}');
    }
    // One line that does nothing to whoever shows it, whatever a row says.
    let reason = reason.replace(char::is_control, " ");
    Refused { file: file.display().to_string(), row, reason }
}
