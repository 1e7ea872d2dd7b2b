//! Files that are there whole or not at all.
//!
//! In: a path and bytes. Out: the file. A reader, or a crash at any moment, sees the old content or the new.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Tells apart temporary files that threads of this process write at the same moment.
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// Writes `bytes` to `path` by way of a temporary neighbour, which is renamed once it is on disk.
///
/// # Errors
/// Those of the file system; the folder must exist. The temporary file is removed.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = neighbour(path)?;
    let written = write_through(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The first error is the one worth telling.
        let _ = fs::remove_file(&temporary);
        return written;
    }
    // The rename itself is durable only when the folder is.
    File::open(folder(path))?.sync_all()
}

fn write_through(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn neighbour(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("{} names no file", path.display())))?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}.{}.tmp", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed)));
    Ok(folder(path).join(temporary))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_replaced_and_nothing_is_left_behind() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("file");
        write(&path, b"old").expect("the folder exists");
        write(&path, b"new").expect("replacing works");
        assert_eq!(fs::read(&path).expect("it was written"), b"new");
        assert_eq!(fs::read_dir(folder.path()).expect("it exists").count(), 1);
    }

    #[test]
    fn readers_never_see_half_a_file() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("file");
        let contents = [vec![b'a'; 100_000], vec![b'b'; 50_000]];
        write(&path, &contents[0]).expect("the folder exists");
        std::thread::scope(|scope| {
            let writers = [0, 1].map(|which| {
                let (path, contents) = (&path, &contents);
                scope.spawn(move || (0..20).for_each(|_| write(path, &contents[which]).expect("both writers succeed")))
            });
            while !writers.iter().all(|writer| writer.is_finished()) {
                let seen = fs::read(&path).expect("the file is always there");
                assert!(contents.contains(&seen), "{} bytes", seen.len());
            }
        });
    }

    #[test]
    fn a_missing_folder_is_an_error() {
        assert!(write(Path::new("/nonexistent/folder/file"), b"x").is_err());
        assert!(write(Path::new("/"), b"x").is_err());
    }
}
