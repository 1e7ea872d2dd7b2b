//! Lines that must not be lost: each is on disk before whoever wrote it goes on.
//!
//! In: values. Out: a file with one JSON value on each line, in the order of their writing. A line that a crash cut short is cut off when
//! the file is opened again, which is told; all others are whole. Unlike [`Lines`](crate::Lines), a file that cannot be written is an
//! error: what is written here is not written twice.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use hypereyes_chassis::BadInput;
use hypereyes_outside::atomic;
use hypereyes_outside::jsonl::Lines;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What is read at once on the way back to the last whole line.
const BLOCK: u64 = 64 << 10;

/// A file of lines, open for more.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// Bytes of whole lines.
    whole: u64,
}

impl Journal {
    /// Opens the file at `path`, or makes it, and cuts off a last line that nothing ends. Gives the number of bytes that were cut off, too.
    ///
    /// # Errors
    /// Those of the file system, with the path.
    pub fn open(path: &Path) -> Result<(Self, u64)> {
        Self::opened(path).with_context(|| format!("cannot open {}", path.display()))
    }

    fn opened(path: &Path) -> io::Result<(Self, u64)> {
        let is_new = !path.exists();
        let mut file = File::options().create(true).read(true).append(true).open(path)?;
        if is_new && let Some(folder) = path.parent() {
            // The name is to be there after a power cut, too.
            atomic::sync(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })?;
        }
        let there = file.metadata()?.len();
        let whole = whole(&mut file, there)?;
        if whole < there {
            file.set_len(whole)?;
            file.sync_data()?;
        }
        Ok((Self { path: path.to_owned(), file, whole }, there - whole))
    }

    /// Appends a line; it is on disk when this returns. A line that could not be written whole is cut off again.
    ///
    /// # Errors
    /// Those of the file system, with the path.
    pub fn append<T: Serialize>(&mut self, value: &T) -> Result<()> {
        let mut line = serde_json::to_vec(value).expect("lines are plain values");
        line.push(b'\n');
        let written = self.file.write_all(&line).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // Best effort: what stays is half a line, which the next opening cuts off.
            let _ = self.file.set_len(self.whole);
            return Err(error).with_context(|| format!("cannot write {}", self.path.display()));
        }
        self.whole += line.len() as u64;
        Ok(())
    }
}

/// Where the last whole line of a file of so many bytes ends.
fn whole(file: &mut File, bytes: u64) -> io::Result<u64> {
    let mut end = bytes;
    let mut block = Vec::new();
    while end > 0 {
        let from = end.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(from))?;
        block.clear();
        Read::by_ref(file).take(end - from).read_to_end(&mut block)?;
        if let Some(at) = block.iter().rposition(|byte| *byte == b'\n') {
            return Ok(from + at as u64 + 1);
        }
        end = from;
    }
    Ok(0)
}

/// Hands on the values of a journal in their order, each of at most `limit` bytes; none where there is no such file. A last line that
/// nothing ends is none yet: whoever writes it is at it, or was killed.
///
/// # Errors
/// The file cannot be read; [`BadInput`] that names a line which is no such value: no crash can have made it.
pub fn read<T: DeserializeOwned>(path: &Path, limit: usize, mut take: impl FnMut(T)) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let cannot = || format!("cannot read {}", path.display());
    let mut lines = Lines::open(path, limit).with_context(cannot)?;
    while let Some(line) = lines.next_line().with_context(cannot)?.filter(|line| line.whole) {
        let number = line.number;
        let damaged = |why: String| {
            BadInput::new(format!("{}, line {number}, is damaged: {why}; take that line out to go on without it", path.display()))
        };
        let bytes = line.bytes.ok_or_else(|| damaged(format!("it is longer than {limit} bytes")))?;
        take(serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(path: &Path) -> Vec<u32> {
        let mut values = vec![];
        read(path, 100, |value| values.push(value)).expect("sound");
        values
    }

    #[test]
    fn a_line_that_was_cut_short_is_cut_off_and_the_next_is_whole() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("lines.jsonl");
        assert_eq!(all(&path), [0; 0]);
        let (mut journal, cut) = Journal::open(&path).expect("made");
        (1..=3).for_each(|value| journal.append(&value).expect("written"));
        drop(journal);
        assert_eq!((cut, all(&path)), (0, vec![1, 2, 3]));
        for (torn, bytes) in [("4", 1), ("{\"half", 6), ("\0\0\0", 3)] {
            std::fs::OpenOptions::new().append(true).open(&path).expect("opens").write_all(torn.as_bytes()).expect("written");
            assert_eq!(all(&path), [1, 2, 3], "{torn:?} is no line yet, for who reads while somebody writes");
            let (_, cut) = Journal::open(&path).expect("opens");
            assert_eq!((cut, all(&path)), (bytes, vec![1, 2, 3]), "{torn:?}");
        }
        let (mut journal, cut) = Journal::open(&path).expect("opens");
        journal.append(&4).expect("written");
        assert_eq!((cut, all(&path)), (0, vec![1, 2, 3, 4]));
    }

    #[test]
    fn a_torn_line_may_be_longer_than_what_is_read_at_once() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("lines.jsonl");
        let torn = "x".repeat(3 * BLOCK as usize);
        std::fs::write(&path, format!("1\n{torn}")).expect("written");
        assert_eq!(Journal::open(&path).expect("opens").1, torn.len() as u64);
        assert_eq!(all(&path), [1]);
        std::fs::write(&path, &torn).expect("written");
        assert_eq!(Journal::open(&path).expect("opens").1, torn.len() as u64);
        assert_eq!(std::fs::metadata(&path).expect("there").len(), 0);
    }

    #[test]
    fn a_line_that_no_crash_can_have_made_is_refused_by_its_number() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("lines.jsonl");
        std::fs::write(&path, "1\nx\n3\n").expect("written");
        let error = read::<u32>(&path, 100, |_| ()).expect_err("damaged");
        assert!(error.is::<BadInput>() && error.to_string().contains("lines.jsonl, line 2, is damaged"), "{error}");
        assert!(error.to_string().contains("take that line out"), "{error}");
        std::fs::write(&path, "1\n123456\n").expect("written");
        let error = read::<u32>(&path, 5, |_| ()).expect_err("too long").to_string();
        assert!(error.contains("line 2, is damaged: it is longer than 5 bytes"), "{error}");
    }

    #[test]
    fn a_file_that_cannot_be_written_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let error = Journal::open(&folder.path().join("none/lines.jsonl")).expect_err("no folder").to_string();
        assert!(error.contains("none/lines.jsonl"), "{error}");
        let error = Journal::open(folder.path()).expect_err("a folder");
        assert!(error.to_string().contains("cannot open"), "{error}");
    }
}
