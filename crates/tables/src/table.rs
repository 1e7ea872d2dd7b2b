//! A file of rows, of whichever kind it is. In: a path. Out: its rows. What the kinds are stands in the files beside this one.

use std::path::Path;

use crate::Cell;

/// Beyond which a file's parts are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one text, or of the bytes of one cell. Default 64 MiB: a picture of 32 MiB in base64, and room.
    pub cell: usize,
    /// Bytes of memory that a row's cells take. Default 512 MiB.
    pub row: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { cell: 64 << 20, row: 512 << 20 }
    }
}

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its place in the file, from 0; of JSON lines the number of the line, blank ones counted.
    pub number: u64,
    /// Always a struct; or why this row is none, which says nothing of the next.
    pub cells: Result<Cell, String>,
}

/// One open file. It takes the memory of some rows, and of parquet one page for each column.
pub struct Table {
    rows: Box<dyn Rows>,
}

/// What a kind of file does.
pub(crate) trait Rows {
    fn columns(&self) -> Option<&[String]>;
    fn declared(&self) -> Option<u64>;
    fn next_row(&mut self) -> Result<Option<Row>, String>;
    fn share(&self) -> f64;
}

impl Table {
    /// Opens a file: parquet, Arrow IPC (a file or a stream), JSON lines (packed by gzip or not), or one JSON array of objects. What the
    /// file begins with says which; its name is asked only where that says nothing.
    ///
    /// # Errors
    /// A sentence without the path.
    pub fn open(_path: &Path, _limits: &Limits) -> Result<Self, String> {
        Err("not yet".into())
    }

    /// The names of the columns, where the file says them beforehand; JSON does not.
    pub fn columns(&self) -> Option<&[String]> {
        self.rows.columns()
    }

    /// Rows that the file declares; not believed by [`Table::next_row`].
    pub fn rows(&self) -> Option<u64> {
        self.rows.declared()
    }

    /// The next row; `None` behind the last.
    ///
    /// # Errors
    /// A sentence about the file, which cannot be read on.
    pub fn next_row(&mut self) -> Result<Option<Row>, String> {
        self.rows.next_row()
    }

    /// Which part of the file was read, about: 0..=1.
    pub fn share(&self) -> f64 {
        self.rows.share()
    }
}
