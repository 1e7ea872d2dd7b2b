//! Reading an object of `config.json`, key by key.
//!
//! In: JSON and the name of a key. Out: a value within bounds, or one text that names the key, its section, and what is wrong. Keys
//! that nobody asks for are passed over: published configs are full of them. Read by hand because here `null` is a key that is not
//! there, defaults depend on other keys, and one value has several names of which two may stand side by side; serde's messages
//! would name a missing key and no other.

use serde_json::{Map, Value};

use super::MAX_COUNT;

/// No published model comes near this; it keeps a hostile config from asking for absurd allocations.
const MAX_NUMBER: u64 = 1 << 24;

/// One object of a config; a key that is `null` is not there.
pub(crate) struct Section<'a> {
    name: &'a str,
    map: &'a Map<String, Value>,
}

impl<'a> Section<'a> {
    /// All of the config.
    pub(crate) fn top(value: &'a Value) -> Result<Self, String> {
        value.as_object().map(|map| Self { name: "", map }).ok_or_else(|| "config.json is not an object".to_owned())
    }

    /// The object under a key.
    pub(crate) fn of(value: &'a Value, name: &'a str) -> Result<Self, String> {
        let map = value.get(name).and_then(Value::as_object).ok_or_else(|| format!("{name} is missing"))?;
        Ok(Self { name, map })
    }

    /// The part about rotary frequencies, under either name, or all of the section where there is none.
    pub(crate) fn rope(&self) -> Self {
        let map = self.get("rope_parameters").or_else(|| self.get("rope_scaling")).and_then(Value::as_object);
        Self { name: "the rope section", map: map.unwrap_or(self.map) }
    }

    /// The base of the frequencies, which stands in that part or beside it.
    pub(crate) fn rope_theta(&self, default: f64) -> Result<f64, String> {
        let rope = self.rope();
        if rope.get("rope_theta").is_some() { rope.number_or("rope_theta", default) } else { self.number_or("rope_theta", default) }
    }

    /// The value of a key that is there.
    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn wrong(&self, key: &str, what: impl std::fmt::Display) -> String {
        let place = if self.name.is_empty() { String::new() } else { format!(" of {}", self.name) };
        format!("{key}{place} {what}")
    }

    /// A whole number that must be there.
    pub(crate) fn whole(&self, key: &str) -> Result<usize, String> {
        match self.get(key).and_then(Value::as_u64) {
            Some(number) if number <= MAX_NUMBER => Ok(number as usize),
            Some(number) => Err(self.wrong(key, format!("= {number} is out of range"))),
            None => Err(self.wrong(key, "is missing or not a whole number")),
        }
    }

    /// A whole number, or what stands for it.
    pub(crate) fn whole_or(&self, key: &str, default: usize) -> Result<usize, String> {
        if self.get(key).is_some() { self.whole(key) } else { Ok(default) }
    }

    /// A positive number, or what stands for it.
    pub(crate) fn number_or(&self, key: &str, default: f64) -> Result<f64, String> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => value.as_f64().filter(|number| *number > 0.0).ok_or_else(|| self.wrong(key, "is not a positive number")),
        }
    }

    /// A list of whole numbers.
    pub(crate) fn list(&self, key: &str) -> Result<Option<Vec<usize>>, String> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let list = value.as_array().filter(|list| list.len() <= MAX_COUNT).ok_or_else(|| self.wrong(key, "is not a short list"))?;
        let whole = |value: &Value| value.as_u64().filter(|number| *number <= MAX_NUMBER).map(|number| number as usize);
        list.iter().map(whole).collect::<Option<_>>().map(Some).ok_or_else(|| self.wrong(key, "is not a list of whole numbers"))
    }

    /// Refuses a setting that would change what the model computes in a way that is not written here.
    pub(crate) fn only(&self, key: &str, supported: impl Into<Value>) -> Result<(), String> {
        let supported = supported.into();
        match self.get(key) {
            Some(value) if *value != supported => Err(self.wrong(key, format!("is {value}; only {supported} is supported"))),
            _ => Ok(()),
        }
    }
}
