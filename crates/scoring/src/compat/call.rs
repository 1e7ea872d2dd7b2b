//! A tool call as JSON. In: its text. Out: its name and the arguments that name what is searched.
//!
//! Of a key that comes twice the last counts, as in Python. Whatever else the object holds has to be JSON as well.

use serde::Serialize;
use serde_json::Value;

use super::json::{Py, loads};
use super::python::bar_pieces;

/// The `name` of a call as written.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Name<'a> {
    /// A text without escapes; the empty text when there is no name.
    Text(&'a str),
    /// Any other; it may be a list.
    Value(Box<Value>),
}

impl Name<'_> {
    /// Python's `part in name`: substring of a text, element of a list, key of an object; `None` where it would raise.
    #[inline]
    pub(super) fn has(&self, part: &str) -> Option<bool> {
        let value = match self {
            Name::Text(name) => return Some(within(name, part)),
            Name::Value(value) => value.as_ref(),
        };
        match value {
            Value::String(name) => Some(within(name, part)),
            Value::Array(items) => Some(items.iter().any(|item| item.as_str() == Some(part))),
            Value::Object(map) => Some(map.contains_key(part)),
            Value::Null | Value::Bool(_) | Value::Number(_) => None,
        }
    }
}

/// Whether a text holds a part; names are too short for anything cleverer.
#[inline]
fn within(name: &str, part: &str) -> bool {
    name.as_bytes().windows(part.len()).any(|place| place == part.as_bytes())
}

/// A call; nothing in it when the text is no object.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Call<'a> {
    /// The tool.
    pub(super) name: Option<Name<'a>>,
    /// Its arguments.
    pub(super) arguments: Arguments,
}

impl Call<'_> {
    /// Reads any JSON, as Python does.
    pub(super) fn of_any(json: &str) -> Self {
        let Some(mut call) = loads(json) else { return Self::default() };
        let arguments = match call.remove("arguments") {
            Some(Py::Dict(arguments)) => Arguments::of(&arguments),
            Some(Py::Text(json)) => match loads(&json) {
                Some(Py::Dict(arguments)) => Arguments::of(&arguments),
                _ => Arguments::default(),
            },
            _ => Arguments::default(),
        };
        Self { name: call.remove("name").map(|name| Name::Value(Box::new(name.into()))), arguments }
    }
}

/// The arguments that name what is searched, by their non-blank pieces; none of them unless the arguments are an object, or
/// JSON text of one.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Arguments {
    pub(super) input: Option<u64>,
    pub(super) image_id: Option<u64>,
    pub(super) img_id: Option<u64>,
}

impl Arguments {
    fn of(entries: &[(String, Py)]) -> Self {
        let mut arguments = Self::default();
        entries.iter().for_each(|(key, value)| arguments.put(key, || value.text()));
        arguments
    }

    /// Takes one in, if it is of those that count; `value` says its text.
    pub(super) fn put<V: AsRef<str>>(&mut self, key: &str, value: impl FnOnce() -> V) {
        let field = match key {
            "input" => &mut self.input,
            "image_id" => &mut self.image_id,
            "img_id" => &mut self.img_id,
            _ => return,
        };
        *field = Some(bar_pieces(value().as_ref()));
    }
}
