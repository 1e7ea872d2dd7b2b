//! Files that are there whole or not at all.
//!
//! In: a path and bytes. Out: the file. A reader, or a crash at any moment, sees the old content or the new.
//!
//! **Use** [`write()`] for a file by itself. Who writes many files of one folder calls [`replace`] for each and [`sync`] once.

use std::fs::{File, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::Builder;

/// Writes `bytes` to `path` by way of a temporary neighbour, which is renamed once it is on disk; the new name is on disk too when this
/// returns.
///
/// # Errors
/// Those of the file system; the folder must exist. The temporary file is removed.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, |out| out.write_all(bytes))?;
    sync(folder(path))
}

/// The same for what is written bit by bit. A power cut may bring the old content back until [`sync`] was called for the folder.
///
/// # Errors
/// Those of `content` and of the file system; the folder must exist. The temporary file is removed.
pub fn replace(path: &Path, content: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("{} names no file", path.display())))?;
    let mut prefix = std::ffi::OsString::from(".");
    prefix.push(name);
    prefix.push(".");
    // As any new file: the process's mask decides.
    let permissions = Permissions::from_mode(0o666);
    let temporary = Builder::new().prefix(&prefix).suffix(".tmp").permissions(permissions).tempfile_in(folder(path))?;
    let mut out = BufWriter::new(temporary);
    content(&mut out)?;
    let temporary = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    temporary.as_file().sync_all()?;
    temporary.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Puts the names in a folder on disk: a rename is durable only when its folder is.
///
/// # Errors
/// Those of the file system.
pub fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::fs;

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
    fn a_file_that_could_not_be_written_is_as_it_was_and_others_may_read_a_new_one() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("file");
        write(&path, b"old").expect("the folder exists");
        let failed = replace(&path, |out| {
            out.write_all(b"half")?;
            Err(io::Error::other("no more"))
        });
        assert_eq!(failed.expect_err("it failed").to_string(), "no more");
        assert_eq!(fs::read(&path).expect("it was written"), b"old");
        assert_eq!(fs::read_dir(folder.path()).expect("it exists").count(), 1);
        // What the process lets others do with any file that it makes.
        let plain = folder.path().join("plain");
        fs::write(&plain, b"").expect("written");
        let mode = |path: &Path| fs::metadata(path).expect("it exists").permissions().mode();
        assert_eq!(mode(&path), mode(&plain));
    }

    #[test]
    fn a_missing_folder_is_an_error() {
        assert!(write(Path::new("/nonexistent/folder/file"), b"x").is_err());
        assert!(write(Path::new("/"), b"x").is_err());
    }
}
