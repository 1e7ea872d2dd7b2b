//! What a run came to, for people: `report.html`, one self-contained page that is readable without a network, in light and in dark.
//!
//! In: a finished run folder, or an episode. Out: the page; the episode's rounds as JSON or as lines. It computes no metric of its own:
//! what it shows is in the folder's files. It starts no process and loads no model.

pub mod chart;
pub mod choose;
pub mod episode;
pub mod html;
pub mod outcome;
pub mod page;
pub mod told;
pub mod transcript;

use std::io::Read;
use std::sync::Arc;

use anyhow::{Context, Result};
use hypereyes_chat::Chat;
use hypereyes_dataset::load_picture;
use hypereyes_domain::Task;
use hypereyes_eval::{Evaluation, curve};
use hypereyes_outside::atomic;
use hypereyes_pictures::{Limits, RgbImage};
use hypereyes_run::{RunFolder, Step, follow, read_json, read_played};

use crate::outcome::Outcome;

/// The largest settings file that is shown.
const MAX_SETTINGS: u64 = 1 << 20;

/// Everything that the page shows.
pub struct Material {
    /// The result.
    pub outcome: Outcome,
    /// The resolved settings as TOML.
    pub settings: String,
    /// Optimiser steps.
    pub steps: Vec<Step>,
    /// Versions that were measured on held-out tasks.
    pub evaluations: Vec<Evaluation>,
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
    atomic::write(&path, page.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}

/// Reads what the page needs.
///
/// # Errors
/// As [`write()`].
pub fn gather(folder: &RunFolder) -> Result<Material> {
    let outcome: Outcome = read_json(&folder.result())?;
    let mut settings = String::new();
    hypereyes_outside::files::open(&folder.config(), u64::MAX)
        .and_then(|file| file.take(MAX_SETTINGS).read_to_string(&mut settings))
        .context("cannot read the run's settings")?;
    let steps = follow::read_all(&folder.metrics()).context("cannot read the run's metrics")?;
    let evaluations = curve::read(&folder.evaluations()).context("cannot read the run's evaluations")?;
    let chat = Chat::load(&outcome.details.policy).context("cannot read the trained policy's tokenizer")?;
    let (before, after) = (read_played(&folder.held_out_before())?, read_played(&folder.held_out_after())?);
    let examples = choose::examples(&before, &after, &chat, |task| pictures(folder, task));
    Ok(Material { outcome, settings, steps, evaluations, examples })
}

/// A held-out task's pictures; a missing one leaves the task without.
fn pictures(folder: &RunFolder, task: &Task) -> Vec<RgbImage> {
    let load = |id| load_picture(&folder.held_out(), id, &Limits::default());
    task.pictures
        .iter()
        .filter_map(|id| load(id).map_err(|error| tracing::warn!(%error, "a picture is missing from the report")).ok())
        .map(|picture| Arc::unwrap_or_clone(picture.image))
        .collect()
}

/// The outcome of a finished run.
///
/// # Errors
/// When there is none.
pub fn outcome(folder: &RunFolder) -> Result<Outcome> {
    read_json(&folder.result())
}
