//! Tables that others wrote: parquet, Arrow IPC, JSON lines and JSON arrays, read a row at a time; and parquet, written.
//!
//! In: a file. Out: rows, each a [`Cell`] that any `#[derive(Deserialize)]` struct can be made of, or why the row is none. A file that
//! breaks off or lies about itself is an error, whichever of its parts says so. It knows no column by name, no task and no picture.

mod arrow;
mod bounded;
mod cell;
mod convert;
mod de;
mod json;
mod parquet;
mod table;
mod thrift;
mod write;

pub use cell::Cell;
pub use de::CellError;
pub use table::{Limits, Row, Table};
pub use write::{Shape, Writer};
