//! A file of rows, of whichever kind it is. In: a path. Out: its rows. What the kinds are stands in the files beside this one.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use hypereyes_outside::files;

use crate::json::{self, Packing};
use crate::{Cell, arrow, parquet};

/// Beyond which a file's parts are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one text, or of the bytes of one cell. Default 64 MiB: a picture of 32 MiB in base64, and room.
    pub cell: usize,
    /// Bytes of memory that a row's cells take, and of the text of a JSON row. Default 512 MiB.
    pub row: usize,
    /// Bytes of what an Arrow file hands over at once, which may be many rows. Default 2 GiB.
    pub batch: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { cell: 64 << 20, row: 512 << 20, batch: 2 << 30 }
    }
}

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its place in the file, from 0; of JSON lines the number of the line, blank ones counted.
    pub number: u64,
    /// Always a struct; or why this row is none, which says nothing of the next.
    pub cells: Result<Cell, String>,
    /// Whether it is none because a limit is in its way.
    pub too_large: bool,
}

impl Row {
    pub(crate) fn of(number: u64, cells: Result<Cell, Fault>) -> Self {
        let too_large = matches!(cells, Err(Fault::TooLarge(_)));
        let cells = cells.map_err(|(Fault::TooLarge(why) | Fault::Wrong(why))| why);
        let cells = cells.and_then(|cell| match cell {
            Cell::Struct(_) => Ok(cell),
            other => Err(format!("is {}, not an object with columns", other.kind())),
        });
        Self { number, cells, too_large }
    }
}

/// Why a row is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A limit is in its way.
    TooLarge(String),
    /// It says something that cannot be read.
    Wrong(String),
}

impl Fault {
    /// The same, of a part of that name.
    pub(crate) fn within(self, name: &str) -> Self {
        match self {
            Self::TooLarge(why) => Self::TooLarge(format!("{name}: {why}")),
            Self::Wrong(why) => Self::Wrong(format!("{name}: {why}")),
        }
    }
}

/// One open file. It takes the memory of some rows, of parquet of one page for each column, of Arrow of what was written at once.
pub struct Table {
    rows: Box<dyn Rows>,
    kind: &'static str,
}

/// What a kind of file does.
pub(crate) trait Rows {
    fn columns(&self) -> Option<&[String]>;
    fn declared(&self) -> Option<u64>;
    fn next_row(&mut self) -> Result<Option<Row>, String>;
    fn share(&self) -> f64;
}

/// What endings mean where the content does not say it.
const KINDS: &str = "tables are parquet, Arrow (.arrow), JSON lines (.jsonl, .jsonl.gz) and JSON arrays (.json)";
const GZIP: [u8; 2] = [0x1f, 0x8b];

impl Table {
    /// Opens a file: parquet, Arrow IPC (a file or a stream), JSON lines (packed by gzip or not), or one JSON array of objects. What the
    /// file begins with says which; its name is asked only where that says nothing.
    ///
    /// # Errors
    /// A sentence without the path.
    pub fn open(path: &Path, limits: &Limits) -> Result<Self, String> {
        Self::of_columns(path, limits, None)
    }

    /// The same with these columns alone: what else a parquet file has is not read. Of other files every column is read; columns that are
    /// not there are not missed.
    ///
    /// # Errors
    /// As [`Table::open`].
    pub fn of_columns(path: &Path, limits: &Limits, columns: Option<&[&str]>) -> Result<Self, String> {
        let mut file = files::open(path, u64::MAX).map_err(|error| error.to_string())?;
        let mut head = Vec::new();
        Read::by_ref(&mut file).take(arrow::MAGIC.len() as u64).read_to_end(&mut head).map_err(|error| error.to_string())?;
        let file = again(file)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
        let (rows, kind): (Box<dyn Rows>, _) = if head.starts_with(parquet::MAGIC) {
            (Box::new(parquet::open(file, limits, columns)?), "parquet")
        } else if head.starts_with(arrow::MAGIC) || head.starts_with(&arrow::CONTINUATION) {
            (Box::new(arrow::open(file, limits)?), "arrow")
        } else if ends(&[".parquet", ".pq"]) {
            return Err(format!("cannot be read as parquet: it {}", begins(&head)));
        } else if ends(&[".arrow", ".feather", ".ipc"]) {
            return Err(format!("cannot be read as Arrow: it {}", begins(&head)));
        } else if head.starts_with(&GZIP) || ends(&[".gz"]) {
            (json::open(file, limits, Packing::Gzip)?, "json")
        } else if head.trim_ascii_start().starts_with(b"{")
            || head.trim_ascii_start().starts_with(b"[")
            || ends(&[".jsonl", ".ndjson", ".json"])
        {
            (json::open(file, limits, Packing::Plain)?, "json")
        } else {
            return Err(format!("is of no kind that is read: {KINDS}"));
        };
        Ok(Self { rows, kind })
    }

    /// What it is: `parquet`, `arrow` or `json`.
    pub fn kind(&self) -> &'static str {
        self.kind
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

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("kind", &self.kind).field("rows", &self.rows()).finish_non_exhaustive()
    }
}

/// From the start.
fn again(mut file: File) -> Result<File, String> {
    std::io::Seek::rewind(&mut file).map_err(|error| error.to_string())?;
    Ok(file)
}

fn begins(head: &[u8]) -> String {
    if head.is_empty() { "is empty".to_owned() } else { format!("begins with {:?}", String::from_utf8_lossy(head)) }
}

thread_local! {
    /// Whether this thread's panics are caught and become errors: nobody needs to hear of them twice.
    static IS_CAUGHT: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// What `work` says, also where it panics: libraries that read pages and buffers give up loudly on some damaged ones.
pub(crate) fn caught<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    static HOOK: std::sync::Once = std::sync::Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !IS_CAUGHT.get() {
                before(panic);
            }
        }));
    });
    IS_CAUGHT.set(true);
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    IS_CAUGHT.set(false);
    done.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(text.unwrap_or_else(|| "a part that cannot be read".into()))
    })
}
