//! The ledger: an append-only file from which every group's fate can be read.
//!
//! In: events. Out: one JSON line each in `groups.jsonl`, with a wall-clock time. Appending is buffered by the operating
//! system; the ledger is evidence, not state: what is resumed comes from the checkpoint.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use hypereyes_domain::{ActorId, GroupId};
use serde::Serialize;

/// What happened to a group.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event<'a> {
    /// Handed out.
    Leased {
        /// Which.
        group: &'a GroupId,
        /// To whom.
        actor: &'a ActorId,
        /// Pass over the tasks.
        epoch: u64,
    },
    /// Taken back, expired or given back; the task is leased again under another id.
    Released {
        /// Which.
        group: &'a GroupId,
        /// Why.
        reason: &'a str,
    },
    /// Handed in, waiting to be trained.
    Submitted {
        /// Which.
        group: &'a GroupId,
    },
    /// Part of an optimiser step.
    Trained {
        /// Which.
        group: &'a GroupId,
        /// Which step.
        step: u64,
    },
    /// Not trained.
    Dropped {
        /// Which.
        group: &'a GroupId,
        /// Why, from a small set.
        reason: &'a str,
        /// Why, for people.
        detail: &'a str,
    },
    /// A learner starts (again): groups that were leased or waiting and not trained are void.
    Started {
        /// Steps done before.
        step: u64,
    },
    /// References were committed.
    Committed {
        /// The epoch that ended.
        epoch: u64,
        /// References that were tightened.
        tightened: u64,
    },
}

/// The file, or nowhere in tests.
pub struct Ledger {
    file: Option<File>,
}

impl Ledger {
    /// Appends to a file.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let mut file = File::options().create(true).read(true).append(true).open(path)?;
        // What a kill cut short gets a line of its own.
        if file.metadata()?.len() > 0 {
            file.seek(SeekFrom::End(-1))?;
            let mut last = [0];
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
            }
        }
        Ok(Self { file: Some(file) })
    }

    /// Keeps nothing.
    pub fn nowhere() -> Self {
        Self { file: None }
    }

    /// Appends one event; a full disk is counted, not fatal, since training does not depend on the ledger.
    pub fn write(&mut self, event: &Event<'_>) {
        #[derive(Serialize)]
        struct Line<'a> {
            time: f64,
            #[serde(flatten)]
            event: &'a Event<'a>,
        }
        let Some(file) = &mut self.file else { return };
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        let mut line = serde_json::to_vec(&Line { time, event }).expect("events are plain values");
        line.push(b'\n');
        if file.write_all(&line).is_err() {
            metrics::counter!(crate::metrics::LEDGER_LOST).increment(1);
        }
    }
}
