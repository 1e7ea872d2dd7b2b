//! A tool call as JSON. In: the text of an object. Out: the parts that the released reward looks at.
//!
//! Of a key that comes twice the last counts, as in Python. Whatever else the object holds has to be JSON as well.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::python::{bar_pieces, text};

/// A call; nothing in it when the text is no object.
#[derive(Debug, Default)]
pub(super) struct Call {
    /// The tool, whatever kind of value it is.
    pub(super) name: Option<Value>,
    /// Its arguments.
    pub(super) arguments: Arguments,
}

/// The arguments that name what is searched, by their non-blank pieces; none of them unless the arguments are an object, or
/// JSON text of one.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    pub(super) input: Option<u64>,
    pub(super) image_id: Option<u64>,
    pub(super) img_id: Option<u64>,
}

impl Arguments {
    fn of_text(json: &str) -> Self {
        if json.trim_start().starts_with('{') { serde_json::from_str(json).unwrap_or_default() } else { Self::default() }
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Key {
    Name,
    Arguments,
    Input,
    ImageId,
    ImgId,
    #[serde(other)]
    Other,
}

impl<'de> Deserialize<'de> for Call {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Call;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a call")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Call, A::Error> {
                let mut call = Call::default();
                while let Some(key) = map.next_key()? {
                    match key {
                        Key::Name => call.name = Some(map.next_value()?),
                        Key::Arguments => call.arguments = map.next_value()?,
                        _ => drop(map.next_value::<Value>()?),
                    }
                }
                Ok(call)
            }
        }
        from.deserialize_map(Fields)
    }
}

impl<'de> Deserialize<'de> for Arguments {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Arguments;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Arguments, A::Error> {
                let mut arguments = Arguments::default();
                while let Some(key) = map.next_key()? {
                    let pieces = Some(bar_pieces(&text(&map.next_value()?)));
                    match key {
                        Key::Input => arguments.input = pieces,
                        Key::ImageId => arguments.image_id = pieces,
                        Key::ImgId => arguments.img_id = pieces,
                        _ => {}
                    }
                }
                Ok(arguments)
            }

            fn visit_str<E>(self, json: &str) -> Result<Arguments, E> {
                Ok(Arguments::of_text(json))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Arguments, A::Error> {
                while list.next_element::<Value>()?.is_some() {}
                Ok(Arguments::default())
            }

            fn visit_unit<E>(self) -> Result<Arguments, E> {
                Ok(Arguments::default())
            }

            fn visit_bool<E>(self, _: bool) -> Result<Arguments, E> {
                Ok(Arguments::default())
            }

            fn visit_i64<E>(self, _: i64) -> Result<Arguments, E> {
                Ok(Arguments::default())
            }

            fn visit_u64<E>(self, _: u64) -> Result<Arguments, E> {
                Ok(Arguments::default())
            }

            fn visit_f64<E>(self, _: f64) -> Result<Arguments, E> {
                Ok(Arguments::default())
            }
        }
        from.deserialize_any(Fields)
    }
}
