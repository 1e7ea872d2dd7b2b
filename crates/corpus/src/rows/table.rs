//! Documents in tables: parquet, and JSON lines packed by gzip or not. In: a file. Out: rows, of the columns that documents have; the
//! others are passed over, and of parquet not read.

use std::path::Path;

use hypereyes_tables::{Cell, Limits, Table};

use super::{Row, Rows};
use crate::document::{Document, Fields, MOST_TEXT};
use crate::refused::Refusal;

/// Bytes of a row, at most: the longest text as JSON may write it (`\u0000` for a byte), and all else.
const MOST_ROW: usize = 8 * MOST_TEXT;

struct Documents(Table);

pub(super) fn open(path: &Path) -> Result<Box<dyn Rows>, String> {
    let limits = Limits { cell: MOST_ROW, row: MOST_ROW, ..Limits::default() };
    let table = Table::of_columns(path, &limits, Some(&Fields::NAMES))?;
    if let Some(columns) = table.columns()
        && !columns.iter().any(|column| ["text", "contents"].contains(&column.as_str()))
    {
        let names: Vec<&str> = columns.iter().map(String::as_str).take(20).collect();
        return Err(format!("it has neither a column text nor contents, but {}", names.join(", ")));
    }
    Ok(Box::new(Documents(table)))
}

impl Rows for Documents {
    fn next_row(&mut self) -> Result<Option<Row>, String> {
        let Some(row) = self.0.next_row()? else { return Ok(None) };
        let reason = if row.too_large { "too_long" } else { "no_row" };
        let document = row.cells.map_err(|why| Refusal::new(reason, why)).and_then(document);
        Ok(Some(Row { number: Some(row.number + 1), document }))
    }

    fn share(&self) -> f64 {
        self.0.share()
    }
}

fn document(mut row: Cell) -> Result<Document, Refusal> {
    let mut text = |name: &'static str| row.take(name).map(|cell| as_text(name, cell)).transpose();
    let [id, title, body, contents, url] = Fields::NAMES.map(&mut text);
    Fields { id: id?, title: title?, text: body?, contents: contents?, url: url? }.document()
}

/// A text, as bytes or not; ids may be numbers.
fn as_text(name: &str, cell: Cell) -> Result<String, Refusal> {
    match cell {
        Cell::Text(text) => Ok(text),
        Cell::Bytes(bytes) => String::from_utf8(bytes).map_err(|_| Refusal::new("no_row", format!("{name} is not UTF-8 text"))),
        Cell::Int(number) if name == "id" => Ok(number.to_string()),
        Cell::UInt(number) if name == "id" => Ok(number.to_string()),
        Cell::Float(number) if name == "id" => Ok(number.to_string()),
        other => Err(Refusal::new("no_row", format!("{name} is {}, not a text", other.kind()))),
    }
}
