//! How a parent learns where its child listens, when the child took any free port.
//!
//! In: the child's addresses. Out: a small JSON file at a path that both know, written whole; and the wait for it.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Pause between looks at the file.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A larger file is not an announcement.
const MAX_BYTES: u64 = 64 << 10;

/// "I am up, and here I listen."
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Where gRPC is served.
    pub addr: SocketAddr,
    /// Where `/metrics` is served, if it is.
    pub metrics: Option<SocketAddr>,
    /// The process.
    pub pid: u32,
}

impl Announcement {
    /// An announcement of this process.
    pub fn new(addr: SocketAddr, metrics: Option<SocketAddr>) -> Self {
        Self { addr, metrics, pid: std::process::id() }
    }
}

/// Why there is no announcement.
#[derive(Debug, thiserror::Error)]
pub enum AnnounceError {
    /// It could not be written or removed.
    #[error("cannot announce at {path}: {source}; its folder must exist and be writable")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Nobody announced in time.
    #[error("no announcement at {path} before the deadline ({state}); see the log of the process that should have written it")]
    Deadline {
        /// The file.
        path: PathBuf,
        /// What was there at the last look.
        state: String,
    },
}

/// Writes the announcement at once.
///
/// # Errors
/// [`AnnounceError::Write`].
pub fn announce(path: &Path, announcement: &Announcement) -> Result<(), AnnounceError> {
    let bytes = serde_json::to_vec(announcement).expect("addresses and numbers are always JSON");
    crate::atomic::write(path, &bytes).map_err(|source| AnnounceError::Write { path: path.to_owned(), source })
}

/// Removes an announcement of an earlier run. Parents call it before they start the child, or they would hear the dead.
///
/// # Errors
/// [`AnnounceError::Write`]; a file that is not there is fine.
pub fn clear(path: &Path) -> Result<(), AnnounceError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(AnnounceError::Write { path: path.to_owned(), source }),
        _ => Ok(()),
    }
}

/// Waits for an announcement.
///
/// # Errors
/// [`AnnounceError::Deadline`].
pub async fn await_announcement(path: &Path, deadline: Instant) -> Result<Announcement, AnnounceError> {
    loop {
        let state = match hypereyes_outside::files::read(path, MAX_BYTES) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(announcement) => return Ok(announcement),
                Err(error) => format!("the file is not an announcement: {error}"),
            },
            Err(error) => error.to_string(),
        };
        if Instant::now() + LOOK_EVERY > deadline {
            return Err(AnnounceError::Deadline { path: path.to_owned(), state });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_parent_hears_its_child() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("ready.json");
        let said = Announcement::new("127.0.0.1:4711".parse().expect("an address"), None);
        let (heard, ()) = tokio::join!(await_announcement(&path, Instant::now() + Duration::from_secs(10)), async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            announce(&path, &said).expect("the folder exists");
        });
        assert_eq!(heard.expect("it was announced"), said);
        let json = std::fs::read_to_string(&path).expect("it is there");
        assert!(json.contains(r#""addr":"127.0.0.1:4711""#) && json.contains(&format!(r#""pid":{}"#, std::process::id())), "{json}");
    }

    #[tokio::test]
    async fn silence_and_nonsense_end_at_the_deadline() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("ready.json");
        let soon = || Instant::now() + Duration::from_millis(60);
        let silence = await_announcement(&path, soon()).await.expect_err("nobody announced");
        assert!(silence.to_string().contains("ready.json"), "{silence}");
        std::fs::write(&path, "{").expect("it can be written");
        let nonsense = await_announcement(&path, soon()).await.expect_err("that is no announcement");
        assert!(nonsense.to_string().contains("not an announcement"), "{nonsense}");
    }

    #[test]
    fn clearing_twice_is_fine() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("ready.json");
        std::fs::write(&path, "{}").expect("it can be written");
        clear(&path).expect("it is there");
        clear(&path).expect("it is gone, as wanted");
        assert!(!path.exists());
    }
}
