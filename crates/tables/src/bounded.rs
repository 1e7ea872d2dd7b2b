//! From what serde reads to cells. In: whatever serde reads, and how much memory a cell may take. Out: a cell, or that it takes more. It knows
//! no file.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::Cell;

impl<'de> Deserialize<'de> for Cell {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut left = usize::MAX;
        Bounded { left: &mut left, most: usize::MAX }.deserialize(deserializer)
    }
}

/// Reads a cell that takes `left` bytes of memory at most; takes from it what the cell takes. A text has `most` bytes at most.
pub(crate) struct Bounded<'a> {
    pub(crate) left: &'a mut usize,
    pub(crate) most: usize,
}

/// How the sentences about limits begin.
pub(crate) const TOO_LARGE: &str = "too large: ";

impl Bounded<'_> {
    fn pay<E: serde::de::Error>(&mut self, bytes: usize) -> Result<(), E> {
        match self.left.checked_sub(bytes) {
            Some(left) => *self.left = left,
            None => return Err(E::custom(format!("{TOO_LARGE}the row takes more memory than a row may"))),
        }
        Ok(())
    }

    /// Pays for a text or for bytes.
    fn pay_content<E: serde::de::Error>(&mut self, bytes: usize) -> Result<(), E> {
        if bytes > self.most {
            return Err(E::custom(format!("{TOO_LARGE}a text has {bytes} bytes, at most {} are read", self.most)));
        }
        self.pay(bytes)
    }
}

/// What a cell takes by itself.
const CELL: usize = size_of::<Cell>();
/// A field's name by itself.
const NAME: usize = size_of::<String>();

impl<'de> DeserializeSeed<'de> for Bounded<'_> {
    type Value = Cell;

    fn deserialize<D: Deserializer<'de>>(mut self, deserializer: D) -> Result<Cell, D::Error> {
        self.pay(CELL)?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Bounded<'_> {
    type Value = Cell;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Cell, E> {
        Ok(Cell::Null)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Cell, E> {
        Ok(Cell::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cell, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cell, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Cell, E> {
        Ok(Cell::Bool(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Cell, E> {
        Ok(Cell::Int(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Cell, E> {
        Ok(i64::try_from(value).map_or(Cell::UInt(value), Cell::Int))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Cell, E> {
        Ok(Cell::Float(value))
    }

    fn visit_str<E: serde::de::Error>(mut self, text: &str) -> Result<Cell, E> {
        self.pay_content(text.len())?;
        Ok(Cell::Text(text.to_owned()))
    }

    fn visit_string<E: serde::de::Error>(mut self, text: String) -> Result<Cell, E> {
        self.pay_content(text.len())?;
        Ok(Cell::Text(text))
    }

    fn visit_bytes<E: serde::de::Error>(mut self, bytes: &[u8]) -> Result<Cell, E> {
        self.pay_content(bytes.len())?;
        Ok(Cell::Bytes(bytes.to_vec()))
    }

    fn visit_byte_buf<E: serde::de::Error>(mut self, bytes: Vec<u8>) -> Result<Cell, E> {
        self.pay_content(bytes.len())?;
        Ok(Cell::Bytes(bytes))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Cell, A::Error> {
        let mut cells = Vec::new();
        while let Some(cell) = items.next_element_seed(Bounded { left: &mut *self.left, most: self.most })? {
            cells.push(cell);
        }
        Ok(Cell::List(cells))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<Cell, A::Error> {
        let mut fields: Vec<(String, Cell)> = Vec::new();
        while let Some(name) = entries.next_key::<String>()? {
            self.pay(NAME + name.len())?;
            fields.push((name, entries.next_value_seed(Bounded { left: &mut *self.left, most: self.most })?));
        }
        Ok(Cell::Struct(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_would_take_too_much_memory_are_refused_while_they_are_read() {
        let long = format!("[{}]", vec!["1"; 1000].join(","));
        let read = |left: usize| {
            let mut left = left;
            Bounded { left: &mut left, most: 9 }
                .deserialize(&mut serde_json::Deserializer::from_str(&long))
                .map_err(|error| error.to_string())
        };
        assert!(read(1001 * CELL).is_ok_and(|cell| matches!(cell, Cell::List(cells) if cells.len() == 1000)));
        let mut left = 1000;
        let said = Bounded { left: &mut left, most: 4 }.deserialize(Cell::Text("abcde".into())).map_err(|error| error.to_string());
        assert_eq!(said, Err("too large: a text has 5 bytes, at most 4 are read".into()));
        assert!(read(1000 * CELL).is_err_and(|why| why.starts_with("too large: the row takes more memory than a row may")));
    }
}
