//! What is read: files, parts of files (`file@[a:b]`) and folders of files. In: what somebody named. Out: files in order, with the rows
//! that are wanted of each and what their rows are called. Nothing is opened.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::TASKS;
use crate::error::{DataError, file};

/// Endings of the files that are read in folders.
const ENDINGS: [&str; 9] = [".parquet", ".pq", ".arrow", ".feather", ".jsonl", ".ndjson", ".json", ".jsonl.gz", ".ndjson.gz"];
/// How deep folders are looked through.
const MOST_DEPTH: usize = 16;
/// Files that are read at most.
const MOST_FILES: usize = 100_000;

/// What somebody named: a file or a folder, and which rows of each file are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Where.
    pub path: PathBuf,
    /// The first row that is wanted, from 0.
    pub from: u64,
    /// The first that is not, where there is one.
    pub to: Option<u64>,
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let whole = || Ok(Self { path: text.into(), from: 0, to: None });
        // A file may be called so.
        let Some((path, part)) = text.rsplit_once("@[").filter(|_| !Path::new(text).exists()) else { return whole() };
        let Some((from, to)) = part.strip_suffix(']').and_then(|part| part.split_once(':')) else { return whole() };
        let number = |text: &str| match text.trim() {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| format!("@[{part} are no rows: say @[a:b] with numbers from 0, b is not read")),
        };
        let (from, to): (Option<u64>, Option<u64>) = (number(from)?, number(to)?);
        let from = from.unwrap_or(0);
        if to.is_some_and(|to| to <= from) {
            return Err(format!("@[{part} has no row: say @[a:b] with b behind a"));
        }
        Ok(Self { path: path.into(), from, to })
    }
}

/// A file to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Input {
    pub path: PathBuf,
    pub from: u64,
    pub to: Option<u64>,
    /// Its name without what says its kind.
    pub stem: String,
    /// What its rows are called after: the same, or its path where other files are called so.
    pub label: String,
}

/// The files, in the order in which they were named, those of a folder by their names.
pub(super) fn inputs(sources: &[Source]) -> Result<Vec<Input>, DataError> {
    let mut found = Vec::new();
    for source in sources {
        let mut paths = Vec::new();
        if source.path.is_dir() {
            gather(&source.path, 0, &mut paths)?;
            if paths.is_empty() {
                let reason = format!("there is no file to read in it: {}", ENDINGS.join(", "));
                return Err(DataError::File { path: source.path.clone(), reason });
            }
        } else {
            paths.push(source.path.clone());
        }
        found.extend(paths.into_iter().map(|path| (path, source)));
    }
    let mut stems: HashMap<String, usize> = HashMap::new();
    for (path, _) in &found {
        *stems.entry(stem(path)).or_default() += 1;
    }
    let input = |(path, source): (PathBuf, &Source)| {
        let stem = stem(&path);
        let label = if stems.get(&stem) == Some(&1) { stem.clone() } else { path.display().to_string() };
        Input { path, from: source.from, to: source.to, stem, label }
    };
    Ok(found.into_iter().map(input).collect())
}

/// A file's name without what says its kind.
fn stem(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let ending = ENDINGS.iter().rev().find(|ending| name.to_lowercase().ends_with(**ending));
    let stem = ending.map_or(name.as_str(), |ending| &name[..name.len() - ending.len()]);
    if stem.is_empty() { name } else { stem.to_owned() }
}

fn gather(folder: &Path, depth: usize, into: &mut Vec<PathBuf>) -> Result<(), DataError> {
    let refused = |reason: String| DataError::File { path: folder.to_owned(), reason };
    if depth > MOST_DEPTH {
        return Err(refused(format!("lies more than {MOST_DEPTH} folders deep")));
    }
    // What else a task set has beside its tasks is no rows.
    let set = folder.join(TASKS);
    if set.is_file() {
        into.push(set);
        return Ok(());
    }
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| file(folder, &error))? {
        let entry = entry.map_err(|error| file(folder, &error))?;
        // Links are not followed to folders: they may lead in a circle.
        entries.push((entry.path(), entry.file_type().map_err(|error| file(folder, &error))?.is_dir()));
    }
    entries.sort();
    for (path, is_folder) in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        if name.starts_with('.') {
            continue;
        }
        if is_folder {
            gather(&path, depth + 1, into)?;
        } else if ENDINGS.iter().any(|ending| name.ends_with(ending)) {
            into.push(path);
        }
        if into.len() > MOST_FILES {
            return Err(refused(format!("holds more than {MOST_FILES} files")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_files_are_named_as_slime_names_them() {
        let of = |text: &str| text.parse::<Source>().map(|source| (source.path.display().to_string(), source.from, source.to));
        assert_eq!(of("a/train.parquet"), Ok(("a/train.parquet".into(), 0, None)));
        assert_eq!(of("train.parquet@[10:20]"), Ok(("train.parquet".into(), 10, Some(20))));
        assert_eq!(of("train.parquet@[:5]"), Ok(("train.parquet".into(), 0, Some(5))));
        assert_eq!(of("train.parquet@[5:]"), Ok(("train.parquet".into(), 5, None)));
        assert_eq!(of("odd@[name"), Ok(("odd@[name".into(), 0, None)));
        assert!(of("train.parquet@[-5:]").is_err_and(|why| why.contains("from 0")));
        for none in ["train.parquet@[20:10]", "train.parquet@[7:7]", "train.parquet@[:0]"] {
            assert!(of(none).is_err_and(|why| why.contains("has no row")), "{none}");
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let odd = folder.path().join("rows@[0:1]");
        std::fs::write(&odd, "").expect("written");
        assert_eq!(of(odd.to_str().expect("text")), Ok((odd.display().to_string(), 0, None)), "a file that is called so");
    }

    #[test]
    fn folders_are_their_files_and_rows_are_called_after_what_tells_files_apart() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in ["b/train.parquet", "a/train.parquet", "test.jsonl.gz", "README.md", ".hidden.jsonl"] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("has one")).expect("made");
            std::fs::write(path, "").expect("written");
        }
        let sources = [Source { path: folder.path().to_owned(), from: 0, to: Some(3) }];
        let found = inputs(&sources).expect("files");
        let within = |name: &str| folder.path().join(name);
        let want = ["a/train.parquet", "b/train.parquet", "test.jsonl.gz"].map(within);
        assert_eq!(found.iter().map(|input| input.path.clone()).collect::<Vec<_>>(), want);
        assert_eq!(
            found.iter().map(|input| input.label.clone()).collect::<Vec<_>>(),
            [want[0].display().to_string(), want[1].display().to_string(), "test".into()]
        );
        assert!(found.iter().all(|input| input.to == Some(3)));
        // A set is its tasks, wherever it lies.
        for name in [TASKS, "about.json", "refused.jsonl"] {
            std::fs::write(within("a").join(name), "").expect("written");
        }
        let paths: Vec<PathBuf> = inputs(&sources).expect("files").into_iter().map(|input| input.path).collect();
        assert_eq!(paths, ["a/tasks.jsonl", "b/train.parquet", "test.jsonl.gz"].map(within));
        std::fs::write(within(TASKS), "").expect("written");
        assert_eq!(inputs(&sources).expect("a set").len(), 1);
        let empty = Source { path: within("none"), from: 0, to: None };
        std::fs::create_dir(&empty.path).expect("made");
        assert!(inputs(&[empty]).is_err_and(|error| error.to_string().contains("no file to read")));
    }
}
