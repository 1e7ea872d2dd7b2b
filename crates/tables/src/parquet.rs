//! Rows of parquet (plain, Snappy or Zstandard). In: a file. Out: rows.
//!
//! Pages are as large as whoever wrote the file made them (a packed one of some kilobytes can claim 2 GiB): that much memory is the most
//! that a page costs. What the file says of itself at its end is looked over before the library allots what it claims (`thrift.rs`).

use std::fs::File;

use arrow_array::{RecordBatch, StructArray};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use crate::table::{Limits, Row, Rows, caught};
use crate::{convert, thrift};

/// What a file begins and ends with.
pub(crate) const MAGIC: &[u8] = b"PAR1";
/// Memory that rows which are read ahead may take, by what the file says of their size.
const AHEAD_BYTES: u64 = 8 << 20;
/// Rows that are read ahead at most.
const AHEAD: u64 = 256;

pub(crate) struct Parquet {
    reader: ParquetRecordBatchReader,
    columns: Vec<String>,
    limits: Limits,
    /// Rows that were read and not handed on, and which of them is next.
    batch: StructArray,
    next: usize,
    done: u64,
    of: u64,
}

pub(crate) fn open(mut file: File, limits: &Limits, columns: Option<&[&str]>) -> Result<Parquet, String> {
    let opened = thrift::check_footer(&mut file).and_then(|()| {
        caught(|| {
            let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
            let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options).map_err(|error| error.to_string())?;
            let of = declared(&builder)?;
            let names: Vec<String> = builder.schema().fields().iter().map(|field| field.name().clone()).collect();
            let wanted = |name: &String| columns.is_none_or(|columns| columns.contains(&name.as_str()));
            let roots = names.iter().enumerate().filter(|(_, name)| wanted(name)).map(|(at, _)| at);
            let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
            let ahead = ahead(&builder, of);
            let reader = builder.with_projection(mask).with_batch_size(ahead).build().map_err(|error| error.to_string())?;
            let batch = StructArray::from(RecordBatch::new_empty(reader_schema(&reader)));
            Ok(Parquet { reader, columns: names, limits: limits.clone(), batch, next: 0, done: 0, of })
        })
    });
    opened.map_err(|why| format!("cannot be read as parquet: {why}"))
}

fn reader_schema(reader: &ParquetRecordBatchReader) -> arrow_schema::SchemaRef {
    arrow_array::RecordBatchReader::schema(reader)
}

/// Rows that the file says it has: of all its parts, and of the whole, which must be the same.
fn declared(builder: &ParquetRecordBatchReaderBuilder<File>) -> Result<u64, String> {
    let metadata = builder.metadata();
    let says = metadata.file_metadata().num_rows();
    let mut parts: i64 = 0;
    for group in metadata.row_groups() {
        let rows = group.num_rows();
        parts = parts.checked_add(rows).filter(|_| rows >= 0).ok_or_else(|| format!("a part of it says that it has {rows} rows"))?;
    }
    let of = u64::try_from(says).map_err(|_| format!("it says that it has {says} rows"))?;
    if says != parts {
        return Err(format!("it says that it has {says} rows, and its parts have {parts}"));
    }
    Ok(of)
}

/// How many rows are read at once.
fn ahead(builder: &ParquetRecordBatchReaderBuilder<File>, rows: u64) -> usize {
    let bytes = builder.metadata().row_groups().iter().map(|group| u64::try_from(group.total_byte_size()).unwrap_or(0));
    let each = bytes.fold(0u64, u64::saturating_add) / rows.max(1);
    usize::try_from((AHEAD_BYTES / each.max(1)).clamp(1, AHEAD)).unwrap_or(1)
}

impl Rows for Parquet {
    fn columns(&self) -> Option<&[String]> {
        Some(&self.columns)
    }

    fn declared(&self) -> Option<u64> {
        Some(self.of)
    }

    fn next_row(&mut self) -> Result<Option<Row>, String> {
        while self.next == arrow_array::Array::len(&self.batch) {
            let read = caught(|| self.reader.next().transpose().map_err(|error| error.to_string()));
            let Some(batch) = read.map_err(|why| format!("is damaged behind row {}: {why}", self.done))? else {
                return match self.done == self.of {
                    true => Ok(None),
                    false => Err(format!("ends after {} of {} rows", self.done, self.of)),
                };
            };
            (self.batch, self.next) = (batch.into(), 0);
        }
        let cells = convert::row(&self.batch, self.next, &self.limits);
        let row = Row::of(self.done, cells);
        self.next += 1;
        self.done += 1;
        Ok(Some(row))
    }

    fn share(&self) -> f64 {
        self.done as f64 / self.of.max(1) as f64
    }
}
