//! A row of Arrow's columns as cells, whichever file the columns came from. In: columns and a row's number. Out: a struct, or why the row is
//! none: a limit, or a type that is not read, with the name of its column.
//!
//! Dates and times become texts as ISO 8601 has them, decimals texts with all their digits, dictionaries what they stand for, and maps with
//! texts as keys structs.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, ArrowTemporalType, Date32Type, Date64Type, Decimal128Type, Decimal256Type, Float16Type, Float32Type, Float64Type,
    Int8Type, Int16Type, Int32Type, Int64Type, Time32MillisecondType, Time32SecondType, Time64MicrosecondType, Time64NanosecondType,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use arrow_array::{Array, StructArray};
use arrow_schema::{DataType, TimeUnit};

use crate::Cell;
use crate::table::{Fault, Limits};

/// Row `at` of some columns.
pub(crate) fn row(columns: &StructArray, at: usize, limits: &Limits) -> Result<Cell, Fault> {
    let mut reading = Reading { limits, left: limits.row };
    reading.fields(columns, at)
}

/// One row, as far as it was read.
struct Reading<'a> {
    limits: &'a Limits,
    /// Bytes of memory that the rest of the row may take.
    left: usize,
}

/// The value of a number at `at`.
fn number<T: ArrowPrimitiveType>(array: &dyn Array, at: usize) -> T::Native {
    array.as_primitive::<T>().value(at)
}

/// The text of a moment. Times of day and dates beyond the calendar are none.
fn moment<T: ArrowTemporalType>(array: &dyn Array, at: usize, what: Moment) -> Result<Cell, Fault>
where
    i64: From<T::Native>,
{
    let array = array.as_primitive::<T>();
    let text = match what {
        Moment::Date => array.value_as_date(at).map(|date| format!("{date:?}")),
        Moment::Time => array.value_as_time(at).map(|time| format!("{time:?}")),
        Moment::Both { zone } => array.value_as_datetime(at).map(|both| format!("{both:?}{}", if zone { "Z" } else { "" })),
    };
    text.map(Cell::Text).ok_or_else(|| Fault::Wrong("is a time that no calendar has".into()))
}

/// What of a moment a column holds.
#[derive(Clone, Copy)]
enum Moment {
    Date,
    Time,
    /// A zone means that the moment is one of UTC.
    Both {
        zone: bool,
    },
}

impl Reading<'_> {
    fn pay(&mut self, bytes: usize) -> Result<(), Fault> {
        let too_large = || Fault::TooLarge(format!("the row takes more than {} bytes of memory", self.limits.row));
        self.left = self.left.checked_sub(bytes).ok_or_else(too_large)?;
        Ok(())
    }

    /// Pays for a text or for bytes.
    fn pay_content(&mut self, bytes: usize) -> Result<(), Fault> {
        if bytes > self.limits.cell {
            return Err(Fault::TooLarge(format!("has {bytes} bytes, at most {} are read", self.limits.cell)));
        }
        self.pay(bytes)
    }

    fn text(&mut self, text: &str) -> Result<Cell, Fault> {
        self.pay_content(text.len())?;
        Ok(Cell::Text(text.to_owned()))
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<Cell, Fault> {
        self.pay_content(bytes.len())?;
        Ok(Cell::Bytes(bytes.to_vec()))
    }

    fn list(&mut self, array: &dyn Array, from: usize, to: usize) -> Result<Cell, Fault> {
        let cells: Result<_, _> =
            (from..to).map(|at| self.cell(array, at).map_err(|fault| fault.within(&format!("[{}]", at - from)))).collect();
        cells.map(Cell::List)
    }

    fn fields(&mut self, columns: &StructArray, at: usize) -> Result<Cell, Fault> {
        let mut fields = Vec::with_capacity(columns.num_columns());
        for (field, array) in columns.fields().iter().zip(columns.columns()) {
            self.pay(size_of::<String>() + field.name().len())?;
            let cell = self.cell(array, at).map_err(|fault| fault.within(field.name()))?;
            fields.push((field.name().clone(), cell));
        }
        Ok(Cell::Struct(fields))
    }

    fn cell(&mut self, array: &dyn Array, at: usize) -> Result<Cell, Fault> {
        self.pay(size_of::<Cell>())?;
        if array.is_null(at) {
            return Ok(Cell::Null);
        }
        Ok(match array.data_type() {
            DataType::Null => Cell::Null,
            DataType::Boolean => Cell::Bool(array.as_boolean().value(at)),
            DataType::Int8 => Cell::Int(number::<Int8Type>(array, at).into()),
            DataType::Int16 => Cell::Int(number::<Int16Type>(array, at).into()),
            DataType::Int32 => Cell::Int(number::<Int32Type>(array, at).into()),
            DataType::Int64 => Cell::Int(number::<Int64Type>(array, at)),
            DataType::UInt8 => Cell::Int(number::<UInt8Type>(array, at).into()),
            DataType::UInt16 => Cell::Int(number::<UInt16Type>(array, at).into()),
            DataType::UInt32 => Cell::Int(number::<UInt32Type>(array, at).into()),
            DataType::UInt64 => {
                let value = number::<UInt64Type>(array, at);
                i64::try_from(value).map_or(Cell::UInt(value), Cell::Int)
            }
            DataType::Float16 => Cell::Float(number::<Float16Type>(array, at).to_f64()),
            DataType::Float32 => Cell::Float(number::<Float32Type>(array, at).into()),
            DataType::Float64 => Cell::Float(number::<Float64Type>(array, at)),
            DataType::Utf8 => self.text(array.as_string::<i32>().value(at))?,
            DataType::LargeUtf8 => self.text(array.as_string::<i64>().value(at))?,
            DataType::Utf8View => self.text(array.as_string_view().value(at))?,
            DataType::Binary => self.bytes(array.as_binary::<i32>().value(at))?,
            DataType::LargeBinary => self.bytes(array.as_binary::<i64>().value(at))?,
            DataType::BinaryView => self.bytes(array.as_binary_view().value(at))?,
            DataType::FixedSizeBinary(_) => self.bytes(array.as_fixed_size_binary().value(at))?,
            DataType::Struct(_) => self.fields(array.as_struct(), at)?,
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                let [from, to] = [at, at + 1].map(|at| list.value_offsets()[at] as usize);
                self.list(list.values(), from, to)?
            }
            DataType::LargeList(_) => {
                let list = array.as_list::<i64>();
                let [from, to] = [at, at + 1].map(|at| list.value_offsets()[at] as usize);
                self.list(list.values(), from, to)?
            }
            DataType::FixedSizeList(_, _) => {
                let items = array.as_fixed_size_list().value(at);
                self.list(&items, 0, items.len())?
            }
            DataType::Map(_, _) => {
                let entries = self.cell_of_entries(&array.as_map().value(at))?;
                named(entries)
            }
            DataType::Dictionary(_, _) => {
                let dictionary = array.as_any_dictionary();
                match self.cell(dictionary.keys(), at)? {
                    Cell::Int(key) if key >= 0 => self.cell(dictionary.values(), key as usize)?,
                    _ => return Err(Fault::Wrong("is a word of a dictionary that has it not".into())),
                }
            }
            DataType::Date32 => moment::<Date32Type>(array, at, Moment::Date)?,
            DataType::Date64 => moment::<Date64Type>(array, at, Moment::Date)?,
            DataType::Time32(TimeUnit::Second) => moment::<Time32SecondType>(array, at, Moment::Time)?,
            DataType::Time32(_) => moment::<Time32MillisecondType>(array, at, Moment::Time)?,
            DataType::Time64(TimeUnit::Microsecond) => moment::<Time64MicrosecondType>(array, at, Moment::Time)?,
            DataType::Time64(_) => moment::<Time64NanosecondType>(array, at, Moment::Time)?,
            DataType::Timestamp(unit, zone) => {
                let both = Moment::Both { zone: zone.is_some() };
                match unit {
                    TimeUnit::Second => moment::<TimestampSecondType>(array, at, both)?,
                    TimeUnit::Millisecond => moment::<TimestampMillisecondType>(array, at, both)?,
                    TimeUnit::Microsecond => moment::<TimestampMicrosecondType>(array, at, both)?,
                    TimeUnit::Nanosecond => moment::<TimestampNanosecondType>(array, at, both)?,
                }
            }
            DataType::Decimal128(_, _) => Cell::Text(array.as_primitive::<Decimal128Type>().value_as_string(at)),
            DataType::Decimal256(_, _) => Cell::Text(array.as_primitive::<Decimal256Type>().value_as_string(at)),
            other => return Err(Fault::Wrong(format!("is of the type {other}, which is not read"))),
        })
    }

    /// The entries of a map.
    fn cell_of_entries(&mut self, entries: &StructArray) -> Result<Vec<Cell>, Fault> {
        (0..entries.len()).map(|at| self.fields(entries, at)).collect()
    }
}

/// A map whose keys are texts is a struct; any other stays the list that it is written as.
fn named(entries: Vec<Cell>) -> Cell {
    let is_named = |entry: &Cell| matches!(entry, Cell::Struct(fields) if fields.len() == 2 && fields[0].1.as_text().is_some());
    if !entries.iter().all(is_named) {
        return Cell::List(entries);
    }
    let pairs = entries.into_iter().filter_map(|entry| {
        let Cell::Struct(fields) = entry else { return None };
        let mut cells = fields.into_iter().map(|(_, cell)| cell);
        match (cells.next(), cells.next()) {
            (Some(Cell::Text(name)), Some(value)) => Some((name, value)),
            _ => None,
        }
    });
    Cell::Struct(pairs.collect())
}
