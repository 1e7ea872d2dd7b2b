//! From cells to types. In: a cell. Out: any type that serde can make of it. A mistake within a struct or a list is said with its place:
//! `images[2].bytes`. It knows no file.
//!
//! Bytes are bytes for who asks for bytes, and a sequence of numbers for who asks for a sequence (`Vec<u8>`). Nothing else is converted:
//! what a row says is what is read.

use std::fmt;

use serde::de::value::StringDeserializer;
use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor};
use serde::forward_to_deserialize_any;

use crate::Cell;

/// Why a cell is not what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CellError {
    /// Where, from the outermost; empty at the cell itself.
    place: String,
    why: String,
}

impl CellError {
    /// The same, seen from one level further out.
    fn within(mut self, outer: &str) -> Self {
        let dot = if self.place.is_empty() || self.place.starts_with('[') { "" } else { "." };
        self.place = format!("{outer}{dot}{}", self.place);
        self
    }
}

impl fmt::Display for CellError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place.is_empty() { f.write_str(&self.why) } else { write!(f, "{}: {}", self.place, self.why) }
    }
}

impl std::error::Error for CellError {}

impl serde::de::Error for CellError {
    fn custom<T: fmt::Display>(why: T) -> Self {
        Self { place: String::new(), why: why.to_string() }
    }
}

impl<'de> IntoDeserializer<'de, CellError> for Cell {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Cell {
    type Error = CellError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CellError> {
        match self {
            Self::Null => visitor.visit_unit(),
            Self::Bool(value) => visitor.visit_bool(value),
            Self::Int(value) => visitor.visit_i64(value),
            Self::UInt(value) => visitor.visit_u64(value),
            Self::Float(value) => visitor.visit_f64(value),
            Self::Text(text) => visitor.visit_string(text),
            Self::Bytes(bytes) => visitor.visit_byte_buf(bytes),
            Self::List(cells) => visitor.visit_seq(Items { cells: cells.into_iter(), at: 0 }),
            Self::Struct(fields) => visitor.visit_map(Fields { fields: fields.into_iter(), next: None }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CellError> {
        if self.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, CellError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CellError> {
        match self {
            Self::Bytes(bytes) => visitor.visit_seq(serde::de::value::SeqDeserializer::new(bytes.into_iter())),
            other => other.deserialize_any(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(self, _: &'static str, _: &'static [&'static str], visitor: V) -> Result<V::Value, CellError> {
        match self {
            Self::Text(name) => visitor.visit_enum(Chosen { name, content: None }),
            Self::Struct(fields) if fields.len() == 1 => {
                let chosen = fields.into_iter().next().map(|(name, content)| Chosen { name, content: Some(content) });
                visitor.visit_enum(chosen.ok_or_else(|| CellError::custom("an object without a field names no choice"))?)
            }
            other => Err(CellError::custom(format!("{} names no choice", other.kind()))),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CellError> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple tuple_struct map struct
        identifier
    }
}

/// The cells of a list, in turn.
struct Items {
    cells: std::vec::IntoIter<Cell>,
    at: usize,
}

impl<'de> SeqAccess<'de> for Items {
    type Error = CellError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, CellError> {
        let Some(cell) = self.cells.next() else { return Ok(None) };
        let at = self.at;
        self.at += 1;
        seed.deserialize(cell).map(Some).map_err(|error| error.within(&format!("[{at}]")))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.cells.len())
    }
}

/// The fields of a struct, in turn.
struct Fields {
    fields: std::vec::IntoIter<(String, Cell)>,
    next: Option<(String, Cell)>,
}

impl<'de> MapAccess<'de> for Fields {
    type Error = CellError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, CellError> {
        let Some((name, cell)) = self.fields.next() else { return Ok(None) };
        let key: StringDeserializer<CellError> = name.clone().into_deserializer();
        self.next = Some((name, cell));
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, CellError> {
        let (name, cell) = self.next.take().ok_or_else(|| CellError::custom("a value was asked for before its name"))?;
        seed.deserialize(cell).map_err(|error| error.within(&name))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.fields.len())
    }
}

/// A variant of an enum, as JSON has it: a text, or an object of one field.
struct Chosen {
    name: String,
    content: Option<Cell>,
}

impl<'de> EnumAccess<'de> for Chosen {
    type Error = CellError;
    type Variant = Content;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Content), CellError> {
        let name: StringDeserializer<CellError> = self.name.into_deserializer();
        Ok((seed.deserialize(name)?, Content(self.content)))
    }
}

/// What stands in a variant.
struct Content(Option<Cell>);

impl<'de> VariantAccess<'de> for Content {
    type Error = CellError;

    fn unit_variant(self) -> Result<(), CellError> {
        match self.0 {
            None | Some(Cell::Null) => Ok(()),
            Some(cell) => Err(CellError::custom(format!("a choice without content has {}", cell.kind()))),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, CellError> {
        seed.deserialize(self.0.unwrap_or(Cell::Null))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, CellError> {
        self.0.unwrap_or(Cell::Null).deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, CellError> {
        self.0.unwrap_or(Cell::Null).deserialize_any(visitor)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Published {
        question: String,
        #[serde(default)]
        images: Option<Vec<Vec<u8>>>,
        level: Option<u8>,
        #[serde(flatten)]
        more: serde_json::Map<String, serde_json::Value>,
    }

    fn row(fields: &[(&str, Cell)]) -> Cell {
        Cell::Struct(fields.iter().map(|(name, cell)| ((*name).to_owned(), cell.clone())).collect())
    }

    fn text(text: &str) -> Cell {
        Cell::Text(text.to_owned())
    }

    #[test]
    fn structs_are_read_from_cells_as_they_are_from_json() {
        let cells = row(&[
            ("question", text("q")),
            ("images", Cell::List(vec![Cell::Bytes(vec![1, 2])])),
            ("level", Cell::Null),
            ("source", row(&[("page", Cell::Int(7))])),
        ]);
        let published = Published::deserialize(cells).expect("all there");
        assert_eq!((published.images, published.level), (Some(vec![vec![1, 2]]), None));
        assert_eq!(published.more["source"]["page"], 7);
        let json = Cell::deserialize(&mut serde_json::Deserializer::from_str(r#"{"question": "q", "images": [[1, 2]], "level": 3}"#));
        let published = Published::deserialize(json.expect("JSON")).expect("all there");
        assert_eq!((published.images, published.level), (Some(vec![vec![1, 2]]), Some(3)));
    }

    #[test]
    fn mistakes_have_a_place() {
        #[derive(Debug, Deserialize)]
        struct Outer {
            #[serde(rename = "inner")]
            _inner: Vec<Inner>,
        }
        #[derive(Debug, Deserialize)]
        struct Inner {
            #[serde(rename = "number")]
            _number: u8,
        }
        let said = |cell: Cell| Outer::deserialize(cell).expect_err("wrong").to_string();
        let of = |number: Cell| row(&[("inner", Cell::List(vec![row(&[("number", Cell::Int(1))]), row(&[("number", number)])]))]);
        assert_eq!(said(of(text("x"))), "inner[1].number: invalid type: string \"x\", expected u8");
        assert_eq!(said(of(Cell::Int(256))), "inner[1].number: invalid value: integer `256`, expected u8");
        assert_eq!(said(row(&[("inner", Cell::List(vec![row(&[])]))])), "inner[0]: missing field `number`");
        assert_eq!(said(row(&[])), "missing field `inner`");
    }

    #[test]
    fn choices_are_read_as_json_has_them() {
        #[derive(Debug, PartialEq, Deserialize)]
        #[serde(rename_all = "lowercase")]
        enum Style {
            Rule,
            Model { name: String },
            Weight(f64),
        }
        assert_eq!(Style::deserialize(text("rule")), Ok(Style::Rule));
        assert_eq!(Style::deserialize(row(&[("model", row(&[("name", text("m"))]))])), Ok(Style::Model { name: "m".into() }));
        assert_eq!(Style::deserialize(row(&[("weight", Cell::Int(2))])), Ok(Style::Weight(2.0)));
        assert!(Style::deserialize(Cell::Int(2)).is_err_and(|error| error.to_string() == "a whole number names no choice"));
    }
}
