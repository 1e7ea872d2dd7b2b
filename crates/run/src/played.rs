//! Rollouts on file: those of an evaluation, a line each, and those of some training steps.
//!
//! In: tasks, trajectories, verdicts. Out: `held_out_before.jsonl` and `held_out_after.jsonl`, and rollouts read back by task; the line of
//! `trajectories.jsonl`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use hypereyes_domain::{Accuracy, DistilledGroup, Task, TaskId, Trajectory};
use hypereyes_outside::atomic;
use hypereyes_outside::jsonl::Lines;
use serde::{Deserialize, Serialize};

/// Longest line of a trajectory file.
const MAX_LINE: usize = 16 << 20;

/// One line of `held_out_before.jsonl` and `held_out_after.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Played {
    /// The task.
    pub task: Task,
    /// What the policy did.
    pub trajectory: Trajectory,
    /// The verdict.
    pub accuracy: Accuracy,
}

/// One line of `trajectories.jsonl`: a group of some step with its task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recorded<'a> {
    /// Number of the step that trained on it, from 1.
    pub step: u64,
    /// The task.
    pub task: Cow<'a, Task>,
    /// Its rollouts with scores and the teacher's log-probs.
    pub group: Cow<'a, DistilledGroup>,
}

/// Writes rollouts, one line each, replacing the file whole.
///
/// # Errors
/// Those of the file system.
pub fn write_played(path: &Path, played: &[Played]) -> Result<()> {
    let mut bytes = Vec::new();
    for one in played {
        serde_json::to_writer(&mut bytes, one).expect("our values are plain");
        bytes.push(b'\n');
    }
    atomic::write(path, &bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// Reads rollouts by task, the first of each; lines that are damaged are passed over.
///
/// # Errors
/// When the file cannot be read.
pub fn read_played(path: &Path) -> Result<BTreeMap<TaskId, Played>> {
    let cannot = || format!("cannot read {}", path.display());
    let mut played = BTreeMap::new();
    for row in Lines::open(path, MAX_LINE).with_context(cannot)?.values::<Played>() {
        if let Ok(one) = row.with_context(cannot)?.value {
            played.entry(one.task.id.clone()).or_insert(one);
        }
    }
    Ok(played)
}
