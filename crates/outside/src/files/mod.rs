//! Files whose path somebody else chose: only regular ones are read, and only so much of them.
//!
//! In: a path and the most bytes that its kind of file may have. Out: its contents, or an [`io::Error`] whose text says what
//! is there instead. The error names no path: whoever calls knows how to call the file.
//!
//! **Use** [`read`] or [`read_to_string`] wherever a file of a person, a peer or a disk that others write to is taken whole,
//! and [`open`] where it is streamed or hashed; never `metadata` and then `read`: between the two the file may have become
//! another. Give every kind of file a limit of its own, as a constant that is explained. A pipe, a socket, a device and a
//! folder are refused at once and never waited for: opening does not block, and what was opened is what is looked at.
//!
//! A regular file may still be slow (a network disk that is gone answers never). Code that serves others reads on a thread
//! of its own and waits with a deadline, never on a runtime's threads and never with `spawn_blocking`, whose threads a
//! runtime waits for at its end.
//!
//! Where a peer names the path, [`Roots`] says below which folders it may lie.

use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

mod roots;

pub use roots::Roots;

/// The contents of a regular file of at most `limit` bytes.
///
/// # Errors
/// What the system says; [`io::ErrorKind::InvalidInput`] where it is no regular file, [`io::ErrorKind::FileTooLarge`] where
/// it has more bytes, or grows beyond them while it is read.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = open(path, limit)?;
    // Some systems know no size beforehand (`/proc`); what is set aside is bounded by the limit in any case.
    let expected = file.metadata()?.len().min(limit);
    let mut bytes = Vec::with_capacity(usize::try_from(expected).unwrap_or(0));
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(too_large(bytes.len() as u64, limit, true));
    }
    Ok(bytes)
}

/// The same as text.
///
/// # Errors
/// As [`read`]; [`io::ErrorKind::InvalidData`] where it is not UTF-8.
pub fn read_to_string(path: &Path, limit: u64) -> io::Result<String> {
    String::from_utf8(read(path, limit)?).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "is not UTF-8 text"))
}

/// Opens a regular file of at most `limit` bytes for reading. It may grow afterwards: who streams it bounds what is kept.
///
/// # Errors
/// As [`read`].
pub fn open(path: &Path, limit: u64) -> io::Result<File> {
    // A first look, because merely opening some devices does something.
    regular(&std::fs::metadata(path)?, limit)?;
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    // What was opened may be another file than the one that was looked at.
    regular(&file.metadata()?, limit)?;
    Ok(file)
}

fn regular(metadata: &Metadata, limit: u64) -> io::Result<()> {
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("is {}, not a regular file", kind(metadata.file_type()))));
    }
    if metadata.len() > limit {
        return Err(too_large(metadata.len(), limit, false));
    }
    Ok(())
}

fn too_large(bytes: u64, limit: u64, grew: bool) -> io::Error {
    let has = if grew { "has" } else { "has a size of" };
    let more = if grew { " or more" } else { "" };
    io::Error::new(io::ErrorKind::FileTooLarge, format!("{has} {bytes} bytes{more}, at most {limit} are read"))
}

fn kind(kind: FileType) -> &'static str {
    if kind.is_dir() {
        "a folder"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_char_device() || kind.is_block_device() {
        "a device"
    } else {
        "something else"
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn regular_files_are_read_up_to_their_limit() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("file");
        std::fs::write(&path, "hello").expect("written");
        assert_eq!(read(&path, 5).expect("it fits"), b"hello");
        assert_eq!(read_to_string(&path, 99).expect("it fits"), "hello");
        let error = read(&path, 4).expect_err("one byte too many");
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert!(error.to_string().contains("5 bytes") && error.to_string().contains("at most 4"), "{error}");
        assert_eq!(read(&folder.path().join("none"), 4).expect_err("nothing").kind(), io::ErrorKind::NotFound);
        std::fs::write(&path, [0xff]).expect("written");
        assert_eq!(read_to_string(&path, 9).expect_err("no text").kind(), io::ErrorKind::InvalidData);
        // A link to a regular file is one.
        symlink(&path, folder.path().join("link")).expect("linked");
        assert_eq!(read(&folder.path().join("link"), 9).expect("it fits"), [0xff]);
    }

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).expect("a pipe");
        let socket = folder.path().join("socket");
        let _held = UnixListener::bind(&socket).expect("a socket");
        let device = folder.path().join("device");
        symlink("/dev/zero", &device).expect("linked");
        for (path, what) in [(&pipe, "a pipe"), (&socket, "a socket"), (&device, "a device"), (&folder.path().to_owned(), "a folder")] {
            let error = read(path, 1 << 20).expect_err(what);
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{what}: {error}");
            assert!(error.to_string().contains(what), "{error}");
        }
    }

    #[test]
    fn a_file_without_a_size_ends_at_the_limit() {
        // The kernel says 0 bytes and gives more.
        let path = Path::new("/proc/self/status");
        assert!(!read(path, 1 << 20).expect("it is small").is_empty());
        assert_eq!(read(path, 10).expect_err("it has more").kind(), io::ErrorKind::FileTooLarge);
    }
}
