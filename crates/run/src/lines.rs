//! Lines that are appended to a file for people, reports and audits. In: values. Out: one JSON line each. A file that cannot be
//! written (a full disk, a folder in its place) ends nothing: lines wait in memory and are tried again with the next one; that is
//! counted, and said once. What a failed write left behind is cut off again, so that every line is whole.

use std::collections::VecDeque;
use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::metrics::{LINES_FAILED, LINES_LOST};

/// Bytes of lines that wait; beyond them the oldest are lost.
const MOST_WAITING: usize = 64 << 20;

/// A file of lines.
pub struct Lines {
    path: PathBuf,
    /// The counters' label.
    name: &'static str,
    file: Option<File>,
    waiting: VecDeque<Vec<u8>>,
    bytes: usize,
    failing: bool,
}

impl Lines {
    /// Will append to `path`, which is opened when there is something to write.
    pub fn new(path: &Path, name: &'static str) -> Self {
        Self { path: path.to_owned(), name, file: None, waiting: VecDeque::new(), bytes: 0, failing: false }
    }

    /// The same, opened now.
    ///
    /// # Errors
    /// When it cannot be.
    pub fn open(path: &Path, name: &'static str) -> io::Result<Self> {
        let mut lines = Self::new(path, name);
        lines.file = Some(opened(path)?);
        Ok(lines)
    }

    /// Appends a line, and those that wait.
    pub fn append<T: Serialize>(&mut self, value: &T) {
        let mut line = serde_json::to_vec(value).expect("lines are plain values");
        line.push(b'\n');
        self.bytes += line.len();
        self.waiting.push_back(line);
        self.flush();
    }

    /// Tries again what waits; true where nothing does any more.
    pub fn flush(&mut self) -> bool {
        if self.waiting.is_empty() {
            return true;
        }
        match self.write() {
            Ok(()) if self.failing => {
                tracing::info!(file = %self.path.display(), "lines are written again; none is missing that was kept");
                self.failing = false;
            }
            Ok(()) => {}
            Err(error) => self.failed(&error),
        }
        self.waiting.is_empty()
    }

    fn failed(&mut self, error: &io::Error) {
        metrics::counter!(LINES_FAILED, "file" => self.name).increment(1);
        if !self.failing {
            tracing::warn!(file = %self.path.display(), %error, "lines cannot be written: they are kept and tried again");
            self.failing = true;
        }
        self.file = None;
        while self.bytes > MOST_WAITING {
            let Some(oldest) = self.waiting.pop_front() else { break };
            self.bytes -= oldest.len();
            metrics::counter!(LINES_LOST, "file" => self.name).increment(1);
        }
    }

    fn write(&mut self) -> io::Result<()> {
        // Whoever moved the file away, or put another in its place, reads the one that has its name.
        let there = std::fs::metadata(&self.path).ok();
        let same = |file: &File| there.as_ref().is_some_and(|there| file.metadata().is_ok_and(|own| is_same(&own, there)));
        let mut file = match self.file.take().filter(same) {
            Some(file) => file,
            None => opened(&self.path)?,
        };
        while let Some(line) = self.waiting.front() {
            let whole = file.metadata()?.len();
            if let Err(error) = file.write_all(line) {
                // Best effort: what stays is half a line, which readers pass over and the next opening closes.
                let _ = file.set_len(whole);
                return Err(error);
            }
            self.bytes -= line.len();
            self.waiting.pop_front();
        }
        self.file = Some(file);
        Ok(())
    }
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

fn opened(path: &Path) -> io::Result<File> {
    let mut file = File::options().create(true).read(true).append(true).open(path)?;
    // What a kill cut short gets a line of its own.
    if file.metadata()?.len() > 0 {
        file.seek(SeekFrom::End(-1))?;
        let mut last = [0];
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_cannot_be_written_wait_and_come_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines.jsonl");
        std::fs::write(&path, b"{\"cut").unwrap();
        let mut lines = Lines::open(&path, "lines").unwrap();
        lines.append(&1);
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        lines.append(&2);
        lines.append(&3);
        assert!(!lines.flush());
        std::fs::remove_dir(&path).unwrap();
        assert!(lines.flush());
        lines.append(&4);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "2\n3\n4\n", "what was written before went with the file");
    }

    #[test]
    fn a_disk_that_is_full_for_good_costs_the_oldest_lines_and_not_the_memory() {
        let mut lines = Lines::new(Path::new("/dev/full"), "full");
        let line = "x".repeat(1 << 20);
        (0..80).for_each(|_| lines.append(&line));
        assert!(lines.bytes <= MOST_WAITING && lines.waiting.len() >= 60);
    }
}
