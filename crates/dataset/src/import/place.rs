//! The folder that an import fills. In: tasks and the bytes of pictures, as they come. Out: a task set that is there whole or not at all.

use std::fs::{File, Permissions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use hypereyes_domain::PictureId;
use hypereyes_outside::atomic;
use tempfile::TempDir;

use crate::about::{ABOUT, About, FORMAT};
use crate::error::{DataError, file};
use crate::lines::write_lines;
use crate::loaders::Refused;
use crate::pictures::path_of;
use crate::{PICTURES, TASKS};

/// Lists every refused row, a JSON object on each line.
pub(super) const REFUSED: &str = "refused.jsonl";

/// The folder that a path lies in.
pub(crate) fn around(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A set that is being filled, beside the place that it will have.
pub(super) struct Draft {
    folder: TempDir,
    out: PathBuf,
    tasks: BufWriter<File>,
    refused: Option<BufWriter<File>>,
}

impl Draft {
    /// For a set at `out`, where nothing is, or an empty folder.
    pub fn begin(out: &Path) -> Result<Self, DataError> {
        let refused = |reason: &str| DataError::File { path: out.to_owned(), reason: reason.to_owned() };
        let Some(name) = out.file_name() else { return Err(refused("names no folder")) };
        match std::fs::symlink_metadata(out) {
            Ok(there) if there.is_symlink() => return Err(refused("is a link, which no folder can replace: name a folder")),
            Ok(there) if !there.is_dir() => return Err(refused("is there already, and no folder: name another")),
            Ok(_) => {
                if std::fs::read_dir(out).map_err(|error| file(out, &error))?.next().is_some() {
                    return Err(refused("is there already, and not empty: name another, or remove it"));
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(file(out, &error)),
        }
        let parent = around(out);
        std::fs::create_dir_all(parent).map_err(|error| file(parent, &error))?;
        let prefix = format!(".{}.importing-", name.to_string_lossy());
        // As any new folder: the process's mask decides.
        let permissions = Permissions::from_mode(0o777);
        let folder = tempfile::Builder::new().prefix(&prefix).permissions(permissions).tempdir_in(parent);
        let folder = folder.map_err(|error| file(parent, &error))?;
        let pictures = folder.path().join(PICTURES);
        std::fs::create_dir(&pictures).map_err(|error| file(&pictures, &error))?;
        let path = folder.path().join(TASKS);
        let tasks = BufWriter::new(File::create(&path).map_err(|error| file(&path, &error))?);
        Ok(Self { folder, out: out.to_owned(), tasks, refused: None })
    }

    /// Writes a picture; one that is there is not written again.
    pub fn picture(&mut self, id: &PictureId, bytes: &[u8]) -> Result<(), DataError> {
        let path = path_of(self.folder.path(), id);
        if path.exists() {
            return Ok(());
        }
        std::fs::write(&path, bytes).map_err(|error| file(&path, &error))
    }

    /// Writes a task's line, whose pictures are there.
    pub fn task(&mut self, line: &[u8]) -> Result<(), DataError> {
        let written = self.tasks.write_all(line).and_then(|()| self.tasks.write_all(b"\n"));
        written.map_err(|error| file(&self.folder.path().join(TASKS), &error))
    }

    /// Writes down a row that is no task.
    pub fn refuse(&mut self, refused: &Refused) -> Result<(), DataError> {
        let path = self.folder.path().join(REFUSED);
        let out = match &mut self.refused {
            Some(out) => out,
            None => self.refused.insert(BufWriter::new(File::create(&path).map_err(|error| file(&path, &error))?)),
        };
        write_lines(out, std::slice::from_ref(refused)).map_err(|error| file(&path, &error))
    }

    /// Puts the set in its place.
    pub fn finish(mut self) -> Result<(), DataError> {
        let folder = self.folder.path().to_owned();
        let at = |name: &str, error: &std::io::Error| file(&folder.join(name), error);
        let about = [About { format: FORMAT, tokenizer: None }];
        atomic::replace(&folder.join(ABOUT), |out| write_lines(out, &about)).map_err(|error| at(ABOUT, &error))?;
        if let Some(mut refused) = self.refused.take() {
            refused.flush().and_then(|()| refused.get_ref().sync_all()).map_err(|error| at(REFUSED, &error))?;
        }
        self.tasks.flush().and_then(|()| self.tasks.get_ref().sync_all()).map_err(|error| at(TASKS, &error))?;
        sync_all(&folder.join(PICTURES)).and_then(|()| atomic::sync(&folder)).map_err(|error| at(PICTURES, &error))?;
        // An empty folder is replaced in the same step; one that is not, by nobody.
        std::fs::rename(&folder, &self.out).map_err(|error| file(&self.out, &error))?;
        // There is nothing to remove where it was.
        let _ = self.folder.keep();
        let parent = around(&self.out);
        atomic::sync(parent).map_err(|error| file(parent, &error))
    }
}

/// Puts a folder's files on disk, and then their names. Most are there by then: it costs little at the end.
fn sync_all(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        File::open(entry?.path())?.sync_all()?;
    }
    atomic::sync(folder)
}
