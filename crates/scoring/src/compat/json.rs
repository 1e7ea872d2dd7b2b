//! JSON as Python's `json.loads` reads it, which is a little more than JSON. In: text. Out: a value that prints as Python's.
//!
//! Beyond JSON: `NaN`, `Infinity`, `-Infinity`, numbers too large for a float (infinite), whole numbers of any length up to 4300
//! digits (CPython 3.11 refuses longer ones), halves of surrogate pairs. Of a key that comes twice the last value counts, in
//! the place of the first. As in JSON: no comma at the end, no comment, no control character in a string, nothing behind.

use std::borrow::Cow;
use std::collections::HashMap;
use std::iter::Peekable;
use std::str::CharIndices;

use serde_json::{Map, Number, Value};

use super::python::quoted;

/// Deepest nesting that is read; CPython's own limit, 1000 calls, leaves a little less to a reward that is itself called.
const MAX_DEPTH: u32 = 960;
/// Keys of an object that are looked through one by one; of more, an index is made.
const FEW_KEYS: usize = 16;
/// Most digits of a whole number.
const MAX_DIGITS: usize = 4300;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Py {
    Null,
    Bool(bool),
    /// As it is written.
    Int(String),
    /// May be no number, or infinite.
    Float(f64),
    /// A half of a surrogate pair is U+FFFD.
    Text(String),
    List(Vec<Py>),
    Dict(Vec<(String, Py)>),
}

/// Reads a text; nothing where Python would raise.
pub(super) fn loads(text: &str) -> Option<Py> {
    let mut reader = Reader { text, letters: text.char_indices().peekable() };
    let value = reader.value(0)?;
    reader.blanks();
    reader.letters.next().is_none().then_some(value)
}

struct Reader<'a> {
    text: &'a str,
    letters: Peekable<CharIndices<'a>>,
}

impl Reader<'_> {
    fn value(&mut self, depth: u32) -> Option<Py> {
        self.blanks();
        match self.peek()? {
            '{' | '[' if depth == MAX_DEPTH => None,
            '{' => self.dict(depth),
            '[' => self.list(depth),
            '"' => Some(Py::Text(self.string()?)),
            '-' | '0'..='9' => self.number(),
            _ => {
                let named = [
                    ("null", Py::Null),
                    ("true", Py::Bool(true)),
                    ("false", Py::Bool(false)),
                    ("NaN", Py::Float(f64::NAN)),
                    ("Infinity", Py::Float(f64::INFINITY)),
                ];
                named.into_iter().find_map(|(name, value)| self.word(name).then_some(value))
            }
        }
    }

    fn dict(&mut self, depth: u32) -> Option<Py> {
        let (mut entries, mut places): (Vec<(String, Py)>, HashMap<String, usize>) = Default::default();
        self.take('{')?;
        if self.take('}').is_some() {
            return Some(Py::Dict(entries));
        }
        loop {
            self.blanks();
            let key = self.string()?;
            self.take(':')?;
            let value = self.value(depth + 1)?;
            if entries.len() == FEW_KEYS {
                places = entries.iter().enumerate().map(|(at, (known, _))| (known.clone(), at)).collect();
            }
            let few = entries.len() < FEW_KEYS;
            let at = if few { entries.iter().position(|(known, _)| *known == key) } else { places.get(&key).copied() };
            match at {
                Some(at) => entries[at].1 = value,
                None => {
                    if !few {
                        places.insert(key.clone(), entries.len());
                    }
                    entries.push((key, value));
                }
            }
            if self.take(',').is_none() {
                self.take('}')?;
                return Some(Py::Dict(entries));
            }
        }
    }

    fn list(&mut self, depth: u32) -> Option<Py> {
        let mut items = vec![];
        self.take('[')?;
        if self.take(']').is_some() {
            return Some(Py::List(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            if self.take(',').is_none() {
                self.take(']')?;
                return Some(Py::List(items));
            }
        }
    }

    fn string(&mut self) -> Option<String> {
        (self.letters.next()?.1 == '"').then_some(())?;
        let mut out = String::new();
        loop {
            match self.letters.next()?.1 {
                '"' => return Some(out),
                '\\' => match self.letters.next()?.1 {
                    'u' => self.escaped(&mut out)?,
                    'b' => out.push('\u{8}'),
                    'f' => out.push('\u{c}'),
                    'n' => out.push('\n'),
                    'r' => out.push('\r'),
                    't' => out.push('\t'),
                    letter @ ('"' | '\\' | '/') => out.push(letter),
                    _ => return None,
                },
                '\u{0}'..='\u{1f}' => return None,
                letter => out.push(letter),
            }
        }
    }

    /// What `\u` says; two of them may be a pair.
    fn escaped(&mut self, out: &mut String) -> Option<()> {
        let mut unit = self.unit()?;
        loop {
            let low = (0xd800..0xdc00).contains(&unit) && self.ahead("\\u");
            if !low {
                out.push(char::from_u32(unit).unwrap_or('\u{fffd}'));
                return Some(());
            }
            self.letters.nth(1);
            let next = self.unit()?;
            if (0xdc00..0xe000).contains(&next) {
                out.extend(char::from_u32(0x10000 + ((unit - 0xd800) << 10) + (next - 0xdc00)));
                return Some(());
            }
            out.push('\u{fffd}');
            unit = next;
        }
    }

    fn unit(&mut self) -> Option<u32> {
        (0..4).try_fold(0, |unit, _| Some(unit * 16 + self.letters.next()?.1.to_digit(16)?))
    }

    fn number(&mut self) -> Option<Py> {
        let from = self.at();
        let negative = self.peek() == Some('-');
        if negative {
            self.letters.next();
            if self.word("Infinity") {
                return Some(Py::Float(f64::NEG_INFINITY));
            }
        }
        match self.peek()? {
            '0' => drop(self.letters.next()),
            '1'..='9' => self.digits(),
            _ => return None,
        }
        let whole = self.at();
        // A point or an exponent without digits behind it is not part of the number, and what is left of it is an error.
        let mut ahead = self.text[whole..].bytes().peekable();
        let mut end = whole;
        if ahead.next_if_eq(&b'.').is_some() {
            let digits = std::iter::from_fn(|| ahead.next_if(u8::is_ascii_digit)).count();
            if digits == 0 {
                return None;
            }
            end += 1 + digits;
        }
        if ahead.next_if(|byte| matches!(byte, b'e' | b'E')).is_some() {
            let sign = usize::from(ahead.next_if(|byte| matches!(byte, b'+' | b'-')).is_some());
            let digits = std::iter::from_fn(|| ahead.next_if(u8::is_ascii_digit)).count();
            if digits == 0 {
                return None;
            }
            end += 1 + sign + digits;
        }
        if end == whole {
            let written = &self.text[from..whole];
            return (whole - from - usize::from(negative) <= MAX_DIGITS).then(|| Py::Int(written.to_owned()));
        }
        while self.at() < end {
            self.letters.next();
        }
        self.text[from..end].parse().ok().map(Py::Float)
    }

    fn digits(&mut self) {
        while self.letters.next_if(|(_, letter)| letter.is_ascii_digit()).is_some() {}
    }

    fn word(&mut self, word: &str) -> bool {
        let there = self.ahead(word);
        if there {
            self.letters.nth(word.len() - 1);
        }
        there
    }

    fn ahead(&mut self, text: &str) -> bool {
        let at = self.at();
        self.text[at..].starts_with(text)
    }

    fn at(&mut self) -> usize {
        self.letters.peek().map_or(self.text.len(), |(at, _)| *at)
    }

    fn peek(&mut self) -> Option<char> {
        self.letters.peek().map(|(_, letter)| *letter)
    }

    /// One letter, blanks before it aside.
    fn take(&mut self, letter: char) -> Option<()> {
        self.blanks();
        self.letters.next_if(|(_, next)| *next == letter).map(|_| ())
    }

    fn blanks(&mut self) {
        while self.letters.next_if(|(_, letter)| matches!(letter, ' ' | '\t' | '\n' | '\r')).is_some() {}
    }
}

impl Py {
    /// `str(value)`.
    pub(super) fn text(&self) -> Cow<'_, str> {
        match self {
            Py::Text(text) => text.into(),
            other => {
                let mut out = String::new();
                other.repr(&mut out);
                out.into()
            }
        }
    }

    /// `repr(value)`.
    fn repr(&self, out: &mut String) {
        match self {
            Py::Null => out.push_str("None"),
            Py::Bool(true) => out.push_str("True"),
            Py::Bool(false) => out.push_str("False"),
            // Minus zero is zero where there are no fractions.
            Py::Int(number) => out.push_str(if number == "-0" { "0" } else { number }),
            Py::Float(number) => out.push_str(&float(*number)),
            Py::Text(text) => quoted(text, out),
            Py::List(items) => {
                out.push('[');
                for (at, item) in items.iter().enumerate() {
                    out.push_str(if at > 0 { ", " } else { "" });
                    item.repr(out);
                }
                out.push(']');
            }
            Py::Dict(entries) => {
                out.push('{');
                for (at, (key, item)) in entries.iter().enumerate() {
                    out.push_str(if at > 0 { ", " } else { "" });
                    quoted(key, out);
                    out.push_str(": ");
                    item.repr(out);
                }
                out.push('}');
            }
        }
    }

    /// The value of a key of a dict, out of it.
    pub(super) fn remove(&mut self, key: &str) -> Option<Py> {
        let Py::Dict(entries) = self else { return None };
        let at = entries.iter().position(|(known, _)| known == key)?;
        Some(entries.remove(at).1)
    }
}

/// As Python prints a float: the shortest digits that read back, an exponent of two digits.
fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf".into() } else { "-inf".into() };
    }
    let text = format!("{number:?}");
    match text.split_once('e') {
        None => text,
        Some((digits, exponent)) => {
            let digits = digits.strip_suffix(".0").unwrap_or(digits);
            let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
            format!("{digits}e{sign}{exponent:0>2}")
        }
    }
}

/// As plain JSON: what is no number there is null.
impl From<Py> for Value {
    fn from(value: Py) -> Self {
        match value {
            Py::Null => Value::Null,
            Py::Bool(value) => value.into(),
            Py::Int(number) => match number.parse::<i64>() {
                Ok(number) => number.into(),
                Err(_) => number.parse::<f64>().ok().and_then(Number::from_f64).map_or(Value::Null, Value::Number),
            },
            Py::Float(number) => Number::from_f64(number).map_or(Value::Null, Value::Number),
            Py::Text(text) => text.into(),
            Py::List(items) => items.into_iter().map(Value::from).collect(),
            Py::Dict(entries) => Value::Object(entries.into_iter().map(|(key, item)| (key, item.into())).collect::<Map<_, _>>()),
        }
    }
}

/// A value that plain JSON wrote.
impl From<&Value> for Py {
    fn from(value: &Value) -> Self {
        match value {
            Value::Null => Py::Null,
            Value::Bool(value) => Py::Bool(*value),
            Value::Number(number) if number.is_f64() => Py::Float(number.as_f64().unwrap_or(f64::NAN)),
            Value::Number(number) => Py::Int(number.to_string()),
            Value::String(text) => Py::Text(text.clone()),
            Value::Array(items) => Py::List(items.iter().map(Py::from).collect()),
            Value::Object(map) => Py::Dict(map.iter().map(|(key, item)| (key.clone(), item.into())).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Right values: CPython 3.11's `str(json.loads(text))`.
    #[test]
    fn values_read_and_print_as_pythons() {
        for (text, want) in [
            ("NaN", "nan"),
            ("[NaN, Infinity, -Infinity]", "[nan, inf, -inf]"),
            ("1e999", "inf"),
            ("-1e999", "-inf"),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
            ("-0", "0"),
            ("-0.0", "-0.0"),
            ("1e22", "1e+22"),
            ("1.5e-7", "1.5e-07"),
            ("1E2", "100.0"),
            ("{\"a\": 1, \"b\": 2, \"a\": [true, null]}", "{'a': [True, None], 'b': 2}"),
            ("\"\\ud83d\\ude00\"", "\u{1f600}"),
            ("\"a\\ud800b\"", "a\u{fffd}b"),
            ("\"\\ud800\\ud83d\\ude00\"", "\u{fffd}\u{1f600}"),
            (" \t\r\n\"a\\/b\"\n", "a/b"),
            ("\"\u{7f}\u{2028}\"", "\u{7f}\u{2028}"),
        ] {
            assert_eq!(loads(text).expect(text).text(), want, "{text}");
        }
    }

    #[test]
    fn what_python_refuses_is_refused() {
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        for text in [
            "",
            " ",
            "nan",
            "+1",
            "01",
            "1.",
            ".5",
            "1e",
            "-",
            "-NaN",
            "Inf",
            "[1,]",
            "{\"a\": 1,}",
            "{a: 1}",
            "'a'",
            "\"a\nb\"",
            "\"\\x41\"",
            "\"\\u12\"",
            "\"a",
            "[1] 2",
            "\u{feff}1",
            "\u{a0}1",
            "// a\n1",
            "True",
            "{\"a\"}",
            "[",
            "{",
        ] {
            assert_eq!(loads(text), None, "{text:?}");
        }
        assert!(loads(&deep(900)).is_some() && loads(&deep(1000)).is_none());
        assert!(loads(&"9".repeat(4300)).is_some() && loads(&"9".repeat(4301)).is_none());
    }

    /// Wherever both read a text, they read the same.
    #[test]
    fn plain_json_is_read_as_by_anybody_else() {
        use rand::{Rng, SeedableRng};
        let pieces = ["{", "}", "[", "]", ",", ":", " ", "\"a\"", "\"\\n\"", "1", "-2", "0", ".5", "e3 ", "true", "null", "\"é\""];
        let mut random = rand::rngs::StdRng::seed_from_u64(23);
        let mut read = 0;
        for _ in 0..200_000 {
            let text: String = (0..random.random_range(1..9)).map(|_| pieces[random.random_range(0..pieces.len())]).collect();
            let (ours, theirs) = (loads(&text), serde_json::from_str::<Value>(&text).ok());
            assert_eq!(ours.clone().map(Value::from), theirs, "{text}");
            read += u32::from(ours.is_some());
        }
        assert!(read > 1000, "only {read} were JSON");
    }
}
