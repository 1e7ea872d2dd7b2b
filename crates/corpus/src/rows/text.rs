//! A text file as one document: its title is the file's name without the ending. In: a file. Out: one row.

use std::io::ErrorKind;
use std::path::Path;

use hypereyes_outside::files;

use super::{Row, Rows};
use crate::document::{Document, Fields, MOST_TEXT};
use crate::refused::Refusal;

struct Text {
    row: Option<Row>,
}

pub(super) fn open(path: &Path) -> Result<Box<dyn Rows>, String> {
    let document = match files::read_to_string(path, MOST_TEXT as u64) {
        Ok(text) => document(path, text),
        Err(error) if error.kind() == ErrorKind::FileTooLarge => Err(Refusal::new("too_long", error.to_string())),
        Err(error) if error.kind() == ErrorKind::InvalidData => Err(Refusal::new("no_row", error.to_string())),
        Err(error) => return Err(error.to_string()),
    };
    Ok(Box::new(Text { row: Some(Row { number: None, document }) }))
}

fn document(path: &Path, text: String) -> Result<Document, Refusal> {
    let title = path.file_stem().map(|stem| stem.to_string_lossy().replace('_', " "));
    let id = path.file_name().map(|name| name.to_string_lossy().into_owned());
    Fields { id, title, text: Some(text), ..Fields::default() }.document()
}

impl Rows for Text {
    fn next_row(&mut self) -> Result<Option<Row>, String> {
        Ok(self.row.take())
    }

    fn share(&self) -> f64 {
        if self.row.is_none() { 1.0 } else { 0.0 }
    }
}
