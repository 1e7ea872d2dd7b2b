//! Tables that others wrote, and ours that others read.

mod hostile;
mod json;
mod types;
mod write;

use std::path::{Path, PathBuf};

use hypereyes_tables::{Cell, Limits, Row, Table};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// All rows of a file, or what is wrong with it.
fn rows_within(path: &Path, limits: &Limits) -> Result<Vec<Row>, String> {
    let mut table = Table::open(path, limits)?;
    let mut rows = Vec::new();
    while let Some(row) = table.next_row()? {
        assert!((0.0..=1.0).contains(&table.share()));
        rows.push(row);
    }
    Ok(rows)
}

fn rows(path: &Path) -> Result<Vec<Row>, String> {
    rows_within(path, &Limits::default())
}

/// The cells of rows that are all sound.
fn cells(path: &Path) -> Vec<Cell> {
    let rows = rows(path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    rows.into_iter().map(|row| row.cells.unwrap_or_else(|why| panic!("{}: row {}: {why}", path.display(), row.number))).collect()
}
