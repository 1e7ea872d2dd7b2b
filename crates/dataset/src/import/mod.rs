//! Rows that others published, made into a task set.
//!
//! In: files of rows ([`hypereyes_tables`]), in a layout that is told from their columns ([`Format`]). Out: a folder that
//! [`crate::load_tasks`] and [`crate::Tasks`] read, or nothing written and only what would be in it; every row that is no task, with file,
//! number and reason. A file of any size takes the memory of some rows, and of every task some bytes.

mod columns;
mod format;
mod metadata;
mod place;
mod prompt;
mod seen;
mod source;
mod summary;
mod values;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use hypereyes_domain::{PictureId, Task, TaskId, TaskKind};
use hypereyes_outside::files;
use hypereyes_pictures::{Limits, Picture, picture_id};
use hypereyes_tables::{Cell, Table};

pub(crate) use columns::{KEPT, Kept};
pub use format::{Format, Keys};
pub(crate) use place::around;
pub(crate) use prompt::{MARK, without_marks};
pub use source::Source;
pub use summary::{FileSummary, Overlap, Summary};

use crate::encoded::{PictureCell, Places};
use crate::error::DataError;
use crate::lines::MAX_TASKS;
use crate::loaders::gather::Encoded;
use crate::pictures::{is_hash, path_of};
use crate::tasks::{Tasks, check, check_line, was_before};
use columns::{Made, Reader};
use place::Draft;
use seen::{Asked, Seen};
use source::Input;
use values::Name;

/// Rows of all files together, at most: what nobody can have meant.
const MAX_ROWS: u64 = 10_000_000;
/// Bytes of a task's name at most.
const MAX_NAME: usize = 512;
/// Pictures of the largest size that a row may have, or as many bytes of smaller ones: they are held until the row is a task.
const LARGEST_OF_ROW: usize = 16;
/// Rows between two words of progress.
const EVERY: u64 = 16;

/// Gets a picture at an address, or says why not.
pub type Fetch<'a> = dyn Fn(&str) -> Result<Vec<u8>, String> + 'a;

/// What is read, and how.
pub struct Request<'a> {
    /// Files and folders, in order.
    pub sources: Vec<Source>,
    /// The layout, where it is not to be told from the columns.
    pub format: Option<Format>,
    /// Columns that are called otherwise.
    pub keys: Keys,
    /// Whether paths of pictures may lead out of the folder of their file.
    pub anywhere: bool,
    /// Who gets pictures of which a row has only the address; none refuses such rows.
    pub fetch: Option<&'a Fetch<'a>>,
    /// A set that is held out: tasks that are in both are reported.
    pub held_out: Option<PathBuf>,
    /// Beyond which pictures are refused.
    pub limits: Limits,
}

/// How far it is.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// The file that is read.
    pub file: &'a Path,
    /// Rows so far.
    pub rows: u64,
    /// Tasks so far.
    pub tasks: u64,
    /// Refused so far.
    pub refused: u64,
    /// Part of all files that was read, about: 0..=1.
    pub share: f64,
}

/// Makes a task set at `out`, where nothing is yet, or an empty folder.
///
/// # Errors
/// [`DataError`] where a file cannot be read, or not to its end, and nothing is written then; or where nothing can be written.
pub fn import(request: &Request<'_>, out: &Path, tell: &mut dyn FnMut(Progress<'_>)) -> Result<Summary, DataError> {
    let mut draft = Draft::begin(out)?;
    let summary = Import::new(request, Some(&mut draft))?.run(tell)?;
    draft.finish()?;
    Ok(summary)
}

/// The same without writing anything: what an import would come to.
///
/// # Errors
/// As [`import`].
pub fn inspect(request: &Request<'_>, tell: &mut dyn FnMut(Progress<'_>)) -> Result<Summary, DataError> {
    Import::new(request, None)?.run(tell)
}

/// An import on its way.
struct Import<'a> {
    request: &'a Request<'a>,
    draft: Option<&'a mut Draft>,
    inputs: Vec<Input>,
    held_out: HashMap<Asked, TaskId>,
    seen: Seen,
    summary: Summary,
}

/// Why a row did not become a task.
enum Fault {
    /// The row is at fault, and the next one may be right.
    Row(String),
    /// It was there before.
    Twice(String),
    /// The machine is.
    Disk(DataError),
}

impl From<String> for Fault {
    fn from(reason: String) -> Self {
        Self::Row(reason)
    }
}

impl<'a> Import<'a> {
    fn new(request: &'a Request<'a>, draft: Option<&'a mut Draft>) -> Result<Self, DataError> {
        let inputs = source::inputs(&request.sources)?;
        let mut held_out = HashMap::new();
        if let Some(folder) = &request.held_out {
            for task in Tasks::open(folder)?.iter() {
                let task = task?;
                held_out.insert(Asked::of(&task.question, &task.pictures), task.id);
            }
        }
        let summary = Summary { overlaps: request.held_out.as_ref().map(|_| 0), ..Summary::default() };
        Ok(Self { request, draft, inputs, held_out, seen: Seen::default(), summary })
    }

    fn run(mut self, tell: &mut dyn FnMut(Progress<'_>)) -> Result<Summary, DataError> {
        let inputs = self.inputs.clone();
        let sizes: Vec<f64> =
            inputs.iter().map(|input| std::fs::metadata(&input.path).map_or(1.0, |about| about.len().max(1) as f64)).collect();
        let all: f64 = sizes.iter().sum();
        let mut before = 0.0;
        for (at, input) in inputs.iter().enumerate() {
            let weight = sizes[at] / all;
            self.file(at, input, &mut |progress| tell(Progress { share: before + weight * progress.share, ..progress }))?;
            before += weight;
        }
        self.summary.pictures = self.seen.pictures();
        self.summary.name_format();
        Ok(self.summary)
    }

    fn file(&mut self, at: usize, input: &Input, tell: &mut dyn FnMut(Progress<'_>)) -> Result<(), DataError> {
        let fault = |reason: String| DataError::File { path: input.path.clone(), reason };
        let mut table = Table::open(&input.path, &hypereyes_tables::Limits::default()).map_err(fault)?;
        if let Some(rows) = table.rows().filter(|rows| input.to.unwrap_or(*rows).min(*rows) > MAX_ROWS) {
            return Err(fault(format!("says that it has {rows} rows, at most {MAX_ROWS} are read: name a part of it, as FILE@[0:1000]")));
        }
        let mut summary = FileSummary { file: input.path.display().to_string(), ..FileSummary::default() };
        let mut format = self.request.format;
        let sparse = table.kind() != "json";
        while let Some(row) = table.next_row().map_err(fault)? {
            if row.number < input.from {
                continue;
            }
            if input.to.is_some_and(|to| row.number >= to) {
                break;
            }
            self.summary.rows += 1;
            summary.rows += 1;
            if self.summary.rows > MAX_ROWS {
                return Err(fault(format!("has more rows than are read ({MAX_ROWS}): name a part of it, as FILE@[0:1000]")));
            }
            let read = match row.cells {
                Ok(cells) => {
                    if format.is_none() {
                        format = Some(Format::of(&cells, &self.request.keys).ok_or_else(|| fault(unknown(&cells)))?);
                    }
                    let reader = Reader { format: format.unwrap_or(Format::Plain), keys: &self.request.keys, sparse };
                    reader.read(cells).map_err(Fault::Row).and_then(|made| self.take(at, input, row.number, made))
                }
                Err(why) => Err(Fault::Row(why)),
            };
            match read {
                Ok(()) => summary.tasks += 1,
                Err(Fault::Disk(error)) => return Err(error),
                Err(Fault::Row(reason)) => self.refuse(input, row.number, reason)?,
                Err(Fault::Twice(reason)) => {
                    self.summary.duplicates += 1;
                    self.refuse(input, row.number, reason)?;
                }
            }
            if summary.rows.is_multiple_of(EVERY) {
                tell(self.progress(input, table.share()));
            }
        }
        tell(self.progress(input, 1.0));
        summary.format = format;
        self.summary.files.push(summary);
        Ok(())
    }

    fn progress<'p>(&self, input: &'p Input, share: f64) -> Progress<'p> {
        let Summary { rows, tasks, refused_total, .. } = self.summary;
        Progress { file: &input.path, rows, tasks, refused: refused_total, share }
    }

    fn refuse(&mut self, input: &Input, row: u64, reason: String) -> Result<(), DataError> {
        let refused = self.summary.refuse(&input.path, row, reason);
        if self.summary.refused_total > MAX_TASKS as u64 {
            return Err(DataError::File {
                path: input.path.clone(),
                reason: format!("more than {MAX_TASKS} rows are no tasks; {}", refused.reason),
            });
        }
        self.draft.as_mut().map_or(Ok(()), |draft| draft.refuse(&refused))
    }

    /// Takes in what a row says.
    fn take(&mut self, at: usize, input: &Input, row: u64, made: Made) -> Result<(), Fault> {
        let Made { name, kind, question, answers, pictures, marks, reference, layer, shown, metadata, warnings } = made;
        let pictures: Vec<PictureCell> = pictures.into_iter().filter(|picture| !picture.is_empty()).collect();
        let mut warnings = warnings;
        match marks {
            Some(marks) if pictures.len() > marks => {
                return Err(Fault::Row(format!("it has {} pictures, and {MARK} {marks} times in what is asked", pictures.len())));
            }
            Some(marks) if pictures.len() < marks => {
                warnings.push(format!("it has {} pictures, and {MARK} {marks} times in what is asked", pictures.len()));
            }
            _ => {}
        }
        let answers = distinct(answers);
        let own = self.own_kind(input, kind);
        let (id, renamed) = self.name(input, row, name);
        warnings.extend(renamed);
        let mut task = Task { id, kind: own, question, answers, pictures: vec![], layer, shown, reference, metadata };
        if task.question.trim().is_empty() {
            return Err(Fault::Row(format!("task {} has no question", task.id)));
        }
        if task.id.as_str().is_empty() || task.id.as_str().len() > MAX_NAME {
            return Err(Fault::Row(format!("its name has {} bytes, and may have 1 to {MAX_NAME}", task.id.as_str().len())));
        }
        check(&task)?;
        let mut loaded = Vec::with_capacity(pictures.len());
        let several = pictures.len() > 1;
        let most = self.request.limits.max_bytes.saturating_mul(LARGEST_OF_ROW);
        let mut bytes = 0;
        for (number, cell) in pictures.into_iter().enumerate() {
            let which = if several { format!("picture {number} ") } else { "its picture ".to_owned() };
            let (id, content) = self.picture(input, cell).map_err(|why| format!("{which}{why}"))?;
            bytes += content.len();
            if bytes > most {
                return Err(Fault::Row(format!("its pictures have more than {most} bytes together")));
            }
            loaded.push((id, content));
        }
        task.pictures = loaded.iter().map(|(id, _)| id.clone()).collect();
        let asked = Asked::of(&task.question, &task.pictures);
        if let Some((place, others)) = self.seen.before(asked, &task.answers) {
            let with = if others { ", with other answers" } else { "" };
            let file = self.inputs.get(place.file).map_or_else(String::new, |input| input.path.display().to_string());
            return Err(Fault::Twice(format!("the same question and pictures are in row {} of {file}{with}", place.row)));
        }
        if self.seen.has_name(task.id.as_str()) {
            return Err(Fault::Row(was_before(&task)));
        }
        if self.summary.tasks == MAX_TASKS as u64 {
            let reason = format!("there are more than {MAX_TASKS} tasks: name a part of it, as FILE@[0:1000]");
            return Err(Fault::Disk(DataError::File { path: input.path.clone(), reason }));
        }
        let line = serde_json::to_vec(&task).expect("its keys are texts");
        check_line(&line).map_err(|why| format!("task {} {why}", task.id))?;
        if let Some(draft) = self.draft.as_mut() {
            for (id, bytes) in &loaded {
                draft.picture(id, bytes).map_err(Fault::Disk)?;
            }
            draft.task(&line).map_err(Fault::Disk)?;
        }
        if let Some(held) = self.held_out.get(&asked) {
            self.summary.overlap(&input.path, row, &task.id, held);
        }
        for warning in warnings {
            self.summary.warn(&input.path, row, warning);
        }
        self.seen.add(&task, asked, at, row);
        self.summary.task(&task);
        Ok(())
    }

    /// After what reports are split: what the row says, else its file's name.
    fn own_kind(&self, input: &Input, kind: String) -> TaskKind {
        if !kind.is_empty() {
            return TaskKind::new(kind);
        }
        let mut stem = input.stem.clone();
        while stem.len() > TaskKind::MAX_BYTES {
            stem.pop();
        }
        TaskKind::new(stem)
    }

    /// What the task is called, and whether that is not what its row says.
    fn name(&self, input: &Input, row: u64, name: Name) -> (TaskId, Option<String>) {
        let numbered = match name {
            Name::Said(id) => return (TaskId::new(id), None),
            Name::Numbered(number) => format!("{}/{number}", input.label),
            Name::None => return (TaskId::new(format!("{}/{row}", input.label)), None),
        };
        if !self.seen.has_name(&numbered) {
            return (TaskId::new(numbered), None);
        }
        let id = format!("{numbered}#{row}");
        let warning = format!("task {numbered} was there before: this one is called {id}");
        (TaskId::new(id), Some(warning))
    }

    /// A picture of a row: its name and its bytes, which are some.
    fn picture(&self, input: &Input, cell: PictureCell) -> Result<(PictureId, Vec<u8>), String> {
        let folder = around(&input.path);
        let named = cell.0.as_text().map(PictureId::new).filter(is_hash);
        let encoded = match (&named, self.request.fetch.zip(cell.address())) {
            (Some(id), _) => Encoded::File(path_of(folder, id)),
            (None, Some((fetch, address))) => Encoded::Bytes(fetch(address).map_err(|why| format!("cannot be fetched: {why}"))?),
            (None, None) => cell.resolve(Places { folder, anywhere: self.request.anywhere })?,
        };
        let limits = &self.request.limits;
        let bytes = match encoded {
            Encoded::Bytes(bytes) => bytes,
            Encoded::File(path) => files::read(&path, limits.max_bytes as u64).map_err(|error| format!("{}: {error}", path.display()))?,
        };
        let id = picture_id(&bytes);
        if named.is_some_and(|named| named != id) {
            return Err(format!("hashes to {id}; the file is damaged"));
        }
        if self.seen.has_picture(&id) {
            return Ok((id, bytes));
        }
        let picture = Picture::from_bytes(bytes.into(), limits).map_err(|error| format!("cannot be used: {error}"))?;
        Ok((id, picture.bytes.into()))
    }
}

/// The columns of a row that is in no layout.
fn unknown(row: &Cell) -> String {
    let Cell::Struct(fields) = row else { return "its rows have no columns".into() };
    let mut names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).take(20).collect();
    if fields.len() > names.len() {
        names.push("..");
    }
    let columns = if names.is_empty() { "no columns".to_owned() } else { names.join(", ") };
    let formats = Format::ALL.map(Format::name).join(", ");
    format!("its columns ({columns}) are those of no layout that is read ({formats}): name the column of what is asked with --input-key")
}

/// Answers that differ, in their order.
fn distinct(answers: Vec<String>) -> Vec<String> {
    let mut distinct: Vec<String> = Vec::with_capacity(answers.len());
    for answer in answers {
        if !answer.trim().is_empty() && !distinct.contains(&answer) {
            distinct.push(answer);
        }
    }
    distinct
}
