//! Parquet, written a row at a time. In: what columns there are, and rows of cells. Out: a file that pyarrow, `datasets` and pandas read.
//! Some rows are held until they are written together.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, ListArray, RecordBatch, StringArray, StructArray};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::{DataType, Field, Fields, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::{EnabledStatistics, WriterProperties};

use crate::Cell;
use crate::table::caught;

/// Bytes of rows that are written together, about: whoever reads them holds a part of that size.
const GROUP_BYTES: usize = 64 << 20;
/// Rows that are written together at most.
const GROUP_ROWS: usize = 4096;

/// What a column holds. Every value may be null.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Yes or no.
    Bool,
    /// A whole number.
    Int,
    /// A number.
    Float,
    /// A text.
    Text,
    /// Bytes.
    Bytes,
    /// Several of one shape.
    List(Box<Shape>),
    /// Several by name.
    Struct(Vec<(&'static str, Shape)>),
}

impl Shape {
    fn data_type(&self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::Int => DataType::Int64,
            Self::Float => DataType::Float64,
            Self::Text => DataType::Utf8,
            Self::Bytes => DataType::Binary,
            Self::List(item) => DataType::List(item_field(item)),
            Self::Struct(fields) => DataType::Struct(fields_of(fields)),
        }
    }
}

fn item_field(item: &Shape) -> Arc<Field> {
    Arc::new(Field::new("element", item.data_type(), true))
}

fn fields_of(fields: &[(&'static str, Shape)]) -> Fields {
    fields.iter().map(|(name, shape)| Field::new(*name, shape.data_type(), true)).collect()
}

/// A parquet file that is being written.
pub struct Writer<W: Write + Send> {
    inner: ArrowWriter<W>,
    columns: Vec<(&'static str, Shape)>,
    schema: Arc<Schema>,
    held: Vec<Cell>,
    held_bytes: usize,
    rows: u64,
}

impl Writer<File> {
    /// A new file at `path`.
    ///
    /// # Errors
    /// What the file system says.
    pub fn create(path: &std::path::Path, columns: &[(&'static str, Shape)]) -> Result<Self, String> {
        Self::new(File::create(path).map_err(|error| error.to_string())?, columns)
    }
}

impl<W: Write + Send> Writer<W> {
    /// Writes to `out`.
    ///
    /// # Errors
    /// What the library says of such columns.
    pub fn new(out: W, columns: &[(&'static str, Shape)]) -> Result<Self, String> {
        let schema = Arc::new(Schema::new(fields_of(columns)));
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            // Of pictures both would be copies: the first and last of each page, and all of them once more.
            .set_statistics_enabled(EnabledStatistics::None)
            .set_dictionary_enabled(false)
            // How often the writer looks whether a page is full.
            .set_write_batch_size(16)
            .set_max_row_group_row_count(None)
            .build();
        let inner = ArrowWriter::try_new(out, schema.clone(), Some(properties)).map_err(|error| error.to_string())?;
        Ok(Self { inner, columns: columns.to_vec(), schema, held: vec![], held_bytes: 0, rows: 0 })
    }

    /// Writes a row: a struct with these columns. What it does not have is null.
    ///
    /// # Errors
    /// A value is of another shape than its column, which it names, or a column is not there; what the disk says.
    pub fn push(&mut self, row: Cell) -> Result<(), String> {
        if let Cell::Struct(fields) = &row
            && let Some((name, _)) = fields.iter().find(|(name, _)| self.columns.iter().all(|(column, _)| column != name))
        {
            return Err(format!("there is no column {name}"));
        }
        self.held_bytes += size(&row);
        self.held.push(row);
        if self.held_bytes >= GROUP_BYTES || self.held.len() >= GROUP_ROWS {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes what is held, and how to find it. Rows that were written.
    ///
    /// # Errors
    /// As [`Writer::push`].
    pub fn finish(mut self) -> Result<(W, u64), String> {
        self.flush()?;
        let rows = self.rows;
        let out = self.inner.into_inner().map_err(|error| error.to_string())?;
        Ok((out, rows))
    }

    fn flush(&mut self) -> Result<(), String> {
        if self.held.is_empty() {
            return Ok(());
        }
        let held = std::mem::take(&mut self.held);
        self.held_bytes = 0;
        self.rows += held.len() as u64;
        // One row can hold more than a column's offsets count.
        let columns = caught(|| structure(&self.columns, held))?;
        let batch = RecordBatch::try_new(self.schema.clone(), columns.columns().to_vec()).map_err(|error| error.to_string())?;
        self.inner.write(&batch).and_then(|()| self.inner.flush()).map_err(|error| error.to_string())
    }
}

/// Memory that a cell takes, about.
fn size(cell: &Cell) -> usize {
    let inner = match cell {
        Cell::Text(text) => text.len(),
        Cell::Bytes(bytes) => bytes.len(),
        Cell::List(cells) => cells.iter().map(size).sum(),
        Cell::Struct(fields) => fields.iter().map(|(name, cell)| name.len() + size_of::<String>() + size(cell)).sum(),
        _ => 0,
    };
    inner + size_of::<Cell>()
}

/// The values of one column.
fn array(shape: &Shape, cells: Vec<Cell>) -> Result<ArrayRef, String> {
    Ok(match shape {
        Shape::Bool => Arc::new(
            each(cells, |cell| match cell {
                Cell::Bool(value) => Ok(value),
                other => Err(other),
            })?
            .into_iter()
            .collect::<BooleanArray>(),
        ),
        Shape::Int => Arc::new(
            each(cells, |cell| match cell {
                Cell::Int(value) => Ok(value),
                other => Err(other),
            })?
            .into_iter()
            .collect::<Int64Array>(),
        ),
        Shape::Float => Arc::new(
            each(cells, |cell| match cell {
                Cell::Float(value) => Ok(value),
                other => Err(other),
            })?
            .into_iter()
            .collect::<Float64Array>(),
        ),
        Shape::Text => Arc::new(
            each(cells, |cell| match cell {
                Cell::Text(text) => Ok(text),
                other => Err(other),
            })?
            .into_iter()
            .collect::<StringArray>(),
        ),
        Shape::Bytes => Arc::new(
            each(cells, |cell| match cell {
                Cell::Bytes(bytes) => Ok(bytes),
                other => Err(other),
            })?
            .into_iter()
            .collect::<BinaryArray>(),
        ),
        Shape::Struct(fields) => Arc::new(structure(fields, cells)?),
        Shape::List(item) => {
            let lists = each(cells, |cell| match cell {
                Cell::List(items) => Ok(items),
                other => Err(other),
            })?;
            let nulls: NullBuffer = lists.iter().map(Option::is_some).collect();
            let offsets = OffsetBuffer::from_lengths(lists.iter().map(|list| list.as_ref().map_or(0, Vec::len)));
            let items = array(item, lists.into_iter().flatten().flatten().collect())?;
            Arc::new(ListArray::try_new(item_field(item), offsets, items, Some(nulls)).map_err(|error| error.to_string())?)
        }
    })
}

/// The values of several columns, of which each row has some.
fn structure(fields: &[(&'static str, Shape)], cells: Vec<Cell>) -> Result<StructArray, String> {
    let mut rows = each(cells, |cell| match cell {
        Cell::Struct(fields) => Ok(Cell::Struct(fields)),
        other => Err(other),
    })?;
    let nulls: NullBuffer = rows.iter().map(Option::is_some).collect();
    let count = rows.len();
    let mut arrays = Vec::with_capacity(fields.len());
    for (name, shape) in fields {
        let values = rows.iter_mut().map(|row| row.as_mut().and_then(|row| row.take(name)).unwrap_or(Cell::Null)).collect();
        arrays.push(array(shape, values).map_err(|why| format!("{name}: {why}"))?);
    }
    StructArray::try_new_with_length(fields_of(fields), arrays, Some(nulls), count).map_err(|error| error.to_string())
}

/// Values as a column has them.
fn each<T>(cells: Vec<Cell>, value: impl Fn(Cell) -> Result<T, Cell>) -> Result<Vec<Option<T>>, String> {
    let one = |cell: Cell| match cell {
        Cell::Null => Ok(None),
        cell => value(cell).map(Some).map_err(|other| format!("{} does not fit into it", other.kind())),
    };
    cells.into_iter().map(one).collect()
}
