//! An index as a folder: `index.json` says what is in it, and seals it.
//!
//! In: a folder that was filled, or one that somebody names. Out: the folder in its place, whole; or what it holds, once every byte of it
//! was looked at. Knows no text and no picture.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use hypereyes_outside::{atomic, files};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::Error;

/// What is in it.
const MANIFEST: &str = "index.json";
/// Which format this is; raised when an older program would misread it.
const FORMAT: u32 = 2;
/// How the names of folders end that are being filled.
const BUILDING: &str = ".building";
/// The file in such a folder that is locked as long as somebody fills it.
const HELD: &str = "building.lock";
/// Bytes of `index.json`, at most.
const MOST_MANIFEST: u64 = 16 << 20;

/// What an index holds.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    pub format: u32,
    /// BLAKE3 of everything that answers follow from: documents, pictures, the tower.
    pub digest: String,
    /// Documents.
    pub documents: u64,
    /// Pictures, and how they were seen.
    pub pictures: Option<Seen>,
    /// What was not taken, by reason.
    pub refused: BTreeMap<String, u64>,
    pub files: Vec<Entry>,
}

/// Pictures of an index.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Seen {
    pub count: u64,
    /// Numbers in a vector.
    pub width: usize,
    /// [`crate::Sight::digest`].
    pub tower: String,
}

/// One file of an index.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    /// Below the folder, with `/`.
    pub name: String,
    pub bytes: u64,
    pub blake3: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    index: Manifest,
    /// BLAKE3 of `index`.
    seal: String,
}

fn seal(manifest: &Manifest) -> String {
    blake3::hash(&serde_json::to_vec(manifest).expect("plain values")).to_hex().to_string()
}

/// A folder that is being filled, beside the place that it will have. It is gone again where it is not [finished](Draft::finish).
pub(crate) struct Draft {
    folder: TempDir,
    out: PathBuf,
    /// [`HELD`], locked.
    _held: File,
}

impl Draft {
    /// For an index at `out`, where nothing or an empty folder is that can be replaced. Drafts that nobody fills any more, such as those
    /// of processes that were killed, are removed.
    pub fn begin(out: &Path) -> Result<Self, Error> {
        let name = out.file_name().ok_or_else(|| Error::Input(format!("{} names no folder", out.display())))?;
        let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if let Ok(there) = std::fs::symlink_metadata(out) {
            if there.is_symlink() {
                return Err(Error::Input(format!("{} is a link, which no folder can replace: name a folder", out.display())));
            }
            let around = std::fs::metadata(parent).map_err(|error| Error::io(parent, error))?;
            if there.dev() != around.dev() {
                let why = "something is mounted there, which no folder can replace: name a folder in it";
                return Err(Error::Input(format!("{}: {why}", out.display())));
            }
        }
        match std::fs::read_dir(out) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Err(Error::Input(format!("{} is there already, and not empty: name another, or remove it", out.display())));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(out, error)),
        }
        std::fs::create_dir_all(parent).map_err(|error| Error::io(parent, error))?;
        let mut prefix = OsString::from(".");
        prefix.push(name);
        prefix.push(".");
        sweep(parent, &prefix);
        // As any new folder: the process's mask decides.
        let permissions = Permissions::from_mode(0o777);
        let folder = tempfile::Builder::new().prefix(&prefix).suffix(BUILDING).permissions(permissions).tempdir_in(parent);
        let folder = folder.map_err(|error| Error::io(parent, error))?;
        let path = folder.path().join(HELD);
        let held = File::create(&path).map_err(|error| Error::io(&path, error))?;
        // Where a disk knows no locks, nobody removes what is locked by none.
        let _ = held.try_lock();
        Ok(Self { folder, out: out.to_owned(), _held: held })
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Seals what was put in, and puts it in its place: on disk, or not there.
    pub fn finish(self, fill: impl FnOnce(Vec<Entry>) -> Manifest) -> Result<Manifest, Error> {
        let folder = self.folder.path();
        let mut names = vec![];
        list(folder, "", &mut names)?;
        names.sort_unstable();
        let entry = |name: &String| {
            let path = folder.join(name);
            let entry = File::open(&path).and_then(|file| {
                file.sync_all()?;
                let (bytes, blake3) = hashed(file)?;
                Ok(Entry { name: name.clone(), bytes, blake3 })
            });
            entry.map_err(|error| Error::io(&path, error))
        };
        let manifest = fill(names.par_iter().map(entry).collect::<Result<_, _>>()?);
        let sealed = Sealed { seal: seal(&manifest), index: manifest };
        let text = serde_json::to_vec_pretty(&sealed).expect("plain values");
        let put = |folder: &Path| {
            atomic::write(&folder.join(MANIFEST), &text)?;
            for inner in names.iter().filter_map(|name| Path::new(name).parent()).filter(|inner| !inner.as_os_str().is_empty()) {
                atomic::sync(&folder.join(inner))?;
            }
            atomic::sync(folder)?;
            std::fs::rename(folder, &self.out)
        };
        put(folder).map_err(|error| Error::io(&self.out, error))?;
        // It has another name now: nothing is left to remove but this, which would do no harm.
        let _ = self.folder.keep();
        let _ = std::fs::remove_file(self.out.join(HELD));
        let parent = self.out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        atomic::sync(parent).map_err(|error| Error::io(parent, error))?;
        Ok(sealed.index)
    }
}

/// Removes drafts of names that begin like this and that nobody fills. One in which nothing can be locked is left alone: it is just being
/// begun, or nobody's draft.
fn sweep(parent: &Path, prefix: &OsStr) {
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_draft = name.as_bytes().starts_with(prefix.as_bytes()) && name.as_bytes().ends_with(BUILDING.as_bytes());
        if !is_draft || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let Ok(held) = files::open(&entry.path().join(HELD), u64::MAX) else { continue };
        if held.try_lock().is_ok() {
            // What cannot be removed now is in nobody's way.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// What an index holds, after each of its files was read once and found to be as it was written.
pub(crate) fn check(folder: &Path) -> Result<Manifest, Error> {
    let path = folder.join(MANIFEST);
    let text = match files::read(&path, MOST_MANIFEST) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::Input(format!("{} holds no index: there is no {MANIFEST}", folder.display())));
        }
        Err(error) => return Err(Error::io(&path, error)),
    };
    let damaged = |why: String| Error::damaged(folder, why);
    #[derive(Deserialize)]
    struct Any {
        index: AnyFormat,
    }
    #[derive(Deserialize)]
    struct AnyFormat {
        format: u32,
    }
    let Any { index: AnyFormat { format } } = serde_json::from_slice(&text).map_err(|error| damaged(format!("{MANIFEST}: {error}")))?;
    if format != FORMAT {
        return Err(damaged(format!("it has format {format}, and this program reads {FORMAT}")));
    }
    let sealed: Sealed = serde_json::from_slice(&text).map_err(|error| damaged(format!("{MANIFEST}: {error}")))?;
    if seal(&sealed.index) != sealed.seal {
        return Err(damaged(format!("{MANIFEST} does not say what was sealed")));
    }
    let manifest = sealed.index;
    manifest.files.par_iter().try_for_each(|entry| {
        let name = Path::new(&entry.name);
        if !name.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(damaged(format!("{MANIFEST} names {:?}, which is no file of it", entry.name)));
        }
        let found =
            files::open(&folder.join(name), u64::MAX).and_then(hashed).map_err(|error| damaged(format!("{}: {error}", entry.name)))?;
        if found != (entry.bytes, entry.blake3.clone()) {
            return Err(damaged(format!("{} is not what was written", entry.name)));
        }
        Ok(())
    })?;
    Ok(manifest)
}

/// An index of this format.
pub(crate) fn manifest(
    digest: String,
    documents: u64,
    pictures: Option<Seen>,
    refused: BTreeMap<String, u64>,
    files: Vec<Entry>,
) -> Manifest {
    Manifest { format: FORMAT, digest, documents, pictures, refused, files }
}

fn hashed(file: File) -> io::Result<(u64, String)> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file)?;
    Ok((hasher.count(), hasher.finalize().to_hex().to_string()))
}

/// Names of all files below a folder. Locks and the like begin with a dot: nothing of them is searched.
fn list(root: &Path, below: &str, names: &mut Vec<String>) -> Result<(), Error> {
    let folder = root.join(below);
    for entry in std::fs::read_dir(&folder).map_err(|error| Error::io(&folder, error))? {
        let entry = entry.map_err(|error| Error::io(&folder, error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
        if entry.path().is_dir() {
            list(root, &path, names)?;
        } else if !name.ends_with(".lock") {
            names.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_outside_of_an_index_is_none_of_it_whatever_the_seal_says() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let (outside, folder) = (parent.path().join("rows.jsonl"), parent.path().join("index"));
        std::fs::write(&outside, "rows").expect("written");
        std::fs::create_dir(&folder).expect("made");
        std::fs::write(folder.join("rows.jsonl"), "rows").expect("written");
        let (bytes, blake3) = hashed(File::open(&outside).expect("opens")).expect("reads");
        let resealed = |name: &str| {
            let entry = Entry { name: name.to_owned(), bytes, blake3: blake3.clone() };
            let index = manifest("digest".into(), 1, None, BTreeMap::new(), vec![entry]);
            let sealed = Sealed { seal: seal(&index), index };
            std::fs::write(folder.join(MANIFEST), serde_json::to_vec(&sealed).expect("plain values")).expect("written");
            check(&folder)
        };
        assert!(resealed("rows.jsonl").is_ok());
        for name in ["../rows.jsonl", "./rows.jsonl", outside.to_str().expect("UTF-8")] {
            let error = resealed(name).expect_err("outside");
            assert!(error.to_string().contains("is no file of it"), "{name}: {error}");
        }
    }

    #[test]
    fn drafts_that_nobody_fills_any_more_are_removed_and_no_others() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let out = parent.path().join("index");
        let filled = Draft::begin(&out).expect("begins");
        let [left, others] = [".index.left.building", ".index.others.building"].map(|name| parent.path().join(name));
        for folder in [&left, &others] {
            std::fs::create_dir(folder).expect("made");
        }
        std::fs::write(left.join(HELD), "").expect("written");
        let next = Draft::begin(&out).expect("begins");
        assert!(!left.exists() && others.exists() && filled.path().exists() && next.path().exists());
        next.finish(|files| manifest("digest".into(), 1, None, BTreeMap::new(), files)).expect("finishes");
        assert!(check(&out).is_ok() && !out.join(HELD).exists());
    }
}
