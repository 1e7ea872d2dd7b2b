//! Rows of a benchmark on their way to tasks. In: rows as a loader makes them, one at a time. Out: those that can be asked and judged,
//! and of all others the reason. Pictures are decoded to see that they are some, and let go of. It knows no benchmark.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use hypereyes_domain::{PictureId, Task, TaskId};
use hypereyes_outside::jsonl::Lines;
use hypereyes_pictures::{Limits, Picture};
use serde::de::DeserializeOwned;

use super::{Refused, Rows};
use crate::error::{DataError, file};
use crate::lines::MAX_TASKS;
use crate::pictures::PictureFiles;
use crate::tasks;

/// Longest line, in bytes: a picture as large as is read, in base64, with room for the text beside it.
const MAX_LINE: usize = 64 << 20;

/// A row that its loader could read.
#[derive(Debug)]
pub struct Row {
    /// The task, without its pictures.
    pub task: Task,
    /// These, in order.
    pub pictures: Vec<Encoded>,
}

/// A picture as it is published.
#[derive(Debug)]
pub enum Encoded {
    /// A file, which stays where it is.
    File(PathBuf),
    /// Part of the row.
    Bytes(Vec<u8>),
}

/// Takes rows.
#[derive(Debug)]
pub struct Gather {
    ids: HashSet<TaskId>,
    rows: Rows,
}

/// Why a row did not become a task.
enum Fault {
    /// The row is at fault, and the next one may be right.
    Row(String),
    /// The machine is.
    Disk(DataError),
}

impl Gather {
    /// None yet; pictures beyond `limits` are refused.
    pub(super) fn new(limits: &Limits) -> Self {
        let rows = Rows { tasks: vec![], pictures: PictureFiles::new(limits.clone()), refused: vec![] };
        Self { ids: HashSet::new(), rows }
    }

    /// What was taken.
    pub(super) fn rows(self) -> Rows {
        self.rows
    }

    /// Takes row `number` (from 0) of a file: what the loader made of it, or why it could not. A row that is no task is written down
    /// with the reason.
    ///
    /// # Errors
    /// There are too many rows, or no more pictures can be written.
    pub fn take(&mut self, file: &str, number: u64, made: Result<Row, String>) -> Result<(), DataError> {
        if self.rows.tasks.len() + self.rows.refused.len() == MAX_TASKS {
            return Err(DataError::File { path: file.into(), reason: format!("more than {MAX_TASKS} rows") });
        }
        match made.map_err(Fault::Row).and_then(|row| self.task(row)) {
            Ok(task) => {
                self.ids.insert(task.id.clone());
                self.rows.tasks.push(task);
            }
            Err(Fault::Row(reason)) => self.rows.refused.push(Refused { file: file.to_owned(), row: number, reason }),
            Err(Fault::Disk(error)) => return Err(error),
        }
        Ok(())
    }

    /// Takes every line of a file that has a JSON value on each; `make` is told the number of the row, from 0. `name` is what refusals
    /// call the file.
    ///
    /// # Errors
    /// As [`Gather::take`]; the file cannot be read.
    pub fn json_lines<T: DeserializeOwned>(
        &mut self,
        path: &Path,
        name: &str,
        make: impl Fn(u64, T) -> Result<Row, String>,
    ) -> Result<(), DataError> {
        let lines = Lines::open(path, MAX_LINE).map_err(|error| file(path, &error))?;
        for line in lines.values::<T>() {
            let line = line.map_err(|error| file(path, &error))?;
            let number = line.number - 1;
            self.take(name, number, line.value.and_then(|value| make(number, value)))?;
        }
        Ok(())
    }

    fn task(&mut self, Row { mut task, pictures }: Row) -> Result<Task, Fault> {
        if self.ids.contains(&task.id) {
            return Err(Fault::Row(tasks::was_before(&task)));
        }
        if task.question.trim().is_empty() {
            return Err(Fault::Row(format!("task {} has no question", task.id)));
        }
        tasks::check(&task).map_err(Fault::Row)?;
        task.pictures = pictures.into_iter().map(|encoded| self.picture(encoded)).collect::<Result<_, _>>()?;
        Ok(task)
    }

    fn picture(&mut self, encoded: Encoded) -> Result<PictureId, Fault> {
        let pictures = &mut self.rows.pictures;
        match encoded {
            Encoded::File(path) => pictures.add_file(path).map_err(|error| Fault::Row(error.to_string())),
            Encoded::Bytes(bytes) => {
                let picture = Picture::from_bytes(bytes.into(), pictures.limits()).map_err(|error| Fault::Row(error.to_string()))?;
                pictures.unpack(&picture).map_err(Fault::Disk)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use hypereyes_domain::TaskKind;
    use hypereyes_pictures::RgbImage;

    use super::*;

    fn row(id: &str, pictures: Vec<Encoded>) -> Row {
        let task = Task {
            id: id.into(),
            kind: TaskKind::new("news"),
            question: "Who is it?".into(),
            answers: vec!["Ada".into()],
            pictures: vec![],
            layer: None,
            metadata: Default::default(),
            shown: vec![],
            reference: None,
        };
        Row { task, pictures }
    }

    #[test]
    fn every_row_is_a_task_or_has_a_reason() {
        let picture = Picture::from_image(RgbImage::new(8, 8)).expect("encodes");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("a.jpg");
        std::fs::write(&path, &picture.bytes).expect("written");
        let bare = |change: fn(&mut Task)| {
            let mut row = row("bare", vec![]);
            change(&mut row.task);
            Ok(row)
        };
        let bytes = || Encoded::Bytes(picture.bytes.to_vec());
        let rows: [(Result<Row, String>, &str); 9] = [
            (Ok(row("a", vec![Encoded::File(path.clone()), bytes()])), ""),
            (Err("no column `answer`".into()), "no column"),
            (Ok(row("a", vec![])), "a was there before"),
            (bare(|task| task.question = " ".into()), "no question"),
            (bare(|task| task.answers.clear()), "no answer"),
            (bare(|task| task.kind = TaskKind::new("")), "kind is empty"),
            (Ok(row("b", vec![bytes(), Encoded::Bytes(picture.bytes[..20].to_vec())])), "cut short"),
            (Ok(row("b", vec![Encoded::File(folder.path().join("none.jpg"))])), "none.jpg"),
            (Ok(row("b", vec![])), ""),
        ];
        let mut gather = Gather::new(&Limits::default());
        let mut reasons = vec![];
        for (number, (made, reason)) in (0..).zip(rows) {
            gather.take("rows", number, made).expect("there is room");
            if !reason.is_empty() {
                reasons.push((number, reason));
            }
        }
        let Rows { tasks, pictures, refused } = gather.rows();
        assert_eq!(refused.len(), reasons.len(), "{refused:?}");
        for (refused, (number, reason)) in refused.iter().zip(reasons) {
            assert!(refused.row == number && refused.file == "rows" && refused.reason.contains(reason), "{refused:?}: {reason}");
        }
        assert_eq!(tasks.iter().map(|task| task.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(tasks[0].pictures, [picture.id.clone(), picture.id.clone()]);
        assert_eq!(pictures.load(&picture.id).expect("it is there"), picture);
        assert!(pictures.load(&"none".into()).is_err());
    }

    #[test]
    fn a_picture_that_came_in_a_row_is_there_as_long_as_the_rows() {
        let picture = Picture::from_image(RgbImage::new(9, 9)).expect("encodes");
        let mut gather = Gather::new(&Limits::default());
        gather.take("rows", 0, Ok(row("a", vec![Encoded::Bytes(picture.bytes.to_vec())]))).expect("there is room");
        let rows = gather.rows();
        assert_eq!(rows.pictures.load(&picture.id).expect("unpacked"), picture);
    }

    #[test]
    fn lines_keep_their_numbers_whatever_stands_between_them() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("rows.jsonl");
        std::fs::write(&path, "\"a\"\n\n7\n\"b\"\n{\n").expect("written");
        let mut gather = Gather::new(&Limits::default());
        gather.json_lines(&path, "rows.jsonl", |number, id: String| Ok(row(&format!("{id}{number}"), vec![]))).expect("reads");
        let Rows { tasks, refused, .. } = gather.rows();
        assert_eq!(tasks.iter().map(|task| task.id.as_str()).collect::<Vec<_>>(), ["a0", "b3"]);
        assert_eq!(refused.iter().map(|one| one.row).collect::<Vec<_>>(), [2, 4]);
    }
}
