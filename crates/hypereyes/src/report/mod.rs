//! `report.html`: one self-contained page about a run, readable without a network, in light and in dark.
//!
//! In: a finished run folder. Out: the page. It computes no metric of its own: what it shows is in the folder's files.

pub mod chart;
pub mod choose;
pub mod episode;
pub mod html;
pub mod page;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;

use anyhow::{Context, Result};
use hypereyes_chassis::atomic;
use hypereyes_chat::Chat;
use hypereyes_dataset::load_picture;
use hypereyes_domain::{Accuracy, Task, TaskId, Trajectory};
use hypereyes_pictures::{Limits, RgbImage};
use serde::{Deserialize, Serialize};

use crate::outcome::Outcome;
use crate::run_folder::{RunFolder, read_json};
use crate::{follow, run_folder};

/// Longest line of a trajectory file.
const MAX_LINE: u64 = 16 << 20;
/// The largest settings file that is shown.
const MAX_SETTINGS: u64 = 1 << 20;

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
    let file = hypereyes_outside::files::open(path, u64::MAX).with_context(|| format!("cannot read {}", path.display()))?;
    let mut input = BufReader::new(file);
    let (mut played, mut line) = (BTreeMap::new(), Vec::new());
    loop {
        line.clear();
        if input.by_ref().take(MAX_LINE).read_until(b'\n', &mut line).with_context(|| format!("cannot read {}", path.display()))? == 0 {
            return Ok(played);
        }
        if let Ok(one) = serde_json::from_slice::<Played>(&line) {
            played.entry(one.task.id.clone()).or_insert(one);
        }
    }
}

/// Everything that the page shows.
pub struct Material {
    /// The result.
    pub outcome: Outcome,
    /// The resolved settings as TOML.
    pub settings: String,
    /// Optimiser steps.
    pub steps: Vec<follow::Step>,
    /// Chosen tasks.
    pub examples: Vec<Example>,
}

/// A task, its picture, and what was made of it.
pub struct Example {
    /// The task.
    pub task: Task,
    /// Its picture, if it has one.
    pub picture: Option<RgbImage>,
    /// The trained policy.
    pub after: episode::Told,
    /// The start policy.
    pub before: Option<episode::Told>,
}

/// Writes the page of a finished run into its folder.
///
/// # Errors
/// When a file of the run is missing or damaged.
pub fn write(folder: &RunFolder) -> Result<()> {
    let page = page::render(&gather(folder)?);
    let path = folder.report();
    let temporary = path.with_extension("html.part");
    let written =
        File::create(&temporary).and_then(|mut file| file.write_all(page.as_bytes())).and_then(|()| std::fs::rename(&temporary, &path));
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// Reads what the page needs.
///
/// # Errors
/// As [`write`].
pub fn gather(folder: &RunFolder) -> Result<Material> {
    let outcome: Outcome = run_folder::read_json(&folder.result())?;
    let mut settings = String::new();
    hypereyes_outside::files::open(&folder.config(), u64::MAX)
        .and_then(|file| file.take(MAX_SETTINGS).read_to_string(&mut settings))
        .context("cannot read the run's settings")?;
    let steps = follow::read_all(&folder.metrics()).context("cannot read the run's metrics")?;
    let chat = Chat::load(&outcome.details.policy).context("cannot read the trained policy's tokenizer")?;
    let (before, after) = (read_played(&folder.held_out_before())?, read_played(&folder.held_out_after())?);
    let examples = choose::examples(&before, &after, &chat, |task| pictures(folder, task));
    Ok(Material { outcome, settings, steps, examples })
}

/// A held-out task's pictures; a missing one leaves the task without.
fn pictures(folder: &RunFolder, task: &Task) -> Vec<RgbImage> {
    let load = |id| load_picture(&folder.held_out(), id, &Limits::default());
    task.pictures
        .iter()
        .filter_map(|id| load(id).map_err(|error| tracing::warn!(%error, "a picture is missing from the report")).ok())
        .map(|picture| picture.image)
        .collect()
}

/// The outcome of a finished run.
///
/// # Errors
/// When there is none.
pub fn outcome(folder: &RunFolder) -> Result<Outcome> {
    read_json(&folder.result())
}
