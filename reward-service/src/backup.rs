//! Copies of the committed references beside the store, one file per epoch, for the day on which the store is damaged.
//!
//! In: references. Out: JSON lines, the first of which says the epoch, how many follow and their digest. The same format
//! is what `restore_from` reads, and what other tools may write.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use hypereyes_chassis::{BadInput, atomic};
use hypereyes_domain::{Reference, TaskId};
use hypereyes_proto::limits::MAX_EPOCH;
use metrics::counter;
use serde::{Deserialize, Serialize};

use crate::metrics as names;

/// Longest file that is read; ten million references are below it.
const MAX_BYTES: u64 = 2 << 30;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    epoch: u64,
    references: usize,
    /// BLAKE3 of the lines that follow, 64 hex digits.
    digest: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    task: TaskId,
    rounds: u32,
    searches: u32,
}

fn folder(store: &Path) -> PathBuf {
    store.join("backups")
}

/// Writes the references of an epoch in one step, and removes all but the newest `keep` files.
pub fn write(store: &Path, epoch: u64, references: &BTreeMap<TaskId, Reference>, keep: usize) -> std::io::Result<()> {
    let mut lines = Vec::new();
    for (task, reference) in references {
        let line = Line { task: task.clone(), rounds: reference.rounds, searches: reference.searches };
        serde_json::to_writer(&mut lines, &line)?;
        lines.push(b'\n');
    }
    let header = Header { epoch, references: references.len(), digest: blake3::hash(&lines).to_hex().to_string() };
    let mut text = serde_json::to_vec(&header)?;
    text.push(b'\n');
    text.extend(lines);
    let folder = folder(store);
    fs::create_dir_all(&folder)?;
    atomic::write(&folder.join(format!("references-{epoch:08}.jsonl")), &text)?;
    let old = all(store);
    for path in old.iter().rev().skip(keep.max(1)) {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// The backups of a store, oldest first.
fn all(store: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder(store)).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "jsonl")).collect();
    found.sort();
    found
}

/// Epoch and references of a file.
///
/// # Errors
/// [`BadInput`], which names the file and what is wrong with it.
pub fn read(path: &Path) -> Result<(u64, BTreeMap<TaskId, Reference>), BadInput> {
    let bad = |reason: String| BadInput::new(format!("{}: {reason}", path.display()));
    let text = hypereyes_outside::files::read(path, MAX_BYTES).map_err(|error| bad(error.to_string()))?;
    let end = text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len());
    let header: Header = serde_json::from_slice(&text[..end]).map_err(|error| bad(format!("line 1 is no header: {error}")))?;
    let lines = text.get(end + 1..).unwrap_or_default();
    if blake3::hash(lines).to_hex().as_str() != header.digest {
        return Err(bad("its lines do not have the digest that its header gives".into()));
    }
    let (mut references, mut impossible) = (BTreeMap::new(), 0);
    for (at, line) in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).enumerate() {
        let line: Line = serde_json::from_slice(line).map_err(|error| bad(format!("line {}: {error}", at + 2)))?;
        let reference = Reference { rounds: line.rounds, searches: line.searches };
        // Earlier versions took a success without a search for a reference.
        match reference.is_possible() {
            true => drop(references.insert(line.task, reference)),
            false => impossible += 1,
        }
    }
    if header.epoch > MAX_EPOCH {
        return Err(bad(format!("epoch {} is none; at most {MAX_EPOCH} is taken", header.epoch)));
    }
    let found = references.len() + impossible;
    if found != header.references {
        return Err(bad(format!("it has {found} references; its header says {}", header.references)));
    }
    if impossible > 0 {
        counter!(names::IMPOSSIBLE, "from" => "backup").increment(impossible as u64);
        tracing::warn!(references = impossible, file = %path.display(), "references that nobody can have reached are left out");
    }
    Ok((header.epoch, references))
}

/// How to go on after the database at `path` was found damaged.
pub fn advice(path: &Path) -> String {
    let store = path.parent().unwrap_or(path);
    match all(store).into_iter().rev().find_map(|backup| Some((read(&backup).ok()?.0, backup))) {
        Some((epoch, backup)) => {
            format!("move it away and start again with restore_from = \"{}\", the references of epoch {epoch}", backup.display())
        }
        None => "there is no sound backup beside it: move it away and import references again".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_without_a_search_is_left_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let of = |rounds, searches| Reference { rounds, searches };
        let references = [("honest", of(2, 4)), ("nothing", of(1, 0))].map(|(task, reference)| (TaskId::from(task), reference));
        write(folder.path(), 1, &references.into(), 1).expect("written");
        let (epoch, read) = read(&all(folder.path())[0]).expect("sound");
        assert_eq!((epoch, read), (1, [("honest".into(), of(2, 4))].into()));
    }

    #[test]
    fn what_is_written_is_read_damage_is_named_and_old_files_go() {
        let folder = tempfile::tempdir().expect("a folder");
        let references: BTreeMap<TaskId, Reference> =
            (1..5).map(|at| (TaskId::new(format!("t{at}")), Reference { rounds: at, searches: 2 * at })).collect();
        for epoch in 1..6 {
            write(folder.path(), epoch, &references, 2).expect("written");
        }
        let kept = all(folder.path());
        assert_eq!(kept.len(), 2);
        assert_eq!(read(&kept[1]).expect("sound"), (5, references));
        assert!(advice(&folder.path().join("references.redb")).contains("references-00000005.jsonl"));
        let mut text = fs::read(&kept[1]).expect("there");
        let end = text.len() - 4;
        text[end] ^= 1;
        fs::write(&kept[1], &text).expect("written");
        assert!(read(&kept[1]).expect_err("a flipped bit").to_string().contains("digest"));
        assert!(advice(&folder.path().join("references.redb")).contains("references-00000004.jsonl"));
        fs::write(&kept[1], &text[..20]).expect("written");
        assert!(read(&kept[1]).expect_err("half a header").to_string().contains("line 1"));
    }
}
