//! Documents in parquet (plain, Snappy or Zstandard). In: a file. Out: rows, of the columns that documents have; the others are not read.
//!
//! Pages are as large as whoever wrote the file made them (a packed one of some kilobytes can claim 2 GiB): a file must be from somebody
//! who means well. The library that reads pages gives up loudly on some damaged ones: that is caught, and the file is what is wrong.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use hypereyes_outside::files;
use parquet::basic::Type as Physical;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row as Record};
use parquet::schema::types::Type;

use super::{Row, Rows};
use crate::document::{Document, Fields};
use crate::refused::Refusal;

/// Rows that are read ahead: each may have the longest text.
const AHEAD: usize = 16;

struct Parquet {
    rows: RowIter<'static>,
    done: u64,
    of: u64,
}

pub(super) fn open(path: &Path) -> Result<Box<dyn Rows>, String> {
    let file = files::open(path, u64::MAX).map_err(|error| error.to_string())?;
    let opened = caught(|| {
        let reader = SerializedFileReader::new(file).map_err(|error| error.to_string())?;
        let about = reader.metadata().file_metadata();
        let of = u64::try_from(about.num_rows()).unwrap_or(0);
        let columns = columns(about.schema())?;
        let rows = RowIter::from_file_into(Box::new(reader)).project(Some(columns)).map_err(|error| error.to_string())?;
        Ok(Parquet { rows: rows.with_batch_size(AHEAD), done: 0, of })
    });
    Ok(Box::new(opened.map_err(|why| format!("cannot be read as parquet: {why}"))?))
}

/// The columns of a schema that documents have.
fn columns(schema: &Type) -> Result<Type, String> {
    let fields = schema.get_fields();
    let ours: Vec<Arc<Type>> = fields.iter().filter(|field| Fields::NAMES.contains(&field.name())).cloned().collect();
    for column in &ours {
        let name = column.name();
        let is_text = column.is_primitive() && column.get_physical_type() == Physical::BYTE_ARRAY;
        let is_number = column.is_primitive() && matches!(column.get_physical_type(), Physical::INT32 | Physical::INT64);
        if !(is_text || name == "id" && is_number) {
            return Err(format!("its column {name} holds no text"));
        }
    }
    if !ours.iter().any(|column| ["text", "contents"].contains(&column.name())) {
        let names: Vec<&str> = fields.iter().map(|field| field.name()).take(20).collect();
        return Err(format!("it has neither a column text nor contents, but {}", names.join(", ")));
    }
    Type::group_type_builder(schema.name()).with_fields(ours).build().map_err(|error| error.to_string())
}

impl Rows for Parquet {
    fn next_row(&mut self) -> Result<Option<Row>, String> {
        let next = caught(|| self.rows.next().transpose().map_err(|error| error.to_string()));
        let Some(record) = next.map_err(|why| format!("is damaged behind row {}: {why}", self.done))? else {
            return match self.done == self.of {
                true => Ok(None),
                false => Err(format!("ends after {} of {} rows", self.done, self.of)),
            };
        };
        self.done += 1;
        Ok(Some(Row { number: Some(self.done), document: document(record) }))
    }

    fn share(&self) -> f64 {
        self.done as f64 / self.of.max(1) as f64
    }
}

fn document(record: Record) -> Result<Document, Refusal> {
    let mut fields = Fields::default();
    for (name, value) in record.into_columns() {
        let text = match value {
            Field::Null => None,
            Field::Str(text) => Some(text),
            Field::Bytes(bytes) => {
                let text = String::from_utf8(bytes.data().to_vec());
                Some(text.map_err(|_| Refusal::new("no_row", format!("{name} is not UTF-8 text")))?)
            }
            Field::Byte(number) => Some(number.to_string()),
            Field::Short(number) => Some(number.to_string()),
            Field::Int(number) => Some(number.to_string()),
            Field::Long(number) => Some(number.to_string()),
            Field::UByte(number) => Some(number.to_string()),
            Field::UShort(number) => Some(number.to_string()),
            Field::UInt(number) => Some(number.to_string()),
            Field::ULong(number) => Some(number.to_string()),
            _ => return Err(Refusal::new("no_row", format!("{name} is no text"))),
        };
        let place = match name.as_str() {
            "id" => &mut fields.id,
            "title" => &mut fields.title,
            "text" => &mut fields.text,
            "contents" => &mut fields.contents,
            _ => &mut fields.url,
        };
        *place = text;
    }
    fields.document()
}

/// What `work` says, also where it panics.
fn caught<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(text.unwrap_or_else(|| "a page that cannot be read".into()))
    })
}
