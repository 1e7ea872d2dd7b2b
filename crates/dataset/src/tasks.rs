//! The tasks of a folder. In: `tasks.jsonl`. Out: tasks that can be asked and judged, or the first line that is none. A folder can be opened
//! without holding its tasks: each is read when it is asked for.

use std::collections::{BTreeMap, btree_map::Entry};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use hypereyes_domain::{Task, TaskId};
use hypereyes_outside::files;
use hypereyes_outside::jsonl::Lines;

use crate::about::about;
use crate::error::{DataError, file};
use crate::lines::{MAX_FILE, MAX_LINE, MAX_TASKS};
use crate::pictures::is_hash;

/// The tasks' file.
pub const TASKS: &str = "tasks.jsonl";

/// What a row of tasks may hold beside the task; any other key that a task has not is refused.
pub(crate) const FREE_KEYS: [&str; 3] = ["expected", "note", "notes"];

/// A row of tasks.
fn task_of(line: &[u8]) -> serde_json::Result<Task> {
    serde_json::from_slice(line).or_else(|_| {
        let mut row: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(line)?;
        row.retain(|key, _| !FREE_KEYS.contains(&key.as_str()));
        serde_json::from_value(row.into())
    })
}

/// The tasks of a folder, each where it stands in the file. Opening reads the whole file once and keeps names and places: 100,000 tasks
/// take some megabytes.
#[derive(Debug)]
pub struct Tasks {
    path: PathBuf,
    file: File,
    /// Where each begins, and its bytes.
    places: Vec<Place>,
    /// Which is called so.
    names: BTreeMap<TaskId, u32>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    at: u64,
    bytes: u32,
    /// Counted from 1.
    line: u32,
}

impl Tasks {
    /// Opens a folder and looks at every task. Ids must be unique, answers present, pictures plain hex names; the pictures are not looked
    /// at.
    ///
    /// # Errors
    /// [`DataError`] that names the file, and the line where one is no task.
    pub fn open(folder: &Path) -> Result<Self, DataError> {
        let path = folder.join(TASKS);
        if !path.is_file() {
            let reason = "there is no such task set; make one with `hypereyes synth` or `hypereyes data import`";
            return Err(DataError::File { path, reason: reason.into() });
        }
        // Before the rows: those of a later release may hold what is not known here.
        about(folder)?;
        let input = files::open(&path, MAX_FILE).map_err(|error| file(&path, &error))?;
        let again = input.try_clone().map_err(|error| file(&path, &error))?;
        let mut tasks = Self { path, file: again, places: vec![], names: BTreeMap::new() };
        let mut lines = Lines::new(input, MAX_LINE);
        while let Some(line) = lines.next_line().map_err(|error| file(&tasks.path, &error))? {
            let place = Place {
                at: line.at,
                bytes: line.bytes.map_or(0, <[u8]>::len) as u32,
                line: u32::try_from(line.number).unwrap_or(u32::MAX),
            };
            let task = match line.bytes {
                Some(bytes) if bytes.trim_ascii().is_empty() => continue,
                Some(bytes) => task_of(bytes).map_err(|error| error.to_string()),
                None => Err(format!("longer than {MAX_LINE} bytes")),
            };
            let added = task.and_then(|task| tasks.add(place, task));
            added.map_err(|reason| tasks.fault(place, reason))?;
        }
        Ok(tasks)
    }

    fn add(&mut self, place: Place, task: Task) -> Result<(), String> {
        if self.places.len() == MAX_TASKS {
            return Err(format!("more than {MAX_TASKS} rows"));
        }
        let before = was_before(&task);
        let checked = check(&task);
        let strange = task.pictures.into_iter().find(|id| !is_hash(id));
        let Entry::Vacant(entry) = self.names.entry(task.id) else { return Err(before) };
        checked?;
        if let Some(id) = strange {
            return Err(format!("{id} is no picture id (64 hex digits)"));
        }
        entry.insert(self.places.len() as u32);
        self.places.push(place);
        Ok(())
    }

    fn fault(&self, place: Place, reason: String) -> DataError {
        DataError::Line { path: self.path.clone(), line: place.line as usize, reason }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Their names, in order of the names.
    pub fn ids(&self) -> impl Iterator<Item = &TaskId> {
        self.names.keys()
    }

    /// Task `at`, counted from 0 in the order of the file.
    ///
    /// # Errors
    /// [`DataError`] where the file is another by now, or there are not so many.
    pub fn get(&self, at: usize) -> Result<Task, DataError> {
        let Some(place) = self.places.get(at) else {
            let reason = format!("there is no task {at}: it has {}", self.places.len());
            return Err(DataError::File { path: self.path.clone(), reason });
        };
        let mut line = vec![0; place.bytes as usize];
        let changed = |why: String| self.fault(*place, format!("was changed after it was opened: {why}"));
        self.file.read_exact_at(&mut line, place.at).map_err(|error| changed(error.to_string()))?;
        let task = task_of(&line).map_err(|error| changed(error.to_string()))?;
        match self.names.get(&task.id) {
            Some(known) if *known as usize == at => Ok(task),
            _ => Err(changed(format!("it is task {}", task.id))),
        }
    }

    /// The task of a name.
    ///
    /// # Errors
    /// As [`Tasks::get`].
    pub fn named(&self, id: &TaskId) -> Result<Option<Task>, DataError> {
        self.names.get(id).map(|at| self.get(*at as usize)).transpose()
    }

    /// All of them in the order of the file, read one at a time.
    pub fn iter(&self) -> impl Iterator<Item = Result<Task, DataError>> + '_ {
        (0..self.len()).map(|at| self.get(at))
    }
}

/// The tasks of a folder, all of them in memory. Ids must be unique, answers present, pictures plain hex names.
pub fn load_tasks(folder: &Path) -> Result<Vec<Task>, DataError> {
    Tasks::open(folder)?.iter().collect()
}

/// Whether a line is a task for whoever reads it, before it is written.
///
/// # Errors
/// Why it is none: it is too long, or has a number that JSON has not.
pub(crate) fn check_line(line: &[u8]) -> Result<(), String> {
    if line.len() > MAX_LINE {
        return Err(format!("would be a line of {} bytes, and at most {MAX_LINE} are read", line.len()));
    }
    task_of(line).map(|_| ()).map_err(|error| format!("cannot be written as JSON: {error}"))
}

/// What is wrong with the second task of an id.
pub(crate) fn was_before(task: &Task) -> String {
    format!("task {} was there before", task.id)
}

/// Whether a task can be asked, judged and sent, whatever its pictures are.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check(task: &Task) -> Result<(), String> {
    if task.answers.iter().all(|answer| answer.trim().is_empty()) {
        return Err(format!("task {} has no answer", task.id));
    }
    task.check().map_err(|(what, reason)| format!("task {}: {what} {reason}", task.id))?;
    let reference = task.reference.map_or(Ok(()), |reference| reference.check());
    reference.map_err(|(what, reason)| format!("task {}: reference.{what} {reason}", task.id))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    fn row(id: &str) -> String {
        format!(r#"{{"id": "{id}", "kind": "k", "question": "q of {id}", "answers": ["a"], "note": "kept by people"}}"#)
    }

    #[test]
    fn tasks_are_read_when_they_are_asked_for_by_place_and_by_name() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join(TASKS);
        fs::write(&path, format!("{}\n\n{}\r\n{}", row("b"), row("a"), row("c"))).expect("written");
        let tasks = Tasks::open(folder.path()).expect("sound");
        assert_eq!((tasks.len(), tasks.ids().map(TaskId::as_str).collect::<Vec<_>>()), (3, vec!["a", "b", "c"]));
        let ids: Vec<String> = tasks.iter().map(|task| task.expect("reads").id.to_string()).collect();
        assert_eq!(ids, ["b", "a", "c"]);
        assert_eq!(tasks.named(&"a".into()).expect("reads").expect("there").question, "q of a");
        assert_eq!(tasks.named(&"d".into()).expect("reads"), None);
        assert!(tasks.get(3).is_err_and(|error| error.to_string().contains("there is no task 3: it has 3")));
        // Whoever replaces the file leaves what was opened.
        hypereyes_outside::atomic::write(&path, row("z").as_bytes()).expect("replaced");
        assert_eq!(tasks.get(0).expect("the old one").id.as_str(), "b");
        // Whoever writes into it is found out.
        let tasks = Tasks::open(folder.path()).expect("sound");
        fs::OpenOptions::new().write(true).open(&path).and_then(|mut file| file.write_all(b"xxxx")).expect("overwritten");
        let error = tasks.get(0).expect_err("damaged").to_string();
        assert!(error.contains("line 1: was changed after it was opened"), "{error}");
    }

    #[test]
    fn lines_that_are_no_tasks_are_named_by_their_place_in_the_file() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join(TASKS);
        fs::write(&path, format!("{}\n\n{}\n", row("a"), row("a"))).expect("written");
        let error = Tasks::open(folder.path()).expect_err("twice").to_string();
        assert!(error.contains("line 3: task a was there before"), "{error}");
    }
}
