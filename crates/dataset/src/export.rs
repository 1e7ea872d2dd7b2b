//! A task set as parquet that verl, HyperEyes and MMSearch-R1 read. In: a folder. Out: a file with their columns, a row per task, pictures
//! within; rows are written as they are read. What those columns have no place for stands in `extra_info.hypereyes` as JSON text, so that
//! [`crate::import`] makes the same tasks of it.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use hypereyes_domain::{PictureId, Reference, Task};
use hypereyes_outside::{atomic, files};
use hypereyes_pictures::{Limits, picture_id};
use hypereyes_tables::{Cell, Shape, Writer};
use serde::Serialize;
use serde_json::Value;

use crate::error::{DataError, file};
use crate::import::{KEPT, Kept, MARK, around, without_marks};
use crate::pictures::path_of;
use crate::tasks::Tasks;

/// Rounds whose searches are listed one by one; a set may claim any number.
const ROUNDS_LISTED: u32 = 1000;

/// What else a row says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `extra_info.split`.
    pub split: String,
    /// A system message before what the user asks; of tasks that have their published prompt, that one is written.
    pub system: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { split: "train".into(), system: None }
    }
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// A row per task.
    pub rows: u64,
    /// Pictures, each as often as a task has it.
    pub pictures: u64,
    /// Of the file.
    pub bytes: u64,
    /// Tasks whose known cost is in `extra_info`.
    pub references: u64,
}

/// Writes the tasks of a folder to `out`, where nothing is yet, and which is there whole or not at all; `tell` is told how many of how many are written.
///
/// # Errors
/// [`DataError`] where the set cannot be read, a picture is missing or another, or nothing can be written.
pub fn export(folder: &Path, out: &Path, options: &Options, tell: &mut dyn FnMut(usize, usize)) -> Result<Exported, DataError> {
    let tasks = Tasks::open(folder)?;
    let failed = |reason: String| DataError::File { path: out.to_owned(), reason };
    if std::fs::symlink_metadata(out).is_ok() {
        return Err(failed("is there already: name another, or remove it".into()));
    }
    let parent = around(out);
    // As any new file: the process's mask decides.
    let permissions = Permissions::from_mode(0o666);
    let temporary = tempfile::Builder::new().prefix(".export-").permissions(permissions).tempfile_in(parent);
    let temporary = temporary.map_err(|error| file(parent, &error))?;
    let mut exported = Exported::default();
    let mut writer = Writer::new(temporary, &columns()).map_err(failed)?;
    for at in 0..tasks.len() {
        let task = tasks.get(at)?;
        let pictures = task.pictures.iter().map(|id| picture(folder, id)).collect::<Result<Vec<_>, _>>()?;
        exported.pictures += pictures.len() as u64;
        exported.references += u64::from(task.reference.is_some());
        writer.push(row(&task, pictures, options)).map_err(failed)?;
        tell(at + 1, tasks.len());
    }
    let (temporary, rows) = writer.finish().map_err(failed)?;
    exported.rows = rows;
    temporary.as_file().sync_all().map_err(|error| file(out, &error))?;
    exported.bytes = temporary.as_file().metadata().map_err(|error| file(out, &error))?.len();
    temporary.persist_noclobber(out).map_err(|error| file(out, &error.error))?;
    atomic::sync(parent).map_err(|error| file(parent, &error))?;
    Ok(exported)
}

fn columns() -> Vec<(&'static str, Shape)> {
    let message = Shape::Struct(vec![("role", Shape::Text), ("content", Shape::Text)]);
    let picture = Shape::Struct(vec![("bytes", Shape::Bytes), ("path", Shape::Text)]);
    vec![
        ("data_source", Shape::Text),
        ("prompt", Shape::List(Box::new(message))),
        ("images", Shape::List(Box::new(picture))),
        ("ability", Shape::Text),
        ("reward_model", Shape::Struct(vec![("style", Shape::Text), ("ground_truth", Shape::Text), ("candidate_answers", Shape::Text)])),
        (
            "extra_info",
            Shape::Struct(vec![
                ("split", Shape::Text),
                ("index", Shape::Text),
                ("question", Shape::Text),
                ("answer", Shape::Text),
                ("type", Shape::Text),
                ("tool_call", Shape::Int),
                ("parallel", Shape::Text),
                (KEPT, Shape::Text),
            ]),
        ),
    ]
}

fn object(fields: impl IntoIterator<Item = (&'static str, Cell)>) -> Cell {
    Cell::Struct(fields.into_iter().map(|(name, cell)| (name.to_owned(), cell)).collect())
}

fn text(text: impl Into<String>) -> Cell {
    Cell::Text(text.into())
}

fn row(task: &Task, pictures: Vec<Cell>, options: &Options) -> Cell {
    let of = |name: &str| task.metadata.get(name).and_then(Value::as_str);
    let style = task.metadata.get("reward_model").and_then(|reward| reward.get("style")).and_then(Value::as_str);
    let candidates = task.answers.get(1..).unwrap_or_default();
    let reward = [
        ("style", text(style.unwrap_or("model"))),
        ("ground_truth", text(task.answer())),
        ("candidate_answers", text(Value::from(candidates).to_string())),
    ];
    let kept = Kept {
        id: task.id.as_str().to_owned(),
        kind: task.kind.as_str().to_owned(),
        layer: task.layer,
        shown: task.shown.clone(),
        question: (without_marks(&task.question) != task.question).then(|| task.question.clone()),
        metadata: task.metadata.clone(),
    };
    let (rounds, parallel) = match task.reference {
        Some(reference) => (Cell::Int(reference.rounds.into()), text(searches(task, reference))),
        None => (Cell::Null, Cell::Null),
    };
    let extra = [
        ("split", text(&*options.split)),
        ("index", text(task.id.as_str())),
        ("question", text(&*task.question)),
        ("answer", text(task.answer())),
        ("type", text("only_acc")),
        ("tool_call", rounds),
        ("parallel", parallel),
        (KEPT, text(serde_json::to_string(&kept).expect("plain values"))),
    ];
    object([
        ("data_source", text(of("data_source").unwrap_or("hypereyes"))),
        ("prompt", prompt(task, options)),
        ("images", Cell::List(pictures)),
        ("ability", text(of("ability").unwrap_or(task.kind.as_str()))),
        ("reward_model", object(reward)),
        ("extra_info", object(extra)),
    ])
}

/// The published prompt, where it marks as many pictures as the task has; else the question behind the marks of all.
fn prompt(task: &Task, options: &Options) -> Cell {
    if let Some(messages) = task.metadata.get("prompt").and_then(published)
        && messages.iter().map(|(_, content)| content.matches(MARK).count()).sum::<usize>() == task.pictures.len()
    {
        return Cell::List(
            messages.into_iter().map(|(role, content)| object([("role", text(role)), ("content", text(content))])).collect(),
        );
    }
    let mut asked = format!("{MARK}\n").repeat(task.pictures.len());
    // What looks like a mark would be taken for one.
    asked.push_str(&without_marks(&task.question));
    let system = options.system.as_ref().map(|system| object([("role", text("system")), ("content", text(&**system))]));
    Cell::List(system.into_iter().chain([object([("role", text("user")), ("content", text(asked))])]).collect())
}

/// Roles and texts of messages; a text alone is the user's.
fn published(prompt: &Value) -> Option<Vec<(&str, &str)>> {
    match prompt {
        Value::String(text) => Some(vec![("user", text)]),
        Value::Array(messages) => {
            messages.iter().map(|message| Some((message.get("role")?.as_str()?, message.get("content")?.as_str()?))).collect()
        }
        _ => None,
    }
}

/// Searches of each round, as a JSON list: those that were published, where they still are the task's; else the first round has what the
/// others, with one each, do not have.
fn searches(task: &Task, reference: Reference) -> String {
    let places = [task.metadata.get("extra_info").and_then(|extra| extra.get("parallel")), task.metadata.get("parallel")];
    let published = places.into_iter().flatten().find_map(|value| match value {
        Value::String(text) => serde_json::from_str::<Vec<u32>>(text).ok(),
        value => serde_json::from_value(value.clone()).ok(),
    });
    let sum = |each: &[u32]| each.iter().map(|one| u64::from(*one)).sum::<u64>();
    if let Some(each) = published.filter(|each| sum(each) == u64::from(reference.searches)) {
        return serde_json::to_string(&each).expect("numbers");
    }
    let (rounds, searches) = (reference.rounds.min(ROUNDS_LISTED), reference.searches);
    // Rounds beyond the searches found nothing to search.
    let ones = (rounds - 1).min(searches - 1);
    let mut each = vec![searches - ones];
    each.extend((1..rounds).map(|at| u32::from(at <= ones)));
    serde_json::to_string(&each).expect("numbers")
}

/// A picture of the set, whose bytes are what its name says.
fn picture(folder: &Path, id: &PictureId) -> Result<Cell, DataError> {
    let path = path_of(folder, id);
    let bytes = files::read(&path, Limits::default().max_bytes as u64).map_err(|error| file(&path, &error))?;
    if picture_id(&bytes) != *id {
        return Err(DataError::File { path, reason: format!("its content hashes to {}; the file is damaged", picture_id(&bytes)) });
    }
    let ending = if bytes.starts_with(b"\x89PNG") { "png" } else { "jpg" };
    Ok(object([("bytes", Cell::Bytes(bytes)), ("path", text(format!("{id}.{ending}")))]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn searches_of_rounds_add_up_and_are_as_published_where_they_still_do() {
        let said = |rounds: u32, searched: u32, parallel: &str| -> Vec<u32> {
            let row = format!(
                r#"{{"id": "a", "kind": "k", "question": "q", "answers": ["a"], "reference": {{"rounds": {rounds}, "searches": {searched}}},
                "metadata": {{"parallel": {parallel}}}}}"#
            );
            let task: Task = serde_json::from_str(&row).expect("a task");
            serde_json::from_str(&searches(&task, task.reference.expect("said"))).expect("a list")
        };
        assert_eq!(said(2, 3, "[1, 2]"), [1, 2]);
        assert_eq!(said(2, 4, "[1, 2]"), [3, 1], "another task by now");
        assert_eq!(said(3, 2, "null"), [1, 1, 0]);
        // Nobody's memory is what a set claims.
        let many = said(u32::MAX, u32::MAX, "null");
        assert_eq!((many.len(), many.iter().map(|one| u64::from(*one)).sum::<u64>()), (1000, u64::from(u32::MAX)));
    }
}
