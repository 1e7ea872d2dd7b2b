//! The ledger: an append-only file from which every group's fate can be read.
//!
//! In: events. Out: one JSON line each in `groups.jsonl`, with a wall-clock time. Appending is buffered by the operating
//! system; the ledger is evidence, not state: what is resumed comes from the checkpoint. So a disk that is full does not end a run:
//! lines wait in memory ([`Lines`]) and come in order when they can be written; only what a learner takes with it that dies
//! meanwhile, or more than 64 MiB of them, is missing, and an audit then finds groups that were never leased.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use hypereyes_domain::{ActorId, GroupId, TaskId};
use serde::{Deserialize, Serialize};

use crate::lines::Lines;

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
    /// A task has failed too often: it is not leased any more in this incarnation of the learner.
    SetAside {
        /// Which.
        task: &'a TaskId,
        /// Why, of the last time.
        reason: &'a str,
    },
    /// References were committed.
    Committed {
        /// The epoch that ended.
        epoch: u64,
        /// References that were tightened.
        tightened: u64,
    },
}

/// One line, as it is read: an event of this release or another, with what it says. Keys that are not known here are passed over.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Line {
    /// Seconds since 1970; 0 where it is not said.
    #[serde(default)]
    pub time: f64,
    /// What happened: `leased`, `released`, `submitted`, `trained`, `dropped`, `started`, `set_aside`, `committed`.
    pub event: String,
    /// To which group.
    #[serde(default)]
    pub group: Option<String>,
    /// In which optimiser step; for `started`, the steps done before.
    #[serde(default)]
    pub step: u64,
    /// Why, from a small set.
    #[serde(default)]
    pub reason: Option<String>,
    /// Why, for people.
    #[serde(default)]
    pub detail: Option<String>,
}

/// The file, or nowhere in tests.
pub struct Ledger {
    lines: Option<Lines>,
}

impl Ledger {
    /// Appends to a file.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        Ok(Self { lines: Some(Lines::open(path, "groups")?) })
    }

    /// Keeps nothing.
    pub fn nowhere() -> Self {
        Self { lines: None }
    }

    /// Appends one event.
    pub fn write(&mut self, event: &Event<'_>) {
        #[derive(Serialize)]
        struct Line<'a> {
            time: f64,
            #[serde(flatten)]
            event: &'a Event<'a>,
        }
        let Some(lines) = &mut self.lines else { return };
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        lines.append(&Line { time, event });
    }

    /// Tries again what could not be written.
    pub fn flush(&mut self) {
        if let Some(lines) = &mut self.lines {
            lines.flush();
        }
    }
}
