//! The folder beside an engine in which generations are written: `generations/<version>-<digest>/`, and `current`, a link to the one
//! in force.
//!
//! In: snapshots, and which generations somebody still reads. Out: generations, in two names that change in one step each: a folder
//! loses the mark of an unfinished one, and `current` leads to another. Nothing in a generation is ever changed, so that files of
//! weights in which no tensor differs are shared between them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use metrics::{counter, histogram};

use super::super::files::INDEX;
use super::super::save::{Extras, Written, check_free, index, keep_apart, remove};
use super::super::{Snapshot, StoredDtype};
use super::manifest::{self, Manifest};
use super::metrics::{BYTES, REMOVED, WRITE_SECONDS};
use super::steps::{self, Bytes, Step};
use super::{Generation, SHORT, name, verified};
use crate::Error;
use crate::config::ModelConfig;

/// Where generations are.
const GENERATIONS: &str = "generations";
/// The link to the one in force.
const CURRENT: &str = "current";
/// The end of names of what is not whole, or not any more.
const PARTIAL: &str = ".partial";
/// Held by who writes there.
const LOCK: &str = ".lock";
/// Where a file of weights is cut. So small that a layer has several, and that one in which nothing changed is likely where few
/// matrices are trained: the MLPs of an 8B model and the experts of a 30B one have files of their own.
const FILE_BYTES: u64 = 64 << 20;

/// A file beside weights: its path in the folder, and its content.
type Beside<'a> = (PathBuf, Cow<'a, [u8]>);

/// The folder beside an engine.
#[derive(Debug)]
pub struct PolicyFolder {
    root: PathBuf,
    /// What every generation has besides weights.
    extras: Extras,
    model: ModelConfig,
    file_bytes: u64,
    /// The one in force.
    newest: Option<(Generation, Manifest)>,
    /// Those that were in force and are not removed yet.
    older: Vec<Generation>,
    /// Released when it is dropped, or when its process dies.
    _lock: File,
}

impl PolicyFolder {
    /// Opens or makes `root`. What was cut off is removed, as are generations that are damaged, of another start, or not in force; the
    /// one that stays was read and compared. `start` is the folder that training started from: its `config.json`, tokenizer and
    /// templates go into every generation.
    ///
    /// # Errors
    /// [`Error`] that names the path: `start` holds no model, `root` cannot be written, or another process writes there.
    pub fn open(root: &Path, start: &Path) -> Result<Self, Error> {
        let root = std::path::absolute(root).map_err(|error| Error::io(root, error))?;
        keep_apart(&root, "the start", start)?;
        let extras = Extras::of(start, &root)?;
        let config = start.join("config.json");
        let json = extras.config.as_ref().ok_or_else(|| Error::Input(format!("{}: is not there", config.display())))?;
        let model = ModelConfig::from_json(json).map_err(|why| Error::Input(format!("{}: {why}", config.display())))?;
        let generations = root.join(GENERATIONS);
        fs::create_dir_all(&generations).map_err(|error| Error::io(&generations, error))?;
        let lock = lock(&root.join(LOCK))?;
        let mut folder = Self { root, extras, model, file_bytes: FILE_BYTES, newest: None, older: vec![], _lock: lock };
        folder.recover()?;
        Ok(folder)
    }

    /// Cuts weights into files of about so many bytes.
    #[must_use]
    pub fn in_files_of(self, bytes: u64) -> Self {
        Self { file_bytes: bytes, ..self }
    }

    /// The generation in force.
    pub fn newest(&self) -> Option<&Generation> {
        self.newest.as_ref().map(|(generation, _)| generation)
    }

    /// Writes a generation and puts it in force: whole or not there. Files of weights without a changed tensor are hard links into the
    /// one before, which stays until [`PolicyFolder::retain`]. What is in memory besides the snapshot is one tensor. It takes as long as
    /// the disk does: not for the async threads.
    ///
    /// # Errors
    /// [`Error`] that names the path; the one before is in force.
    pub fn write(&mut self, snapshot: &Snapshot) -> Result<Generation, Error> {
        let began = Instant::now();
        let path = self.generations().join(name(snapshot.version, &snapshot.digest));
        if let Some(newest) = self.newest().filter(|newest| newest.path == path) {
            return Ok(newest.clone());
        }
        let named = |error: Error| Error::Input(format!("{}: was not written: {error}", path.display()));
        // A learner that went back publishes what it has published before.
        if let Some(older) = self.again(&path).map_err(named)? {
            return Ok(older);
        }
        let (steps, manifest) = self.plan(snapshot, &path).map_err(named)?;
        check_free(&self.root, &self.root, steps.iter().map(|step| u128::from(step.needs())).sum())?;
        let partial = partial(&path);
        remove(&partial);
        // One of which the last step failed is whole, and yet unknown.
        remove(&path);
        let mut count = Bytes::default();
        if let Err(error) = take(&steps, &mut count) {
            remove(&partial);
            return Err(named(error));
        }
        let Bytes { written, linked, copied } = count;
        for (how, bytes) in [("written", written), ("linked", linked), ("copied", copied)] {
            counter!(BYTES, "how" => how).increment(bytes);
        }
        histogram!(WRITE_SECONDS).record(began.elapsed().as_secs_f64());
        let (version, digest) = (snapshot.version, snapshot.digest);
        Ok(self.put_in_force(Generation { path, version, digest, bytes_written: written + copied, bytes_linked: linked }, manifest))
    }

    /// Puts one that was in force before in force again; the one in force now is an older one then.
    ///
    /// # Errors
    /// [`Error`] that names the path: it is not there, or the disk fails.
    pub fn go_back(&mut self, generation: &Generation) -> Result<(), Error> {
        if self.newest() == Some(generation) || self.again(&generation.path)?.is_some() {
            return Ok(());
        }
        Err(Error::Input(format!("{}: was not in force before", generation.path.display())))
    }

    /// Puts the older one of a path in force, if there is one.
    fn again(&mut self, path: &Path) -> Result<Option<Generation>, Error> {
        let Some(at) = self.older.iter().position(|older| older.path == path) else { return Ok(None) };
        let manifest = Manifest::read(path)?;
        take(&self.in_force(path), &mut Bytes::default())?;
        let older = self.older.remove(at);
        Ok(Some(self.put_in_force(older, manifest)))
    }

    /// Removes every generation but these and the one in force.
    ///
    /// # Errors
    /// [`Error`] that names the path.
    pub fn retain(&mut self, in_use: &[Generation]) -> Result<(), Error> {
        let (kept, gone): (Vec<_>, Vec<_>) =
            self.older.drain(..).partition(|older| in_use.iter().any(|generation| generation.path == older.path));
        self.older = kept;
        gone.iter().try_for_each(|older| discard(&older.path, "replaced"))
    }

    /// The changes of the disk that make a snapshot the generation in force, and what is written down of it.
    pub(super) fn plan<'a>(&'a self, snapshot: &'a Snapshot, path: &Path) -> Result<(Vec<Step<'a>>, Manifest), Error> {
        let written = Written::of(&self.model, snapshot, self.file_bytes)?.with_tied_head(&self.model);
        let files = written.files();
        let mut beside = self.beside(snapshot.dtype())?;
        beside.extend(index(&files).map(|index| (PathBuf::from(INDEX), index.into_bytes().into())));
        let manifest = Manifest::of(&self.model, snapshot, &files, digests(&beside))?;
        let before = self.newest.as_ref().filter(|(_, before)| before.dtype == manifest.dtype);
        let (tensors, tensors_before) = (manifest.by_file(), before.map(|(_, before)| before.by_file()).unwrap_or_default());
        let partial = partial(path);
        let mut folders = vec![partial.clone()];
        folders.extend(beside.iter().flat_map(|(name, _)| name.ancestors().skip(1).map(|folder| partial.join(folder))));
        folders.sort();
        folders.dedup();
        let mut steps: Vec<Step<'a>> = folders.iter().cloned().map(Step::Folder).collect();
        for (name, laid) in files {
            let place = partial.join(&name);
            let same = before.filter(|_| tensors_before.get(name.as_str()) == tensors.get(name.as_str()));
            steps.push(match same {
                Some((before, _)) => Step::Same(before.path.join(&name), place, laid),
                None => Step::Weights(place, laid),
            });
        }
        steps.extend(beside.into_iter().map(|(name, bytes)| Step::Bytes(partial.join(name), bytes)));
        steps.push(Step::Bytes(partial.join(manifest::FILE), manifest.text().into()));
        steps.extend(folders.into_iter().rev().map(Step::Sync));
        steps.push(Step::Rename(partial, path.to_owned()));
        steps.push(Step::Sync(self.generations()));
        steps.extend(self.in_force(path));
        Ok((steps, manifest))
    }

    /// Makes `current` lead to a generation.
    fn in_force(&self, path: &Path) -> [Step<'static>; 3] {
        let (link, fresh) = (self.root.join(CURRENT), self.root.join(format!("{CURRENT}{PARTIAL}")));
        let to = Path::new(GENERATIONS).join(path.file_name().expect("a generation has a name"));
        [Step::Link(fresh.clone(), to), Step::Rename(fresh, link), Step::Sync(self.root.clone())]
    }

    fn put_in_force(&mut self, generation: Generation, manifest: Manifest) -> Generation {
        self.older.extend(self.newest.replace((generation.clone(), manifest)).map(|(before, _)| before));
        generation
    }

    /// What lies beside weights of a type: the start's files, and its config with that type.
    fn beside(&self, dtype: StoredDtype) -> Result<Vec<Beside<'_>>, Error> {
        // A start may be a generation itself.
        let own = self.extras.files.iter().filter(|(path, _)| path.to_str().is_some_and(|name| name != manifest::FILE));
        let mut files: Vec<_> = own.map(|(path, bytes)| (path.clone(), bytes.as_slice().into())).collect();
        files.push(("config.json".into(), self.extras.config_of(&self.model, dtype).map_err(Error::Input)?.into_bytes().into()));
        Ok(files)
    }

    /// Whether a generation has the files of this start beside its weights.
    fn is_of_this_start(&self, manifest: &Manifest) -> bool {
        let dtype = [StoredDtype::F32, StoredDtype::Bf16].into_iter().find(|dtype| dtype.label() == manifest.dtype);
        let own = dtype.and_then(|dtype| self.beside(dtype).ok()).map(|files| digests(&files));
        own.is_some_and(|own| own.iter().eq(manifest.beside.iter().filter(|(name, _)| *name != INDEX)))
    }

    pub(super) fn generations(&self) -> PathBuf {
        self.root.join(GENERATIONS)
    }

    /// Finds the generation in force and removes everything else that writing leaves.
    fn recover(&mut self) -> Result<(), Error> {
        let current = self.root.join(CURRENT);
        remove_file(&self.root.join(format!("{CURRENT}{PARTIAL}")))?;
        let target = fs::read_link(&current).ok().map(|target| self.root.join(target));
        let mut found = found(&self.generations())?;
        // The one in force, then the others from the newest on.
        found.sort_by_key(|(path, made)| (Some(path) == target.as_ref(), *made));
        while let Some((path, _)) = found.pop() {
            if path.as_os_str().as_encoded_bytes().ends_with(PARTIAL.as_bytes()) {
                counter!(REMOVED, "reason" => "cut_off").increment(1);
                remove(&path);
                continue;
            }
            if self.newest.is_some() {
                discard(&path, "replaced")?;
                continue;
            }
            match verified(&path) {
                Ok((whole, _)) if path.file_name() != Some(name(whole.version, &whole.digest).as_ref()) => discard(&path, "damaged")?,
                Ok((_, manifest)) if !self.is_of_this_start(&manifest) => discard(&path, "other_start")?,
                Ok(whole) => self.newest = Some(whole),
                Err(error) => {
                    tracing::warn!(%error, "a generation is damaged, and removed");
                    discard(&path, "damaged")?;
                }
            }
        }
        match self.newest().map(|newest| newest.path.clone()) {
            Some(path) if Some(&path) != target.as_ref() => take(&self.in_force(&path), &mut Bytes::default()),
            None if target.is_some() => remove_file(&current),
            _ => Ok(()),
        }
    }
}

fn take(steps: &[Step<'_>], count: &mut Bytes) -> Result<(), Error> {
    steps.iter().try_for_each(|step| step.take(count))
}

fn digests(files: &[Beside<'_>]) -> BTreeMap<String, String> {
    files.iter().map(|(name, bytes)| (name.display().to_string(), blake3::hash(bytes).to_hex().to_string())).collect()
}

/// A generation's folder while it is not whole.
pub(super) fn partial(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(PARTIAL);
    name.into()
}

/// Folders that are generations by their name, or were to be, and when they were made. Others are nobody's business here.
fn found(generations: &Path) -> Result<Vec<(PathBuf, SystemTime)>, Error> {
    let named = |error| Error::io(generations, error);
    let mut found = vec![];
    for entry in fs::read_dir(generations).map_err(named)? {
        let entry = entry.map_err(named)?;
        let text = entry.file_name().to_string_lossy().into_owned();
        let (version, digest) = text.strip_suffix(PARTIAL).unwrap_or(&text).split_once('-').unwrap_or_default();
        let hex = digest.len() == SHORT && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        if hex && version.parse::<u64>().is_ok() {
            let made = entry.metadata().and_then(|meta| meta.modified()).map_err(named)?;
            found.push((entry.path(), made));
        }
    }
    Ok(found)
}

/// Takes a generation away: first its name, so that nobody takes half of it for one.
fn discard(path: &Path, reason: &'static str) -> Result<(), Error> {
    let partial = partial(path);
    remove(&partial);
    fs::rename(path, &partial).map_err(|error| Error::io(path, error))?;
    counter!(REMOVED, "reason" => reason).increment(1);
    steps::sync(path.parent().expect("a generation lies in a folder"))?;
    remove(&partial);
    Ok(())
}

fn remove_file(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path, error)),
        _ => Ok(()),
    }
}

/// Holds a folder against other processes, where the file system has locks.
fn lock(path: &Path) -> Result<File, Error> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(|error| Error::io(path, error))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            Err(Error::Input(format!("{}: another process writes generations there; give each a folder of its own", path.display())))
        }
        _ => Ok(file),
    }
}
