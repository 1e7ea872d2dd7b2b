//! Rollouts on file: those of an evaluation, a line each, and those of some training steps.
//!
//! In: tasks, trajectories, verdicts. Out: `held_out_before.jsonl` and `held_out_after.jsonl`, the `rollouts.jsonl` of an evaluation by
//! itself, and rollouts read back by task; the line of `trajectories.jsonl`.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result};
use hypereyes_domain::{Accuracy, DistilledGroup, Task, TaskId, Trajectory};
use hypereyes_outside::atomic;
use hypereyes_outside::jsonl::Lines;
use serde::{Deserialize, Serialize};

/// Longest line of a trajectory file.
const MAX_LINE: usize = 16 << 20;

/// One line of `held_out_before.jsonl`, `held_out_after.jsonl` and `rollouts.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Played {
    /// The task.
    pub task: Task,
    /// Which of its rollouts, from 0.
    #[serde(default, skip_serializing_if = "is_first")]
    pub sample: u32,
    /// What the policy did.
    pub trajectory: Trajectory,
    /// The verdict.
    pub accuracy: Accuracy,
}

fn is_first(sample: &u32) -> bool {
    *sample == 0
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

/// What of a line tells which rollout it is.
#[derive(Deserialize)]
struct Head {
    task: HeadOfTask,
    #[serde(default)]
    sample: u32,
}

#[derive(Deserialize)]
struct HeadOfTask {
    id: TaskId,
}

/// Puts a file of rollouts in order, replacing it whole: of each of `wanted` its newest line, with that verdict. What is not there stays
/// away; what is not wanted goes, and so does a line that is too long to be read again. One rollout at a time is in memory.
///
/// # Errors
/// Those of the file system; a line that is no rollout.
pub fn settle_played(path: &Path, wanted: &[(TaskId, u32, Accuracy)]) -> Result<()> {
    settled(path, wanted).with_context(|| format!("cannot put {} in order", path.display()))
}

fn settled(path: &Path, wanted: &[(TaskId, u32, Accuracy)]) -> io::Result<()> {
    let mut places: HashMap<(TaskId, u32), (u64, u64)> = HashMap::new();
    let mut lines = Lines::open(path, MAX_LINE)?;
    while let Some(line) = lines.next_line()? {
        // Nobody who reads these files would take a longer one.
        let Some(bytes) = line.bytes else { continue };
        let Head { task, sample } = serde_json::from_slice(bytes)?;
        places.insert((task.id, sample), (line.at, bytes.len() as u64));
    }
    let (mut file, mut line) = (File::open(path)?, Vec::new());
    atomic::replace(path, |out| {
        for (task, sample, accuracy) in wanted {
            let Some((from, bytes)) = places.get(&(task.clone(), *sample)) else { continue };
            file.seek(SeekFrom::Start(*from))?;
            line.clear();
            file.by_ref().take(*bytes).read_to_end(&mut line)?;
            let played = Played { accuracy: *accuracy, ..serde_json::from_slice(&line)? };
            serde_json::to_writer(&mut *out, &played)?;
            io::Write::write_all(out, b"\n")?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use hypereyes_domain::{Ending, Failure, RolloutSummary, TaskKind};

    use super::*;

    fn played(id: &str, sample: u32, answer: &str, accuracy: Accuracy) -> Played {
        let task = Task {
            id: id.into(),
            kind: TaskKind::new("news"),
            question: "Who?".into(),
            answers: vec!["Ada".into()],
            pictures: vec![],
            layer: None,
            metadata: Default::default(),
            shown: vec![],
            reference: None,
        };
        let summary = RolloutSummary { rounds: vec![], ending: Ending::Answered, answer: Some(answer.to_owned()) };
        Played { task, sample, trajectory: Trajectory::from(summary), accuracy }
    }

    #[test]
    fn rollouts_are_put_in_order_the_newest_of_each_with_its_verdict() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("rollouts.jsonl");
        let judge = Accuracy::Invalid(Failure::Judge);
        let all = [
            played("b", 0, "first", Accuracy::Wrong),
            played("a", 1, "Ada", judge),
            played("x", 0, "nobody wants it", Accuracy::Wrong),
            played("b", 0, "second", Accuracy::Correct),
            played("a", 0, &"x".repeat(MAX_LINE), Accuracy::Wrong),
        ];
        write_played(&path, &all).expect("written");
        let wanted = [("a", 0, Accuracy::Wrong), ("a", 1, Accuracy::Correct), ("b", 0, Accuracy::Correct)];
        settle_played(&path, &wanted.map(|(id, sample, accuracy)| (id.into(), sample, accuracy))).expect("settled");
        let read: Vec<Played> =
            Lines::open(&path, MAX_LINE).expect("opens").values().map(|row| row.expect("reads").value.expect("a rollout")).collect();
        assert_eq!(read, [played("a", 1, "Ada", Accuracy::Correct), played("b", 0, "second", Accuracy::Correct)]);
        let text = std::fs::read_to_string(&path).expect("there");
        assert!(text.lines().nth(1).is_some_and(|line| !line.contains("sample")), "first rollouts are written as they were: {text}");
    }
}
