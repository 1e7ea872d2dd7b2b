//! The tasks of a folder. In: `tasks.jsonl`. Out: tasks that can be asked and judged, or the first line that is none.

use std::collections::HashSet;
use std::path::Path;

use hypereyes_domain::Task;

use crate::about::about;
use crate::error::DataError;
use crate::lines::read_lines;
use crate::pictures::is_hash;

/// The tasks' file.
pub const TASKS: &str = "tasks.jsonl";

/// What a row of tasks may hold beside the task; any other key that a task has not is refused.
pub(crate) const FREE_KEYS: [&str; 3] = ["expected", "note", "notes"];

/// A row of tasks.
fn task_of(line: &[u8]) -> serde_json::Result<Task> {
    let mut row: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(line)?;
    row.retain(|key, _| !FREE_KEYS.contains(&key.as_str()));
    serde_json::from_value(row.into())
}

/// The tasks of a folder. Ids must be unique, answers present, pictures plain hex names.
pub fn load_tasks(folder: &Path) -> Result<Vec<Task>, DataError> {
    let path = folder.join(TASKS);
    if !path.is_file() {
        return Err(DataError::File { path, reason: "there is no such task set; make one with `hypereyes synth`".into() });
    }
    // Before the rows: those of a later release may hold what is not known here.
    about(folder)?;
    let tasks = read_lines(&path, task_of)?;
    let mut seen = HashSet::new();
    for (at, task) in tasks.iter().enumerate() {
        let reason = if !seen.insert(&task.id) {
            was_before(task)
        } else if let Err(reason) = check(task) {
            reason
        } else if let Some(id) = task.pictures.iter().find(|id| !is_hash(id)) {
            format!("{id} is no picture id (64 hex digits)")
        } else {
            continue;
        };
        return Err(DataError::Line { path, line: at + 1, reason });
    }
    Ok(tasks)
}

/// What is wrong with the second task of an id.
pub(crate) fn was_before(task: &Task) -> String {
    format!("task {} was there before", task.id)
}

/// Whether a task can be asked, judged and sent, whatever its pictures are.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check(task: &Task) -> Result<(), String> {
    if task.answers.iter().all(|answer| answer.trim().is_empty()) {
        return Err(format!("task {} has no answer", task.id));
    }
    task.check().map_err(|(what, reason)| format!("task {}: {what} {reason}", task.id))?;
    let reference = task.reference.map_or(Ok(()), |reference| reference.check());
    reference.map_err(|(what, reason)| format!("task {}: reference.{what} {reason}", task.id))
}
