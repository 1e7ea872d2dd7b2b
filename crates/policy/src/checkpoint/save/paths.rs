//! Paths and folders: whether two are one, what is below them, whether there is room, on disk with it, away with it. In: paths. Out: the answer.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::statvfs;

use super::extras;
use crate::Error;

/// Refuses when a save of `target` would replace `path`, which `what` names: both are one folder, or it lies within.
///
/// # Errors
/// [`Error::Input`] in one line.
pub fn keep_apart(target: &Path, what: &str, path: &Path) -> Result<(), Error> {
    let (Ok(real_target), Ok(real_path)) = (real(target), fs::canonicalize(path)) else { return Ok(()) };
    if !is_within(&real_path, &real_target) {
        return Ok(());
    }
    let (shown, path) = (target.display(), path.display());
    let how = if is_within(&real_target, &real_path) { "are one folder" } else { "lie in each other" };
    Err(Error::Input(format!("{shown} and {what} {path} {how}: what is saved replaces a folder as a whole; write to another one")))
}

/// Whether `inner` is `outer` or lies below it; both exist, or do not. Folders are told by number, so that links and mounts of one
/// folder in two places do not hide it.
pub(super) fn is_within(inner: &Path, outer: &Path) -> bool {
    let number = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    match number(outer) {
        Some(wanted) => inner.ancestors().any(|above| number(above) == Some(wanted)),
        None => inner.starts_with(outer),
    }
}

/// A path without links, whose end need not exist.
pub(super) fn real(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if fs::symlink_metadata(path).is_ok() {
                return Err(io::Error::other("it is a link to nowhere"));
            }
            let absolute = std::path::absolute(path)?;
            match (absolute.parent(), absolute.components().next_back()) {
                (Some(parent), Some(Component::Normal(name))) => Ok(real(parent)?.join(name)),
                _ => Err(error),
            }
        }
        found => found,
    }
}

/// Whether every file below `folder` is the same below `other`.
pub(super) fn all_within(folder: &Path, other: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|entries| {
        entries.flatten().all(|entry| {
            let other = other.join(entry.file_name());
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => all_within(&entry.path(), &other),
                Ok(_) => same_file(&entry.path(), &other),
                Err(_) => false,
            }
        })
    })
}

/// Whether two files, which are small where they are the same, have one content.
pub(super) fn same_file(one: &Path, other: &Path) -> bool {
    let size = |path: &Path| fs::metadata(path).ok().filter(|meta| meta.is_file()).map(|meta| meta.len());
    let sizes = (size(one), size(other));
    sizes.0.is_some() && sizes.0 == sizes.1 && sizes.0 <= Some(extras::MAX_BYTES) && fs::read(one).ok() == fs::read(other).ok()
}

/// Refuses when `needed` bytes are not free where `path` is or will be; `shown` is what people call it.
///
/// # Errors
/// [`Error::Input`] that says how much is needed and free.
pub fn check_free(shown: &Path, path: &Path, needed: u128) -> Result<(), Error> {
    let there = path.ancestors().find(|folder| folder.exists()).unwrap_or(path);
    // Some network file systems do not say.
    let Some(space) = statvfs(there).ok().filter(|space| space.f_blocks > 0) else { return Ok(()) };
    let free = u128::from(space.f_bavail) * u128::from(space.f_frsize);
    if free >= needed {
        return Ok(());
    }
    let mib = |bytes: u128| bytes.div_ceil(1 << 20);
    Err(Error::Input(format!("{}: {} MiB are needed there and {} MiB are free", shown.display(), mib(needed), mib(free))))
}

/// Puts a folder with all that is in it on disk.
pub(super) fn sync(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync(&entry.path())?;
        } else {
            File::open(entry.path())?.sync_all()?;
        }
    }
    File::open(folder)?.sync_all()
}

/// Lets files in a folder be removed: those of a start that is only to be read may have come with their permissions.
pub(super) fn writable(folder: &Path) {
    let Ok(meta) = fs::metadata(folder) else { return };
    if meta.permissions().mode() & 0o700 != 0o700 {
        let _ = fs::set_permissions(folder, fs::Permissions::from_mode(meta.permissions().mode() | 0o700)); // Removing says the rest.
    }
}

/// Removes a folder; one that stays costs nothing but space, and is said.
pub fn remove(folder: &Path) {
    fn unlock(folder: &Path) {
        writable(folder);
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                unlock(&entry.path());
            }
        }
    }
    unlock(folder);
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(folder = %folder.display(), %error, "cannot be removed; it costs only space");
        }
        _ => {}
    }
}
