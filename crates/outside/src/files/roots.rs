//! Folders below which a peer may name files.

use std::io;
use std::path::{Path, PathBuf};

/// Folders that were allowed. What links lead to counts, not how a path is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots {
    folders: Vec<PathBuf>,
}

impl Roots {
    /// Allows what is below these folders; none allows nothing. A folder that is not there (yet) allows what its path will
    /// name without links.
    ///
    /// # Errors
    /// When the current folder is gone, so that a relative path means nothing.
    pub fn new<P: AsRef<Path>>(folders: impl IntoIterator<Item = P>) -> io::Result<Self> {
        let resolve = |folder: P| std::fs::canonicalize(&folder).or_else(|_| std::path::absolute(&folder));
        Ok(Self { folders: folders.into_iter().map(resolve).collect::<io::Result<_>>()? })
    }

    /// The folders, without links where they are there.
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// Where `path` leads once every link is followed, if that is one of the folders or below one.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::PermissionDenied`] where it leads elsewhere. The text does not say where to:
    /// that is nobody's business who may not read there.
    pub fn admit(&self, path: &Path) -> io::Result<PathBuf> {
        let elsewhere = || io::Error::new(io::ErrorKind::PermissionDenied, "leads outside the folders that are allowed");
        match std::fs::canonicalize(path) {
            Ok(resolved) if self.holds(&resolved) => Ok(resolved),
            Ok(_) => Err(elsewhere()),
            Err(error) => {
                // Whether something is there is said of what would lie below the folders, and of nothing else.
                let written = std::path::absolute(path)?;
                let there = written.ancestors().skip(1).find_map(|above| std::fs::canonicalize(above).ok());
                Err(if there.is_some_and(|there| self.holds(&there)) { error } else { elsewhere() })
            }
        }
    }

    fn holds(&self, path: &Path) -> bool {
        self.folders.iter().any(|folder| path.starts_with(folder))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_and_dots_do_not_lead_out() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (allowed, other) = (folder.path().join("allowed"), folder.path().join("other"));
        for each in [&allowed, &other] {
            std::fs::create_dir(each).expect("made");
            std::fs::write(each.join("file"), "x").expect("written");
        }
        symlink(&other, allowed.join("out")).expect("linked");
        symlink(allowed.join("file"), allowed.join("inside")).expect("linked");
        let roots = Roots::new([&allowed]).expect("a folder");
        for inside in ["file", "inside", ".", "../allowed/file"] {
            assert!(roots.admit(&allowed.join(inside)).is_ok(), "{inside}");
        }
        for outside in ["out/file", "..", "../other/file", "out", "../nothing", "out/nothing", "/etc/passwd"] {
            let error = roots.admit(&allowed.join(outside)).expect_err(outside);
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{outside}: {error}");
        }
        // A neighbour whose name begins alike is another folder.
        std::fs::create_dir(folder.path().join("allowed-not")).expect("made");
        assert!(roots.admit(&folder.path().join("allowed-not")).is_err());
        assert_eq!(roots.admit(&allowed.join("nothing")).expect_err("nothing there").kind(), io::ErrorKind::NotFound);
        assert!(Roots::default().admit(&allowed).is_err(), "no folder allows nothing");
    }
}
