//! What columns of published rows hold, and what becomes of it. In: a column. Out: names, answers, and what is kept beside a task. It
//! knows no benchmark.

use std::collections::HashSet;

use hypereyes_domain::Metadata;
use hypereyes_tables::Cell;
use serde::de::{Deserialize, Deserializer, Error};
use serde_json::Value;

/// A name: a text, or a number as its text.
pub(super) struct Name(pub String);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let cell = Cell::deserialize(deserializer)?;
        text(cell).map(Self).map_err(|other| D::Error::custom(format!("{other} is no name")))
    }
}

/// Texts, each of them an answer: a text, a list of texts, or a list of such lists. Numbers are their texts, null is none.
#[derive(Default)]
pub(super) struct Texts(pub Vec<String>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut texts = vec![];
        flatten(Cell::deserialize(deserializer)?, &mut texts).map_err(|other| D::Error::custom(format!("{other} is no answer")))?;
        Ok(Self(texts))
    }
}

/// The texts of a cell, one behind the other; or what it is that is none.
fn flatten(cell: Cell, texts: &mut Vec<String>) -> Result<(), &'static str> {
    match cell {
        Cell::Null => Ok(()),
        Cell::List(cells) => cells.into_iter().try_for_each(|cell| flatten(cell, texts)),
        other => text(other).map(|text| texts.push(text)),
    }
}

/// The text of a cell; or what it is that has none.
fn text(cell: Cell) -> Result<String, &'static str> {
    match cell {
        Cell::Text(text) => Ok(text),
        Cell::Int(number) => Ok(number.to_string()),
        Cell::UInt(number) => Ok(number.to_string()),
        Cell::Float(number) => Ok(number.to_string()),
        other => Err(other.kind()),
    }
}

/// Columns that a loader does not name: they stay beside the task. Null is not kept, and bytes are refused by the name of their column:
/// nobody knows whether the question can do without them.
pub(super) struct More(pub Metadata);

impl<'de> Deserialize<'de> for More {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Cell::deserialize(deserializer)?.into_json().map_err(D::Error::custom)? {
            Value::Object(columns) => Ok(Self(columns.into_iter().filter(|(_, value)| !value.is_null()).collect())),
            _ => Err(D::Error::custom("the row has no columns")),
        }
    }
}

impl More {
    /// Takes a column out that is a name.
    ///
    /// # Errors
    /// When it is not there, or none.
    pub(super) fn name(&mut self, column: &str) -> Result<String, String> {
        let value = self.0.shift_remove(column).ok_or_else(|| format!("missing field `{column}`"))?;
        text(value.into()).map_err(|other| format!("{column}: {other} is no name"))
    }
}

/// A column that must be there and may be null.
pub(super) fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    Option::deserialize(deserializer)
}

/// A column that is not read, whatever is in it.
pub(super) fn passed_over<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    serde::de::IgnoredAny::deserialize(deserializer).map(drop)
}

/// The answers of a task: the true ones of `column`, then others. Blank ones are none, and each stands once, where it stood first.
///
/// # Errors
/// When the column has none.
pub(super) fn answers(column: &str, truth: Vec<String>, others: impl IntoIterator<Item = String>) -> Result<Vec<String>, String> {
    let is_answer = |text: &String| !text.trim().is_empty();
    if !truth.iter().any(is_answer) {
        return Err(format!("{column} has no answer"));
    }
    let mut before = HashSet::new();
    Ok(truth.into_iter().chain(others).filter(is_answer).filter(|text| before.insert(text.clone())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: for<'de> Deserialize<'de>>(json: &str) -> Result<T, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn names_and_answers_are_texts_or_numbers() {
        assert_eq!([r#""a""#, "7", "0.5"].map(|json| read::<Name>(json).expect(json).0), ["a", "7", "0.5"]);
        assert!(read::<Name>("[1]").is_err_and(|why| why.starts_with("a list is no name")));
        let texts = |json: &str| read::<Texts>(json).map(|texts| texts.0);
        assert_eq!(texts(r#"[["Qa8", "Kc6#"], null, "b", 1994]"#), Ok(["Qa8", "Kc6#", "b", "1994"].map(str::to_owned).into()));
        assert_eq!((texts("null"), texts(r#""one""#)), (Ok(vec![]), Ok(vec!["one".to_owned()])));
        assert!(texts(r#"["a", {"b": 1}]"#).is_err_and(|why| why.starts_with("an object is no answer")));
        let answers =
            |truth: &[&str]| answers("truth", truth.iter().map(|&text| text.into()).collect(), ["ES", " ", "Spain"].map(str::to_owned));
        assert_eq!(answers(&["", "Spain"]), Ok(vec!["Spain".into(), "ES".into()]));
        assert_eq!((answers(&[]), answers(&[" "])), (Err("truth has no answer".into()), Err("truth has no answer".into())));
    }

    /// Each looked for among all before it would take minutes.
    #[test]
    fn a_row_of_very_many_answers_is_read_in_the_time_of_many() {
        let many = || (0..500_000).map(|at: u32| at.to_string());
        assert_eq!(answers("truth", many().collect(), many()).map(|answers| answers.len()), Ok(500_000));
    }

    #[test]
    fn further_columns_are_kept_and_bytes_among_them_refused_by_name() {
        let mut more = read::<More>(r#"{"a": 1, "b": null, "c": {"d": null}}"#).expect("an object");
        assert_eq!(
            (more.name("a"), more.name("a"), more.name("b")),
            (Ok("1".into()), Err("missing field `a`".into()), Err("missing field `b`".into()))
        );
        assert_eq!((more.0.len(), more.name("c")), (1, Err("c: an object is no name".into())));
        let row = Cell::Struct(vec![("thumb".into(), Cell::Bytes(vec![1]))]);
        assert!(More::deserialize(row).is_err_and(|why| why.to_string().starts_with("thumb: ")));
    }
}
