//! Where a folder is put: written and checked in a fresh place beside its target, and moved in as a whole.
//!
//! In: a target, and who writes. Out: the target with the new content and nothing of the old, or an error and the old as it
//! was. Two names change places in one step of the file system (`RENAME_EXCHANGE`), so that a reader sees one folder or the
//! other; where that is not to be had, in two steps, and whoever saves next mends what was cut off between them. What lay in the
//! old folder and belongs to no model is moved aside, not deleted.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, RenameFlags, StatxAttributes, StatxFlags, renameat_with, statx};
use rustix::io::Errno;

use super::extras;
use super::paths::{all_within, check_free, is_within, real, remove, same_file, sync, writable};
use crate::Error;

/// In a fresh place until everything in it is there and checked.
pub(super) const UNFINISHED: &str = ".unfinished";
/// How a fresh place is called: `.NAME.saving-...`; what was in the target before has this name afterwards.
const SAVING: &str = ".saving-";
/// Where an old folder waits if two names cannot change places: `.NAME.old-...`.
const OLD: &str = ".old-";
/// An empty place that nobody has locked may be one that somebody is about to lock.
const YOUNG: Duration = Duration::from_secs(60);
/// Where there are no locks, a place in which nothing has been made for so long is one that was left.
const UNLOCKED: Duration = Duration::from_secs(3600);
/// How often, and how long apart, the lock of a new place is tried.
const LOCK_TRIES: u32 = 500;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// A folder that may be written, again and again.
#[derive(Clone, Debug)]
pub struct Place {
    /// As it was given, for messages.
    shown: PathBuf,
    /// Without links.
    target: PathBuf,
    parent: PathBuf,
    name: OsString,
}

impl Place {
    /// Checks that `target` can be written, mends what an interrupted save has left, and leaves nothing behind.
    ///
    /// # Errors
    /// [`Error::Input`] in one line that names the target and what is in the way.
    pub fn new(target: &Path) -> Result<Self, Error> {
        let refuse = |why: String| Error::Input(format!("{} cannot be written: {why}", target.display()));
        let real = real(target).map_err(|error| refuse(error.to_string()))?;
        let (Some(parent), Some(name)) = (real.parent(), real.file_name()) else {
            return Err(refuse("it is no folder that could be replaced; give one within it".into()));
        };
        let place = Self { shown: target.to_owned(), parent: parent.to_owned(), name: name.to_owned(), target: real.clone() };
        if std::env::current_dir().is_ok_and(|here| is_within(&here, &real)) {
            return Err(refuse("it is the folder that this process runs in, and a save replaces it; give a folder within it".into()));
        }
        place.mend();
        if real.exists() {
            place.check_what_is_there().map_err(refuse)?;
        }
        let beside = real.ancestors().skip(1).find(|folder| folder.exists()).unwrap_or(parent);
        place.probe(beside).map_err(|error| refuse(format!("{} beside it: {error}", beside.display())))?;
        Ok(place)
    }

    /// The target, as it was given.
    pub fn shown(&self) -> &Path {
        &self.shown
    }

    /// The target without links.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Refuses when `needed` bytes are not free where the target is.
    ///
    /// # Errors
    /// [`Error::Input`] that says how much is needed and free.
    pub fn check_free(&self, needed: u128) -> Result<(), Error> {
        check_free(&self.shown, &self.target, needed)
    }

    /// Lets `write` fill a fresh place and `check` look at it once it is on disk, and moves it in. Returns where things of the
    /// old folder were put that belong to no model.
    ///
    /// # Errors
    /// Theirs, or [`Error::Input`] that names the target: what was there before is as it was.
    pub fn fill(
        &self,
        write: impl FnOnce(&Path) -> Result<(), Error>,
        check: impl FnOnce(&Path) -> Result<(), Error>,
    ) -> Result<Option<PathBuf>, Error> {
        let failed = |error: &dyn std::fmt::Display| {
            Error::Input(format!("{} was not saved, what was there is as it was: {error}", self.shown.display()))
        };
        fs::create_dir_all(&self.parent).map_err(|error| failed(&format!("{}: {error}", self.parent.display())))?;
        let (fresh, lock) = self.fresh(&self.parent).map_err(|error| failed(&format!("{}: {error}", self.parent.display())))?;
        let at = |error: io::Error| failed(&format!("{}: {error}", fresh.display()));
        let written = write(&fresh)
            .map_err(|error| failed(&error))
            .and_then(|()| sync(&fresh).map_err(at))
            .and_then(|()| check(&fresh).map_err(|error| failed(&error)))
            .and_then(|()| fs::remove_file(fresh.join(UNFINISHED)).and_then(|()| File::open(&fresh)?.sync_all()).map_err(at));
        if let Err(error) = written {
            remove(&fresh);
            return Err(error);
        }
        // From here on the fresh folder is whole: where it cannot be moved in, it stays for whoever wants it.
        let old = self.move_in(&fresh).map_err(|error| {
            let mut name = self.name.clone();
            name.push(format!(".saved-{:08x}", rand::random::<u32>()));
            let own = self.parent.join(name);
            // Whoever saves next puts what is left under its old name into an empty place, and would remove it beside another.
            let renamed = self.target.exists() && fs::rename(&fresh, &own).is_ok();
            let whole = if renamed { own } else { fresh.clone() };
            let (whole, shown) = (whole.display(), self.shown.display());
            Error::Input(format!("{shown} could not be put in place ({error}); what was saved is whole in {whole}: move it by hand"))
        })?;
        File::open(&self.parent).and_then(|folder| folder.sync_all()).map_err(|error| failed(&error))?;
        drop(lock);
        // Whoever saves there next may be at it already.
        let held = old.and_then(|old| File::open(&old).ok().filter(|folder| !is_held(folder)).map(|folder| (old, folder)));
        Ok(held.and_then(|(old, _folder)| self.discard(&old)))
    }

    /// A new folder beside the target with the mark of an unfinished one, and the lock that says that somebody is at it.
    fn fresh(&self, parent: &Path) -> io::Result<(PathBuf, File)> {
        let mut name = OsString::from(".");
        name.push(&self.name);
        name.push(format!("{SAVING}{:08x}", rand::random::<u32>()));
        let path = parent.join(name);
        fs::create_dir(&path)?;
        let lock = File::open(&path)?;
        // Somebody who mends may hold it for a moment, to find that it is new.
        for _ in 0..LOCK_TRIES {
            if !is_held(&lock) {
                break;
            }
            std::thread::sleep(LOCK_PAUSE);
        }
        if let Err(error) = fs::write(path.join(UNFINISHED), b"being saved\n") {
            remove(&path);
            return Err(error);
        }
        Ok((path, lock))
    }

    /// Does what a save does, with nothing to save.
    fn probe(&self, parent: &Path) -> io::Result<()> {
        let (path, lock) = self.fresh(parent)?;
        let tried = sync(&path).and_then(|()| {
            let mut moved = path.clone().into_os_string();
            moved.push("-tried");
            fs::rename(&path, &moved)?;
            fs::rename(&moved, &path)
        });
        let removed = tried.and_then(|()| fs::remove_dir_all(&path)).inspect_err(|_| remove(&path));
        drop(lock);
        removed
    }

    /// What is in the target's place must be a folder that a model may replace.
    fn check_what_is_there(&self) -> Result<(), String> {
        let there = fs::metadata(&self.target).map_err(|error| error.to_string())?;
        if !there.is_dir() {
            return Err("there is a file of that name".into());
        }
        let looked = statx(CWD, &self.target, AtFlags::empty(), StatxFlags::BASIC_STATS);
        let mounted = looked.is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT));
        if mounted || fs::metadata(&self.parent).is_ok_and(|parent| parent.dev() != there.dev()) {
            return Err(format!(
                "it is a mounted volume, and a save replaces the folder; give one within it, as {}",
                self.shown.join("policy").display()
            ));
        }
        let names: Vec<OsString> = fs::read_dir(&self.target)
            .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect())
            .map_err(|error| error.to_string())?;
        let stranger = names.iter().find(|name| !extras::belongs_to_a_model(name) && !extras::is_folder_of_a_model(name));
        match stranger {
            Some(name) if !names.iter().any(|name| extras::marks_a_model(name)) => {
                let name = name.display();
                Err(format!("it holds no model, but other files ({name}); a save would replace them; give another folder, or an empty one"))
            }
            _ => Ok(()),
        }
    }

    /// Puts the fresh folder in the target's place. Returns where the old one is now.
    fn move_in(&self, fresh: &Path) -> io::Result<Option<PathBuf>> {
        for _ in 0..8 {
            match renameat_with(CWD, fresh, CWD, &self.target, RenameFlags::EXCHANGE) {
                Ok(()) => return Ok(Some(fresh.to_owned())),
                Err(Errno::NOENT) => match renameat_with(CWD, fresh, CWD, &self.target, RenameFlags::NOREPLACE) {
                    Ok(()) => return Ok(None),
                    // Somebody else was faster.
                    Err(Errno::EXIST) => {}
                    Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => return fs::rename(fresh, &self.target).map(|()| None),
                    Err(error) => return Err(error.into()),
                },
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => return self.move_in_two_steps(fresh).map(Some),
                Err(error) => return Err(error.into()),
            }
        }
        Err(io::Error::other("others keep writing there"))
    }

    fn move_in_two_steps(&self, fresh: &Path) -> io::Result<PathBuf> {
        let mut name = OsString::from(".");
        name.push(&self.name);
        name.push(format!("{OLD}{:08x}", rand::random::<u32>()));
        let old = self.parent.join(name);
        fs::rename(&self.target, &old)?;
        if let Err(error) = fs::rename(fresh, &self.target) {
            // Back again; if not even that works, the next save does it.
            let _ = fs::rename(&old, &self.target);
            return Err(error);
        }
        Ok(old)
    }

    /// What an interrupted save has left beside the target: half of it is removed, and what was to be there is put there.
    fn mend(&self) {
        let left = |mark: &str| left_beside(&self.parent, &self.name, mark);
        // A place that was finished comes before what it was to replace.
        for path in left(SAVING).into_iter().chain(left(OLD)) {
            let Ok(folder) = File::open(&path) else { continue };
            let age = folder.metadata().and_then(|meta| meta.modified()).ok().and_then(|at| at.elapsed().ok()).unwrap_or_default();
            match folder.try_lock() {
                Ok(()) => {}
                // Somebody is at it, or may be where a file system has no locks.
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(_)) if age < UNLOCKED => continue,
                Err(TryLockError::Error(_)) => {}
            }
            let empty = fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_none());
            let young = age < YOUNG;
            if path.join(UNFINISHED).exists() {
                remove(&path);
            } else if empty {
                if !young {
                    remove(&path);
                }
            } else if !self.target.exists() {
                tracing::warn!(folder = %self.shown.display(), "put in place: a save of it had been cut off");
                let _ = fs::rename(&path, &self.target); // What cannot be moved stays where it is.
            } else {
                self.discard(&path);
            }
        }
    }

    /// Removes an old folder but for what belongs to no model, which is moved aside; returns where to.
    fn discard(&self, old: &Path) -> Option<PathBuf> {
        writable(old);
        for entry in fs::read_dir(old).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let replaced = self.target.join(&name);
            let is_folder = fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir());
            match is_folder {
                // What cannot be removed is moved aside with the rest.
                false if extras::belongs_to_a_model(&name) || same_file(&path, &replaced) => drop(fs::remove_file(&path)),
                true if extras::is_folder_of_a_model(&name) || all_within(&path, &replaced) => remove(&path),
                _ => {}
            }
        }
        if fs::read_dir(old).is_ok_and(|mut entries| entries.next().is_none()) {
            remove(old);
            return None;
        }
        let aside = (1..).map(|number| {
            let mut name = self.name.clone();
            name.push(if number == 1 { ".replaced".to_owned() } else { format!(".replaced-{number}") });
            self.parent.join(name)
        });
        let aside = aside.take(1 << 16).find(|path| fs::symlink_metadata(path).is_err()).unwrap_or_else(|| old.to_owned());
        let moved = fs::rename(old, &aside).map_or_else(|_| old.to_owned(), |()| aside);
        tracing::warn!(folder = %self.shown.display(), aside = %moved.display(), "what lay there and belongs to no model was moved aside");
        Some(moved)
    }
}

/// What an interrupted save of `target` has left where the target should be, for who looks for it.
pub(crate) fn interrupted(target: &Path) -> Option<PathBuf> {
    let real = real(target).ok()?;
    let (parent, name) = (real.parent()?, real.file_name()?);
    let whole = |path: &PathBuf| !path.join(UNFINISHED).exists() && path.join("config.json").exists();
    [SAVING, OLD].iter().flat_map(|mark| left_beside(parent, name, mark)).find(whole)
}

/// Takes the lock of a folder unless somebody else has it; whether somebody has. Where there are no locks nobody has.
fn is_held(folder: &File) -> bool {
    matches!(folder.try_lock(), Err(TryLockError::WouldBlock))
}

fn left_beside(parent: &Path, name: &OsStr, mark: &str) -> Vec<PathBuf> {
    let mut prefix = OsString::from(".");
    prefix.push(name);
    prefix.push(mark);
    let ours = |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes().starts_with(prefix.as_encoded_bytes());
    let mut paths: Vec<PathBuf> = fs::read_dir(parent).into_iter().flatten().flatten().filter(ours).map(|entry| entry.path()).collect();
    paths.sort();
    paths
}
