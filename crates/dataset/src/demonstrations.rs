//! Demonstrations: how tasks are solved, for a cold start. In: `demonstrations.jsonl`. Out: demonstrations that hold together, or the
//! first line that does not.

use std::path::Path;

use hypereyes_domain::{TaskId, Trajectory};
use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::lines::read_lines;
use crate::pictures::is_hash;

/// The demonstrations' file.
pub const DEMONSTRATIONS: &str = "demonstrations.jsonl";

/// One cold-start example.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Demonstration {
    /// What it solves.
    pub task: TaskId,
    /// How. Log-probs are 0: nobody sampled it.
    pub trajectory: Trajectory,
}

/// The demonstrations of a folder; none if it has no such file.
pub fn load_demonstrations(folder: &Path) -> Result<Vec<Demonstration>, DataError> {
    let path = folder.join(DEMONSTRATIONS);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let demonstrations: Vec<Demonstration> = read_lines(&path, |line| serde_json::from_slice(line))?;
    for (at, demonstration) in demonstrations.iter().enumerate() {
        let line = |reason: String| DataError::Line { path: path.clone(), line: at + 1, reason };
        demonstration.trajectory.check().map_err(|error| line(error.to_string()))?;
        demonstration.trajectory.summary.check().map_err(|error| line(error.to_string()))?;
        if let Some(id) = demonstration.trajectory.pictures.iter().find(|id| !is_hash(id)) {
            return Err(line(format!("{id} is no picture id (64 hex digits)")));
        }
    }
    Ok(demonstrations)
}
