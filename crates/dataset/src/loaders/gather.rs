//! Rows of a benchmark on their way to tasks. In: rows as a loader makes them, one at a time. Out: those that can be asked and judged,
//! and of all others the reason. Pictures are decoded to see that they are some, and let go of. It knows no benchmark.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use hypereyes_domain::{Metadata, PictureId, Task, TaskId, TaskKind};
use hypereyes_pictures::{Limits, Picture};
use hypereyes_tables::Table;
use serde::de::DeserializeOwned;

use super::{Refused, Rows};
use crate::error::DataError;
use crate::lines::MAX_TASKS;
use crate::pictures::PictureFiles;
use crate::tasks;

/// Columns of a file that a message names.
const COLUMNS_SHOWN: usize = 20;

/// A row that its loader could read.
#[derive(Debug)]
pub struct Row {
    /// The task, without its pictures.
    pub task: Task,
    /// These, in order.
    pub pictures: Vec<Encoded>,
}

impl Row {
    /// A row as it is published, of which nobody knows who is shown or what a success costs.
    pub fn new(id: String, kind: TaskKind, question: String, answers: Vec<String>, metadata: Metadata, pictures: Vec<Encoded>) -> Self {
        let id = TaskId::new(id);
        let task = Task { id, kind, question, answers, pictures: vec![], layer: None, metadata, shown: vec![], reference: None };
        Self { task, pictures }
    }
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

    /// Takes every row of a table; `make` is told the number of the row in the file, from 0, and may say that a row is not of the
    /// subset that is read. `name` is what refusals call the file. Out: how many rows the file has.
    ///
    /// # Errors
    /// As [`Gather::take`]; the file cannot be read, or lacks one of the columns that are `needed`. Files of JSON do not say beforehand
    /// which columns they have: there a row that lacks one is refused.
    pub fn table<T: DeserializeOwned, R: Into<Option<Row>>>(
        &mut self,
        path: &Path,
        name: &str,
        needed: &[&str],
        make: impl Fn(u64, T) -> Result<R, String>,
    ) -> Result<u64, DataError> {
        let fault = |reason: String| DataError::File { path: path.to_owned(), reason };
        let mut table = Table::open(path, &hypereyes_tables::Limits::default()).map_err(fault)?;
        if let Some(reason) = table.columns().and_then(|columns| lacking(columns, needed)) {
            return Err(fault(reason));
        }
        let mut rows = 0;
        while let Some(row) = table.next_row().map_err(fault)? {
            let read = row.cells.and_then(|cells| T::deserialize(cells).map_err(|error| error.to_string()));
            match read.and_then(|value| make(row.number, value)).map(Into::into) {
                Ok(Some(made)) => self.take(name, row.number, Ok(made))?,
                Ok(None) => {}
                Err(reason) => self.take(name, row.number, Err(reason))?,
            }
            rows = row.number + 1;
        }
        Ok(rows)
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

/// What to say of a file that has not all columns that are needed.
fn lacking(columns: &[String], needed: &[&str]) -> Option<String> {
    let lacking: Vec<String> =
        needed.iter().filter(|name| !columns.iter().any(|column| column == *name)).map(|name| format!("`{name}`")).collect();
    if lacking.is_empty() {
        return None;
    }
    let there: Vec<&str> = columns.iter().take(COLUMNS_SHOWN).map(String::as_str).collect();
    let more = if columns.len() > COLUMNS_SHOWN { format!(" and {} more", columns.len() - COLUMNS_SHOWN) } else { String::new() };
    Some(format!("there is no column {}; there are {}{more}", lacking.join(", "), there.join(", ")))
}

#[cfg(test)]
mod tests {
    use hypereyes_pictures::RgbImage;

    use super::*;

    fn row(id: &str, pictures: Vec<Encoded>) -> Row {
        Row::new(id.to_owned(), TaskKind::new("news"), "Who is it?".to_owned(), vec!["Ada".to_owned()], Metadata::new(), pictures)
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

    #[derive(serde::Deserialize)]
    struct Named {
        id: String,
    }

    #[test]
    fn lines_keep_their_numbers_whatever_stands_between_them() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("rows.jsonl");
        std::fs::write(&path, "{\"id\":\"a\"}\n\n{\"id\":7}\n{\"id\":\"b\"}\n{\n{\"id\":\"passed over\"}\n").expect("written");
        let mut gather = Gather::new(&Limits::default());
        let made = |number, Named { id }| Ok((id != "passed over").then(|| row(&format!("{id}{number}"), vec![])));
        assert_eq!(gather.table(&path, "rows.jsonl", &["id"], made).expect("reads"), 6);
        let Rows { tasks, refused, .. } = gather.rows();
        assert_eq!(tasks.iter().map(|task| task.id.as_str()).collect::<Vec<_>>(), ["a0", "b3"]);
        assert_eq!(refused.iter().map(|one| one.row).collect::<Vec<_>>(), [2, 4]);
        assert!(refused[0].reason.starts_with("id: "), "{refused:?}");
    }

    #[test]
    fn a_column_that_a_whole_file_lacks_is_named_beside_those_that_there_are() {
        let names = |count: usize| (0..count).map(|at| format!("c{at}")).collect::<Vec<_>>();
        assert_eq!(lacking(&names(3), &["c2", "c0"]), None);
        assert_eq!(lacking(&names(2), &["c1", "c2"]).as_deref(), Some("there is no column `c2`; there are c0, c1"));
        assert_eq!(lacking(&names(1), &["a", "b"]).as_deref(), Some("there is no column `a`, `b`; there are c0"));
        let many = lacking(&names(1000), &["a"]).expect("none of them");
        assert!(many.ends_with("c18, c19 and 980 more"), "{many}");
    }
}
