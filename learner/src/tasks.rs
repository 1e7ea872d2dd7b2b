//! The task set that a run trains on: `tasks.jsonl` and the bytes of its pictures.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use hypereyes_chassis::BadInput;
use hypereyes_domain::{PictureId, Task, TaskId};
use hypereyes_pictures::{Limits, Picture};

/// Tasks by id, and where their pictures lie.
pub struct Tasks {
    tasks: BTreeMap<TaskId, Task>,
    folder: PathBuf,
}

impl Tasks {
    /// Reads a data set folder; a line that is not a task is named by its number.
    pub fn load(folder: &Path) -> Result<Self, BadInput> {
        let path = folder.join("tasks.jsonl");
        let text = std::fs::read_to_string(&path)
            .map_err(|error| BadInput::new(format!("no task set at {} ({error}): make one with `hypereyes synth`", path.display())))?;
        let mut tasks = BTreeMap::new();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let at = || format!("{} line {}", path.display(), number + 1);
            let task: Task = serde_json::from_str(line).map_err(|error| BadInput::new(format!("{}: {error}", at())))?;
            if task.answers.is_empty() {
                return Err(BadInput::new(format!("{}: task {} has no answer", at(), task.id)));
            }
            if tasks.insert(task.id.clone(), task).is_some() {
                return Err(BadInput::new(format!("{}: its id was used before", at())));
            }
        }
        if tasks.is_empty() {
            return Err(BadInput::new(format!("{} holds no task", path.display())));
        }
        Ok(Self { tasks, folder: folder.to_owned() })
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
    pub fn picture(&self, id: &PictureId) -> Result<Picture, String> {
        let path = self.folder.join("pictures").join(format!("{id}.png"));
        let bytes = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let picture =
            Picture::from_bytes(Bytes::from(bytes), &Limits::default()).map_err(|error| format!("{}: {error}", path.display()))?;
        if picture.id == *id { Ok(picture) } else { Err(format!("{}: its bytes hash to {}", path.display(), picture.id)) }
    }
}
