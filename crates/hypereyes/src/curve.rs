//! The ends of a run's curve: what `up` measures before and after training, beside what its evaluator measures meanwhile.
//!
//! In: a measurement with its rollouts, the policy that was measured. Out: its line in `evaluations.jsonl`, on the tasks that every other
//! point of the curve is of; the best policy, where it is that. Nobody else writes there at the time.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use hypereyes_eval::run::outcome;
use hypereyes_eval::{EvalConfig, Evaluation, Outcome, Report, TaskSet};
use hypereyes_evaluator::Journal;
use hypereyes_outside::jsonl::{Lines, Row};
use hypereyes_policy::checkpoint;
use hypereyes_run::{Played, RunFolder};

/// Longest line of a file of rollouts.
const MAX_LINE: usize = 16 << 20;

/// A measurement of `up`.
pub struct End<'a> {
    /// Optimiser steps that the policy has behind it.
    pub step: u64,
    /// The policy, as a model folder.
    pub policy: &'a Path,
    /// Its numbers on all tasks.
    pub report: &'a Report,
    /// Its rollouts.
    pub played: &'a Path,
}

/// Puts a measurement on the curve, unless it is there. `start` is the policy that training starts from.
///
/// # Errors
/// When a file cannot be read or written.
pub fn note(config: &EvalConfig, folder: &RunFolder, start: &Path, set: &TaskSet, end: &End<'_>) -> Result<()> {
    let (_, weights) = checkpoint::read(end.policy)?;
    let mut journal = Journal::open(folder.root(), start, config.best)?;
    let digest = journal.digest_of(&weights)?;
    if journal.has(end.step, &digest) {
        return Ok(());
    }
    let report = match config.every_tasks {
        some if (1..set.tasks.len()).contains(&some) => of_first(end.played, set, some)?,
        _ => end.report.clone(),
    };
    let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let evaluation = Evaluation { step: end.step, version: end.step, due: end.step, digest, seconds: None, time, report };
    journal.keep(evaluation, &weights);
    Ok(())
}

/// The numbers on the first tasks of a set: each task has the seeds that it has when it is measured with fewer. A line that is damaged would
/// be missing in every number, and is an error.
fn of_first(played: &Path, set: &TaskSet, some: usize) -> Result<Report> {
    let cannot = || format!("cannot read {}", played.display());
    let mut by_task: Vec<Vec<Outcome>> = vec![vec![]; some];
    for row in Lines::open(played, MAX_LINE).with_context(cannot)?.values::<Played>() {
        let Row { number, value } = row.with_context(cannot)?;
        let value = value.map_err(|reason| anyhow!("line {number}: {reason}")).with_context(cannot)?;
        let Played { task, trajectory, accuracy, .. } = value;
        if let Some(at) = set.tasks[..some].iter().position(|known| known.id == task.id) {
            by_task[at].push(outcome(&task, &trajectory, accuracy));
        }
    }
    let left_out = by_task.iter().filter(|outcomes| outcomes.is_empty()).count();
    Ok(Report::new(some, &by_task.concat(), left_out))
}
