//! Values as Python writes them: chat templates are written for a Jinja that runs in Python.
//!
//! In: template values. Out: their `str()`, their `json.dumps()`, and string methods that the Jinja library lacks.

use std::fmt::Write;

use minijinja::value::{Kwargs, Rest, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use serde_json::Value as Json;

/// Deepest nesting that is written: deeper is no data of a chat.
const MAX_DEPTH: usize = 64;

/// `str(value)`: `True`, `None`, `['a']`. An undefined value is an empty text, as Jinja has it.
pub(crate) fn str(value: &Value) -> Result<String, Error> {
    let mut out = String::new();
    match value.kind() {
        ValueKind::Undefined => {}
        ValueKind::String => out.push_str(value.as_str().unwrap_or_default()),
        _ => repr(&mut out, value, 0)?,
    }
    Ok(out)
}

fn repr(out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(Error::new(ErrorKind::InvalidOperation, "a value is nested too deeply"));
    }
    match value.kind() {
        ValueKind::None | ValueKind::Undefined => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number if !value.is_integer() => match f64::try_from(value.clone()) {
            Ok(number) => out.push_str(&float(number)),
            Err(_) => out.push_str(&value.to_string()),
        },
        ValueKind::String => quoted(out, value.as_str().unwrap_or_default()),
        ValueKind::Seq => {
            out.push('[');
            for (at, item) in value.try_iter()?.enumerate() {
                out.push_str(if at == 0 { "" } else { ", " });
                repr(out, &item, depth + 1)?;
            }
            out.push(']');
        }
        ValueKind::Map => {
            out.push('{');
            for (at, key) in value.try_iter()?.enumerate() {
                out.push_str(if at == 0 { "" } else { ", " });
                repr(out, &key, depth + 1)?;
                out.push_str(": ");
                repr(out, &value.get_item(&key)?, depth + 1)?;
            }
            out.push('}');
        }
        _ => out.push_str(&value.to_string()),
    }
    Ok(())
}

/// A text in quotes as `repr` chooses and escapes them.
fn quoted(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for character in text.chars() {
        match character {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            _ if character == quote => out.extend(['\\', quote]),
            _ => out.push(character),
        }
    }
    out.push(quote);
}

/// `repr` of a float: the shortest digits that read back, with an exponent of two digits outside 1e-4 to 1e16.
fn float(number: f64) -> String {
    if !number.is_finite() {
        return if number.is_nan() {
            "nan"
        } else if number > 0.0 {
            "inf"
        } else {
            "-inf"
        }
        .into();
    }
    let size = number.abs();
    if size != 0.0 && !(1e-4..1e16).contains(&size) {
        let text = format!("{number:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    let text = format!("{number}");
    if text.contains('.') { text } else { format!("{text}.0") }
}

/// The filter `tojson` with the arguments that transformers gives it: `json.dumps` and not Jinja's own, which escapes HTML.
pub(crate) fn tojson(value: Value, more: Rest<Value>, options: Kwargs) -> Result<Value, Error> {
    let wrong = |what: &str| Error::new(ErrorKind::InvalidOperation, format!("tojson: {what}"));
    if value.is_undefined() {
        return Err(wrong("the value is undefined"));
    }
    // In the order of the function's arguments.
    let given = |at: usize, name: &str| -> Result<Value, Error> {
        let named: Option<Value> = options.get(name)?;
        Ok(named.or_else(|| more.get(at).cloned()).unwrap_or(Value::from(())))
    };
    let (ascii, indent, separators, sorted) =
        (given(0, "ensure_ascii")?, given(1, "indent")?, given(2, "separators")?, given(3, "sort_keys")?);
    options.assert_all_used()?;
    let indent = match indent.kind() {
        ValueKind::None => None,
        ValueKind::String => Some(indent.to_string()),
        ValueKind::Bool => Some(if indent.is_true() { " ".into() } else { String::new() }),
        _ => {
            Some(" ".repeat(usize::try_from(indent).ok().filter(|width| *width <= 64).ok_or_else(|| wrong("indent is no width up to 64"))?))
        }
    };
    let (item, key) = match separators.kind() {
        ValueKind::None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
        _ => {
            let pair: Vec<Value> = separators.try_iter()?.take(3).collect();
            let [item, key] = &pair[..] else { return Err(wrong("separators are no pair")) };
            (item.to_string(), key.to_string())
        }
    };
    let json = serde_json::to_value(&value).map_err(|error| wrong(&error.to_string()))?;
    let mut dump = Dump { out: String::new(), ascii: ascii.is_true(), indent, item, key, sorted: sorted.is_true() };
    dump.value(&json, 0).map_err(|()| wrong("the value is nested too deeply"))?;
    Ok(Value::from(dump.out))
}

struct Dump {
    out: String,
    ascii: bool,
    indent: Option<String>,
    item: String,
    key: String,
    sorted: bool,
}

impl Dump {
    fn value(&mut self, value: &Json, depth: usize) -> Result<(), ()> {
        if depth > MAX_DEPTH {
            return Err(());
        }
        match value {
            Json::Null => self.out.push_str("null"),
            Json::Bool(value) => self.out.push_str(if *value { "true" } else { "false" }),
            Json::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
                Some(value) => self.out.push_str(&float(value)),
                None => self.out.push_str(&number.to_string()),
            },
            Json::String(text) => self.text(text),
            Json::Array(items) => {
                self.out.push('[');
                for (at, item) in items.iter().enumerate() {
                    self.next(at, depth + 1);
                    self.value(item, depth + 1)?;
                }
                self.close(items.is_empty(), depth, ']');
            }
            Json::Object(map) => {
                self.out.push('{');
                let mut entries: Vec<(&String, &Json)> = map.iter().collect();
                if self.sorted {
                    entries.sort_by(|one, other| one.0.cmp(other.0));
                }
                for (at, (name, item)) in entries.into_iter().enumerate() {
                    self.next(at, depth + 1);
                    self.text(name);
                    let separator = self.key.clone();
                    self.out.push_str(&separator);
                    self.value(item, depth + 1)?;
                }
                self.close(map.is_empty(), depth, '}');
            }
        }
        Ok(())
    }

    fn next(&mut self, at: usize, depth: usize) {
        if at > 0 {
            self.out.push_str(&self.item);
        }
        self.line(depth);
    }

    fn close(&mut self, empty: bool, depth: usize, bracket: char) {
        if !empty {
            self.line(depth);
        }
        self.out.push(bracket);
    }

    fn line(&mut self, depth: usize) {
        if let Some(indent) = &self.indent {
            self.out.push('\n');
            (0..depth).for_each(|_| self.out.push_str(indent));
        }
    }

    fn text(&mut self, text: &str) {
        self.out.push('"');
        for character in text.chars() {
            match character {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                _ if character < ' ' => self.escape(u16::try_from(u32::from(character)).unwrap_or_default()),
                // Marks around control tokens (`marks.rs`) must be found again.
                _ if self.ascii && !character.is_ascii() && !crate::marks::is_mark(character) => {
                    let mut units = [0; 2];
                    character.encode_utf16(&mut units).iter().for_each(|unit| self.escape(*unit));
                }
                _ => self.out.push(character),
            }
        }
        self.out.push('"');
    }

    fn escape(&mut self, unit: u16) {
        let _ = write!(self.out, "\\u{unit:04x}"); // Writing to a text cannot fail.
    }
}

/// Methods of Python's values: the library's, and those of strings that it lacks.
pub(crate) fn method(state: &State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        match method {
            "removeprefix" => {
                let (prefix,): (&str,) = from_args(args)?;
                return Ok(Value::from(text.strip_prefix(prefix).unwrap_or(text)));
            }
            "removesuffix" => {
                let (suffix,): (&str,) = from_args(args)?;
                return Ok(Value::from(text.strip_suffix(suffix).unwrap_or(text)));
            }
            "partition" | "rpartition" => {
                let (by,): (&str,) = from_args(args)?;
                let last = method == "rpartition";
                let cut = if last { text.rsplit_once(by) } else { text.split_once(by) };
                let parts = match cut {
                    Some((before, after)) => [before, by, after],
                    None if last => ["", "", text],
                    None => [text, "", ""],
                };
                return Ok(Value::from_iter(parts.map(Value::from)));
            }
            "rsplit" => {
                let (by, most): (Option<&str>, Option<i64>) = from_args(args)?;
                let most = most.filter(|most| *most >= 0).map_or(usize::MAX, |most| (most as usize).saturating_add(1));
                let mut parts: Vec<&str> = match by {
                    Some("") => return Err(Error::new(ErrorKind::InvalidOperation, "rsplit: empty separator")),
                    Some(by) => text.rsplitn(most, by).collect(),
                    None if most == usize::MAX => text.split_whitespace().rev().collect(),
                    None => return Err(Error::new(ErrorKind::InvalidOperation, "rsplit: a limit needs a separator here")),
                };
                parts.reverse();
                return Ok(Value::from_iter(parts.into_iter().map(Value::from)));
            }
            _ => {}
        }
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)
}
