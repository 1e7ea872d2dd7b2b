//! What an evaluation is made on. In: tasks, and a way to get at their pictures. Out: the pictures of one task, when it is its turn: no
//! other is held. It knows no file.

use std::fmt;
use std::sync::Arc;

use hypereyes_domain::{Failure, GenerateError, PictureId, Task};
use hypereyes_pictures::Picture;

/// Finds a picture, or says why there is none. It may read and decode, which takes a while.
type Find = dyn Fn(&PictureId) -> Result<Arc<Picture>, String> + Send + Sync;

/// Tasks, and where the pictures are that they name. Cheap to clone but for the tasks.
#[derive(Clone)]
pub struct TaskSet {
    /// The tasks.
    pub tasks: Vec<Task>,
    find: Arc<Find>,
}

impl TaskSet {
    /// `find` is asked for the pictures of a task each time that it is rolled out, on a thread that may wait.
    pub fn new(tasks: Vec<Task>, find: impl Fn(&PictureId) -> Result<Arc<Picture>, String> + Send + Sync + 'static) -> Self {
        Self { tasks, find: Arc::new(find) }
    }

    /// The pictures of a task, in order.
    ///
    /// # Errors
    /// The first that cannot be had.
    pub(crate) async fn pictures_of(&self, task: &Task) -> Result<Vec<Arc<Picture>>, GenerateError> {
        if task.pictures.is_empty() {
            return Ok(vec![]);
        }
        let (find, ids) = (self.find.clone(), task.pictures.clone());
        let all = move || ids.iter().map(|id| find(id).map_err(|reason| format!("picture {id}: {reason}"))).collect();
        let found: Result<_, String> = tokio::task::spawn_blocking(all).await.unwrap_or_else(|error| Err(error.to_string()));
        found.map_err(|reason| GenerateError { failure: Failure::Infrastructure, message: format!("task {}: {reason}", task.id) })
    }
}

impl fmt::Debug for TaskSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskSet").field("tasks", &self.tasks.len()).finish_non_exhaustive()
    }
}
