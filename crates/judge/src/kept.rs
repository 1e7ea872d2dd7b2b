//! What a model said, kept in a file from run to run. In: a path, votes by the hash of all that they depend on. Out: the votes of before.
//!
//! A line of JSON per vote, behind those that are there, in one write: any number of processes may write to one file, and one that is
//! killed leaves at most half a line behind, which is ended and not cut off: another may be writing. What is no such line is passed over
//! and counted. Whoever reads the file sees what was in it then. Nothing is taken out of it; its end alone is read. It knows no prompt and
//! no server.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use hypereyes_outside::jsonl::Lines;
use hypereyes_scoring::Verdict;
use metrics::counter;
use serde::{Deserialize, Serialize};

use crate::metrics::JUDGE_CACHE_ERRORS;

/// Longer than any line that is written.
const MOST_LINE_BYTES: usize = 128;

/// A line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    vote: String,
    verdict: Verdict,
}

/// The file.
#[derive(Debug)]
pub struct Kept(Mutex<File>);

impl Kept {
    /// Opens a file, or makes it, and reads the newest votes in it, oldest first: `most` at most, or few more.
    ///
    /// # Errors
    /// When it can be neither read nor written.
    pub fn open(path: &Path, most: usize) -> io::Result<(Self, Vec<(blake3::Hash, Verdict)>)> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let length = file.seek(SeekFrom::End(0))?;
        let from = length.saturating_sub(MOST_LINE_BYTES.saturating_mul(most) as u64);
        // The byte before tells whether a line begins there.
        let before = from.saturating_sub(1);
        file.seek(SeekFrom::Start(before))?;
        // What others write meanwhile is theirs, and a device without an end has no length.
        let mut lines = Lines::new(Read::take(&file, length - before), MOST_LINE_BYTES);
        if from > 0 {
            lines.next_line()?;
        }
        let (mut found, mut damaged, mut ends_a_line) = (vec![], 0_u64, true);
        while let Some(line) = lines.next_line()? {
            ends_a_line = line.whole;
            match line.bytes {
                // Two processes ended the same half of a line.
                Some([]) => {}
                bytes => match bytes.and_then(read) {
                    Some(vote) => found.push(vote),
                    None => damaged += 1,
                },
            }
        }
        if damaged > 0 {
            counter!(JUDGE_CACHE_ERRORS, "reason" => "damaged").increment(damaged);
            tracing::warn!(path = %path.display(), damaged, "verdicts that are kept cannot be read, and are asked for again");
        }
        if !ends_a_line {
            file.write_all(b"\n")?;
        }
        Ok((Self(Mutex::new(file)), found))
    }

    /// Keeps a vote. One that cannot be kept is counted, and asked for again another time.
    pub fn add(&self, key: blake3::Hash, verdict: Verdict) {
        let line = Line { vote: key.to_hex().to_string(), verdict };
        let mut text = serde_json::to_vec(&line).expect("a text and a name are JSON");
        text.push(b'\n');
        // The worst that a panic leaves is half a line.
        let written = self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(&text);
        if let Err(error) = written {
            counter!(JUDGE_CACHE_ERRORS, "reason" => "write").increment(1);
            tracing::warn!(%error, "a verdict is not kept");
        }
    }
}

fn read(line: &[u8]) -> Option<(blake3::Hash, Verdict)> {
    let line: Line = serde_json::from_slice(line).ok()?;
    Some((blake3::Hash::from_hex(line.vote).ok()?, line.verdict))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    use super::*;

    fn key(number: u32) -> blake3::Hash {
        blake3::hash(&number.to_le_bytes())
    }

    fn opened(path: &Path, most: usize) -> Vec<(blake3::Hash, Verdict)> {
        Kept::open(path, most).expect("it can be read").1
    }

    #[test]
    fn what_was_kept_is_there_again_and_damage_costs_its_own_lines() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("verdicts.jsonl");
        let (kept, none) = Kept::open(&path, 100).expect("it can be made");
        assert_eq!(none, []);
        // Two processes at once.
        let (other, _) = Kept::open(&path, 100).expect("it is there");
        kept.add(key(1), Verdict::Correct);
        other.add(key(2), Verdict::Wrong);
        kept.add(key(3), Verdict::NotAttempted);
        let all = vec![(key(1), Verdict::Correct), (key(2), Verdict::Wrong), (key(3), Verdict::NotAttempted)];
        assert_eq!(opened(&path, 100), all);
        assert_eq!(opened(&path, 1), all[2..], "the newest");
        // Killed within a line; then a text that is none, and one that is long.
        let mut file = OpenOptions::new().append(true).open(&path).expect("it is there");
        file.write_all(b"{\"vote\":\"00").expect("written");
        let (kept, before) = Kept::open(&path, 100).expect("it can be read");
        assert_eq!(before, all);
        kept.add(key(4), Verdict::Wrong);
        file.write_all(&[b"\n{}\n".as_slice(), &[b'x'; 1000], b"\n"].concat()).expect("written");
        kept.add(key(5), Verdict::Correct);
        let more = [all, vec![(key(4), Verdict::Wrong), (key(5), Verdict::Correct)]].concat();
        assert_eq!(opened(&path, 100), more);
    }

    #[test]
    fn what_cannot_be_read_or_written_is_counted_and_a_device_without_an_end_is_not_read() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("verdicts.jsonl");
        std::fs::write(&path, format!("{{}}\n\n{}\n", "x".repeat(1000))).expect("written");
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        metrics::with_local_recorder(&recorder, || {
            assert_eq!(opened(&path, 100), []);
            // Zeros to whoever reads, and no room for whoever writes.
            let (full, none) = Kept::open(Path::new("/dev/full"), 100).expect("a device");
            full.add(key(1), Verdict::Correct);
            assert_eq!(none, []);
        });
        let counts = snapshotter.snapshot().into_vec().into_iter().filter_map(|(key, _, _, value)| match value {
            DebugValue::Counter(count) => Some((key.key().labels().next()?.value().to_owned(), count)),
            _ => None,
        });
        let counts: BTreeMap<String, u64> = counts.collect();
        assert_eq!(counts, BTreeMap::from([("damaged".to_owned(), 2), ("write".to_owned(), 1)]));
    }

    #[test]
    fn every_line_is_shorter_than_is_read() {
        for verdict in [Verdict::Correct, Verdict::Wrong, Verdict::NotAttempted] {
            let line = serde_json::to_vec(&Line { vote: key(0).to_hex().to_string(), verdict }).expect("JSON");
            assert!(line.len() < MOST_LINE_BYTES);
        }
    }

    #[test]
    fn what_is_no_file_is_an_error() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert!(Kept::open(folder.path(), 1).is_err());
        assert!(Kept::open(&folder.path().join("no/such"), 1).is_err());
    }
}
