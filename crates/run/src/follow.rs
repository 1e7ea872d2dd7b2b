//! Follows `metrics.jsonl` while it grows. In: a path. Out: steps, as they are written.
//!
//! A line that is not yet whole is waited for; a file that became shorter (the learner went back to a checkpoint) is read
//! again from its beginning.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use hypereyes_outside::atomic;
use hypereyes_outside::jsonl::Lines;
use serde::Deserialize;

use crate::step::Step;

/// Most bytes read at one look; the rest is read at the next.
const MAX_READ: u64 = 8 << 20;
/// Longest line of a step that is kept.
const MAX_LINE: usize = 1 << 20;

/// A file under observation.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    offset: u64,
    partial: Vec<u8>,
}

impl Follower {
    /// Begins at the beginning of `path`, which need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), offset: 0, partial: Vec::new() }
    }

    /// What was written since the last look, at most 8 MiB of it.
    ///
    /// # Errors
    /// Those of the file system, except that the file need not be there.
    pub fn look(&mut self) -> io::Result<Vec<Step>> {
        let mut file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            opened => opened?,
        };
        if file.metadata()?.len() < self.offset {
            (self.offset, self.partial) = (0, Vec::new());
        }
        file.seek(SeekFrom::Start(self.offset))?;
        let read = file.take(MAX_READ).read_to_end(&mut self.partial)?;
        self.offset += read as u64;
        let Some(end) = self.partial.iter().rposition(|byte| *byte == b'\n') else { return Ok(Vec::new()) };
        let rest = self.partial.split_off(end + 1);
        let whole = std::mem::replace(&mut self.partial, rest);
        Ok(whole.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }
}

/// All steps of a file in order, each once: what was done again after a restart replaces what came first.
///
/// # Errors
/// As [`Follower::look`].
pub fn read_all(path: &Path) -> io::Result<Vec<Step>> {
    let mut follower = Follower::new(path);
    let mut steps = BTreeMap::new();
    loop {
        let before = follower.offset;
        steps.extend(follower.look()?.into_iter().map(|step| (step.step, step)));
        if follower.offset == before {
            return Ok(steps.into_values().collect());
        }
    }
}

/// Takes the steps after `step` out of a file of metrics: they will be taken again.
///
/// # Errors
/// When the file cannot be replaced; one that cannot be read is left as it is.
pub fn forget_after(path: &Path, step: u64) -> io::Result<()> {
    #[derive(Deserialize)]
    struct Line {
        step: u64,
    }
    let Ok(mut input) = Lines::open(path, MAX_LINE) else { return Ok(()) };
    let (mut kept, mut forgotten) = (Vec::new(), false);
    loop {
        let line = match input.next_line() {
            Ok(Some(line)) => line,
            Ok(None) => break,
            // Half of it is not what stands.
            Err(_) => return Ok(()),
        };
        match line.bytes.filter(|bytes| serde_json::from_slice::<Line>(bytes).is_ok_and(|line| line.step <= step)) {
            Some(bytes) => kept.extend(bytes.iter().chain(b"\n")),
            None => forgotten = true,
        }
    }
    if forgotten {
        atomic::write(path, &kept)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn lines_come_when_they_are_whole_and_again_after_a_restart() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("metrics.jsonl");
        let mut follower = Follower::new(&path);
        assert!(follower.look().expect("not there is fine").is_empty());
        let mut file = File::create(&path).expect("made");
        file.write_all(b"{\"step\":1,\"accuracy\":0.5,\"new_key\":[1]}\n{\"step\":2,\"acc").expect("written");
        let steps = follower.look().expect("read");
        assert_eq!((steps.len(), steps[0].step, steps[0].accuracy), (1, 1, Some(0.5)));
        file.write_all(b"uracy\":null}\n").expect("written");
        let steps = follower.look().expect("read");
        assert_eq!((steps[0].step, steps[0].accuracy), (2, None));
        assert!(follower.look().expect("read").is_empty());
        std::fs::write(&path, "{\"step\":2}\n").expect("shorter");
        assert_eq!(follower.look().expect("read").len(), 1);
    }

    #[test]
    fn a_step_that_was_done_twice_counts_once() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("metrics.jsonl");
        std::fs::write(&path, "{\"step\":1}\n{\"step\":2,\"reward\":0.1}\nnot json\n{\"step\":2,\"reward\":0.2}\n").expect("written");
        let steps = read_all(&path).expect("read");
        assert_eq!(steps.iter().map(|step| (step.step, step.reward)).collect::<Vec<_>>(), [(1, None), (2, Some(0.2))]);
    }

    #[test]
    fn steps_after_a_checkpoint_are_forgotten_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("metrics.jsonl");
        forget_after(&path, 3).expect("there is none");
        std::fs::write(&path, "{\"step\":1}\n{\"step\":2,\"more\":[1]}\n{\"step\":3}\n{\"st").expect("written");
        forget_after(&path, 2).expect("replaced");
        assert_eq!(std::fs::read_to_string(&path).expect("there"), "{\"step\":1}\n{\"step\":2,\"more\":[1]}\n");
    }
}
