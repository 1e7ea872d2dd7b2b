//! The task set that a run trains on: `tasks.jsonl` and the bytes of its pictures, each read when it is asked for.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use hypereyes_chassis::BadInput;
use hypereyes_dataset::{DataError, PICTURES, load_picture};
use hypereyes_domain::{PictureId, Task, TaskId};
use hypereyes_pictures::{Limits, Picture};

/// Tasks by id, and where their pictures lie.
pub struct Tasks {
    tasks: hypereyes_dataset::Tasks,
    folder: PathBuf,
    /// Width and height of pictures that were read before.
    sizes: Mutex<HashMap<PictureId, (u32, u32)>>,
}

/// A picture of the set that cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct PictureFault {
    /// What is wrong, with the file's name.
    pub reason: String,
    /// Whether asking again is of no use: the file is gone, may not be read, or holds something else.
    pub lasting: bool,
}

impl Tasks {
    /// Reads a data set folder.
    pub fn load(folder: &Path) -> Result<Self, BadInput> {
        let tasks = hypereyes_dataset::Tasks::open(folder).map_err(|error| BadInput::new(error.to_string()))?;
        if tasks.is_empty() {
            return Err(BadInput::new(format!("{} holds no task", folder.display())));
        }
        Ok(Self { tasks, folder: folder.to_owned(), sizes: Mutex::default() })
    }

    /// All ids in order.
    pub fn ids(&self) -> Vec<TaskId> {
        self.tasks.ids().cloned().collect()
    }

    /// One task.
    ///
    /// # Errors
    /// [`DataError`] where the set's file cannot be read any more.
    pub fn get(&self, id: &TaskId) -> Result<Option<Task>, DataError> {
        self.tasks.named(id)
    }

    /// All tasks, read one at a time.
    pub fn all(&self) -> impl Iterator<Item = Result<Task, DataError>> + '_ {
        self.tasks.iter()
    }

    /// A picture of the set; its bytes are checked against its name.
    ///
    /// # Errors
    /// [`PictureFault`].
    pub fn picture(&self, id: &PictureId) -> Result<Picture, PictureFault> {
        let path = self.folder.join(PICTURES).join(format!("{id}.png"));
        // A pipe or a device would be waited for, or read without end.
        let there = std::fs::metadata(&path);
        if there.as_ref().is_ok_and(|there| !there.is_file()) {
            return Err(PictureFault { reason: format!("{} is no file", path.display()), lasting: true });
        }
        let picture = load_picture(&self.folder, id, &Limits::default()).map_err(|error| {
            // What can be opened was read, so that its content is at fault.
            let lasting = there.and_then(|_| std::fs::File::open(&path)).map_or_else(|error| is_lasting(error.kind()), |_| true);
            PictureFault { reason: error.to_string(), lasting }
        })?;
        self.sizes().insert(id.clone(), picture.image.dimensions());
        Ok(picture)
    }

    /// Width and height of a picture of the set.
    ///
    /// # Errors
    /// [`PictureFault`]; not where it was read before.
    pub fn size(&self, id: &PictureId) -> Result<(u32, u32), PictureFault> {
        let known = self.sizes().get(id).copied();
        known.map_or_else(|| self.picture(id).map(|picture| picture.image.dimensions()), Ok)
    }

    fn sizes(&self) -> std::sync::MutexGuard<'_, HashMap<PictureId, (u32, u32)>> {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a file that could not be opened will be no other in a moment: a network that is away or too many open files may pass.
fn is_lasting(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::NotADirectory | ErrorKind::IsADirectory)
}

#[cfg(test)]
mod tests {
    use hypereyes_dataset::TASKS;
    use hypereyes_pictures::RgbImage;

    use super::*;

    #[test]
    fn a_picture_that_is_damaged_gone_or_no_file_will_not_be_another_in_a_moment() {
        let folder = tempfile::tempdir().unwrap();
        let picture = Picture::from_image(RgbImage::from_pixel(40, 30, [9; 3].into())).unwrap();
        let task =
            format!(r#"{{"id":"t","kind":"visual_select","question":"Which?","answers":["a"],"pictures":["{}"],"layer":0}}"#, picture.id);
        std::fs::write(folder.path().join(TASKS), task + "\n").unwrap();
        let path = folder.path().join(PICTURES).join(format!("{}.png", picture.id));
        std::fs::create_dir(folder.path().join(PICTURES)).unwrap();
        std::fs::write(&path, &picture.bytes).unwrap();
        let tasks = Tasks::load(folder.path()).unwrap();
        assert_eq!(tasks.size(&picture.id).unwrap(), (40, 30));
        for (what, spoil) in [
            (
                "half",
                Box::new(|path: &Path| std::fs::write(path, &picture.bytes[..picture.bytes.len() / 2]).unwrap()) as Box<dyn Fn(&Path)>,
            ),
            ("another", Box::new(|path: &Path| std::fs::write(path, b"GIF89a").unwrap())),
            ("nothing", Box::new(|path: &Path| std::fs::remove_file(path).unwrap())),
            ("a folder", Box::new(|path: &Path| std::fs::create_dir(path).unwrap())),
        ] {
            spoil(&path);
            let fault = tasks.picture(&picture.id).expect_err(what);
            assert!(fault.lasting && fault.reason.contains(picture.id.as_str()), "{what}: {fault:?}");
        }
        assert_eq!(tasks.size(&picture.id).unwrap(), (40, 30), "the size is known");
        assert!(!is_lasting(ErrorKind::StaleNetworkFileHandle) && !is_lasting(ErrorKind::TimedOut));
    }
}
