//! `attempts.jsonl`: what came of every task that is done with, a line each, on disk before the next is begun. In: lines. Out: the same,
//! read back after a kill; a trajectory is read again where it lies, and none is held.

use std::collections::BTreeMap;
use std::path::Path;

use hypereyes_domain::TaskId;

use super::attempt::{Ended, Kept, Line};
use crate::SynthError;
use crate::durable::{Durable, Place};

/// Its name in the folder that is written.
pub const ATTEMPTS: &str = "attempts.jsonl";

/// The file, and what it says of every task without its trajectory.
pub struct Ledger {
    file: Durable,
    lines: BTreeMap<TaskId, (Line, Place)>,
}

impl Ledger {
    /// Opens the file of a folder; one that is not there is made. Nobody else opens it until this value is gone.
    ///
    /// # Errors
    /// As [`Durable::open`].
    pub fn open(folder: &Path) -> Result<Self, SynthError> {
        let mut lines = BTreeMap::new();
        let file = Durable::open(folder, ATTEMPTS, |line: Line, place| note(&mut lines, line, place))?;
        Ok(Self { file, lines })
    }

    /// Appends a line; it is on disk when this returns.
    ///
    /// # Errors
    /// As [`Durable::append`].
    pub fn append(&mut self, line: Line) -> Result<(), SynthError> {
        let place = self.file.append(&line)?;
        note(&mut self.lines, line, place);
        Ok(())
    }

    /// What is known of a task; without its demonstration.
    pub fn line(&self, task: &TaskId) -> Option<&Line> {
        self.lines.get(task).map(|(line, _)| line)
    }

    /// The demonstration of a task that has one.
    ///
    /// # Errors
    /// As [`Durable::read`].
    pub fn kept(&self, task: &TaskId) -> Result<Option<Kept>, SynthError> {
        match self.lines.get(task) {
            Some((line, place)) if line.ended == Ended::Kept => Ok(self.file.read::<Line>(*place)?.kept),
            _ => Ok(None),
        }
    }
}

/// Keeps what is said of a task; its last line counts. Trajectories stay on disk.
fn note(lines: &mut BTreeMap<TaskId, (Line, Place)>, line: Line, place: Place) {
    let task = line.task.clone();
    lines.insert(task, (Line { kept: None, ..line }, place));
}

#[cfg(test)]
mod tests {
    use hypereyes_domain::{Ending, Reference, RolloutSummary};

    use super::super::attempt::Try;
    use super::*;

    fn line(task: &str, ended: Ended) -> Line {
        let summary = RolloutSummary { rounds: vec![], ending: Ending::Answered, answer: Some(task.into()) };
        let kept =
            Kept { which: Try { budget: 1, sample: 0 }, reference: Reference { rounds: 1, searches: 1 }, trajectory: summary.into() };
        let kept = (ended == Ended::Kept).then_some(kept);
        Line { ended, kept, ..Line::of(task.into()) }
    }

    #[test]
    fn the_last_line_of_a_task_counts_and_demonstrations_are_read_where_they_lie() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut ledger = Ledger::open(folder.path()).expect("made");
        for one in [line("a", Ended::Kept), line("b", Ended::Failed), line("c", Ended::Unsolved), line("b", Ended::Kept)] {
            ledger.append(one).expect("appended");
        }
        drop(ledger);
        let ledger = Ledger::open(folder.path()).expect("opens");
        let ended = |task: &str| ledger.line(&task.into()).map(|line| (line.ended, line.kept.is_some()));
        assert_eq!(
            ["a", "b", "c", "d"].map(ended),
            [Some((Ended::Kept, false)), Some((Ended::Kept, false)), Some((Ended::Unsolved, false)), None]
        );
        let answer = |task: &str| ledger.kept(&task.into()).expect("reads").and_then(|kept| kept.trajectory.summary.answer);
        assert_eq!(["a", "b", "c"].map(answer), [Some("a".into()), Some("b".into()), None]);
    }
}
