//! A file of lines, each on disk before whoever wrote it goes on. In: values. Out: the same, after a kill too, and where each lies.
//!
//! A line that a kill cut short is cut off: it was not done with. A line that is whole and cannot be read is somebody's doing and is
//! refused by its number. Nobody else opens the file meanwhile.

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use hypereyes_outside::{atomic, jsonl};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::SynthError;

/// Longest line that is read: a trajectory of 38,000 tokens has about 2 MB.
const MAX_LINE: usize = 32 << 20;

/// The file.
#[derive(Debug)]
pub struct Durable {
    path: PathBuf,
    file: File,
    /// Bytes so far.
    end: u64,
}

/// Where a line lies.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    at: u64,
    bytes: usize,
}

impl Durable {
    /// Opens a file of a folder; one that is not there is made. `each` is shown what it holds, in order.
    ///
    /// # Errors
    /// Those of the file system, another process that has it, and a line that cannot be read, by its number.
    pub fn open<T: DeserializeOwned>(folder: &Path, name: &str, mut each: impl FnMut(T, Place)) -> Result<Self, SynthError> {
        let path = folder.join(name);
        let fault = |reason: String| SynthError::File { path: path.clone(), reason };
        let opened = || -> io::Result<File> {
            let file = File::options().create(true).read(true).append(true).open(&path)?;
            atomic::sync(folder)?;
            Ok(file)
        };
        let file = opened().map_err(|error| fault(error.to_string()))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(fault("another process writes it: wait until that is done".into())),
            Err(TryLockError::Error(error)) => return Err(fault(error.to_string())),
            Ok(()) => {}
        }
        let mut end = 0;
        let mut lines = jsonl::Lines::open(&path, MAX_LINE).map_err(|error| fault(error.to_string()))?;
        while let Some(read) = lines.next_line().map_err(|error| fault(error.to_string()))? {
            if !read.whole {
                break;
            }
            let bytes = read.bytes.ok_or_else(|| fault(format!("line {} is longer than {MAX_LINE} bytes", read.number)))?;
            let value = serde_json::from_slice(bytes).map_err(|error| fault(format!("line {}: {error}", read.number)))?;
            each(value, Place { at: end, bytes: bytes.len() });
            end += bytes.len() as u64 + 1;
        }
        file.set_len(end).map_err(|error| fault(error.to_string()))?;
        Ok(Self { path, file, end })
    }

    /// Appends a line; it is on disk when this returns.
    ///
    /// # Errors
    /// Those of the file system, and a line that is too long to be read again. What was written of it is cut off again.
    pub fn append(&mut self, value: &impl Serialize) -> Result<Place, SynthError> {
        let mut text = serde_json::to_vec(value).expect("lines are plain values");
        if text.len() > MAX_LINE {
            return Err(self.fault(&format!("a line has {} bytes, and {MAX_LINE} are read", text.len())));
        }
        let place = Place { at: self.end, bytes: text.len() };
        text.push(b'\n');
        let written = self.file.write_all(&text).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // Best effort: what stays is half a line, which the next opening cuts off.
            let _ = self.file.set_len(self.end);
            return Err(self.fault(&error));
        }
        self.end += text.len() as u64;
        Ok(place)
    }

    /// Reads a line again.
    ///
    /// # Errors
    /// Those of the file system, and a file that somebody has changed meanwhile.
    pub fn read<T: DeserializeOwned>(&self, place: Place) -> Result<T, SynthError> {
        let mut bytes = vec![0; place.bytes];
        self.file.read_exact_at(&mut bytes, place.at).map_err(|error| self.fault(&error))?;
        serde_json::from_slice(&bytes).map_err(|error| self.fault(&error))
    }

    fn fault(&self, error: &dyn std::fmt::Display) -> SynthError {
        SynthError::File { path: self.path.clone(), reason: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(folder: &Path) -> Result<(Durable, Vec<(u32, Place)>), SynthError> {
        let mut held = vec![];
        let durable = Durable::open(folder, "lines.jsonl", |value, place| held.push((value, place)))?;
        Ok((durable, held))
    }

    #[test]
    fn a_cut_line_is_cut_off_and_a_wrong_one_is_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("lines.jsonl");
        let (mut durable, held) = open(folder.path()).expect("made");
        assert!(held.is_empty());
        for value in 1000..1003 {
            durable.append(&value).expect("appended");
        }
        let error = durable.append(&"x".repeat(MAX_LINE)).expect_err("nobody could open it again").to_string();
        assert!(error.contains("are read"), "{error}");
        let error = open(folder.path()).expect_err("it is held").to_string();
        assert!(error.contains("lines.jsonl: another process"), "{error}");
        drop(durable);
        let whole = std::fs::read(&path).expect("there");
        for cut in 1..=5 {
            std::fs::write(&path, &whole[..whole.len() - cut]).expect("written");
            let (mut durable, held) = open(folder.path()).expect("opens");
            assert_eq!(held.iter().map(|(value, _)| *value).collect::<Vec<_>>(), [1000, 1001]);
            let place = durable.append(&1002).expect("appended");
            assert_eq!((durable.read::<u32>(place).expect("there"), durable.read::<u32>(held[1].1).expect("there")), (1002, 1001));
            drop(durable);
            assert_eq!(std::fs::read(&path).expect("there"), whole, "as if nobody had been killed");
        }
        std::fs::write(&path, "1\nx\n3\n").expect("written");
        let error = open(folder.path()).expect_err("somebody's doing").to_string();
        assert!(error.contains("line 2"), "{error}");
    }
}
