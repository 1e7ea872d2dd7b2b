//! The task set that a run trains on: `tasks.jsonl` and the bytes of its pictures.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hypereyes_chassis::BadInput;
use hypereyes_dataset::{DataError, load_picture, load_tasks};
use hypereyes_domain::{PictureId, Task, TaskId};
use hypereyes_pictures::{Limits, Picture};

/// Tasks by id, and where their pictures lie.
pub struct Tasks {
    tasks: BTreeMap<TaskId, Task>,
    folder: PathBuf,
}

impl Tasks {
    /// Reads a data set folder.
    pub fn load(folder: &Path) -> Result<Self, BadInput> {
        let tasks = load_tasks(folder).map_err(|error| BadInput::new(error.to_string()))?;
        if tasks.is_empty() {
            return Err(BadInput::new(format!("{} holds no task", folder.display())));
        }
        Ok(Self { tasks: tasks.into_iter().map(|task| (task.id.clone(), task)).collect(), folder: folder.to_owned() })
    }

    /// All ids in order.
    pub fn ids(&self) -> Vec<TaskId> {
        self.tasks.keys().cloned().collect()
    }

    /// One task.
    pub fn get(&self, id: &TaskId) -> Option<&Task> {
        self.tasks.get(id)
    }

    /// All tasks.
    pub fn all(&self) -> impl Iterator<Item = &Task> {
        self.tasks.values()
    }

    /// A picture of the set; its bytes are checked against its name.
    pub fn picture(&self, id: &PictureId) -> Result<Picture, DataError> {
        load_picture(&self.folder, id, &Limits::default())
    }
}
