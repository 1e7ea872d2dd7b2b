//! One value of a table, whatever file it came from. In: what a reader of files makes. Out: the same for everybody behind it: by name, as
//! JSON, or as a type of serde's (`de.rs`, and back by `bounded.rs`). It knows no file.

use serde_json::{Map, Number, Value};

/// A value of a row: a number, a text, bytes, or several of them.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Nothing, as parquet has it for whatever a row does not say.
    Null,
    /// Yes or no.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number that may be beyond [`Cell::Int`].
    UInt(u64),
    /// Any other number.
    Float(f64),
    /// A text.
    Text(String),
    /// Bytes, which JSON has not.
    Bytes(Vec<u8>),
    /// Several in order.
    List(Vec<Cell>),
    /// Several by name, in the order of the file. A row is one.
    Struct(Vec<(String, Cell)>),
}

impl Cell {
    /// A field of a struct, the last of that name; none of anything else. A null is there.
    pub fn get(&self, name: &str) -> Option<&Cell> {
        match self {
            Self::Struct(fields) => fields.iter().rfind(|(field, _)| field == name).map(|(_, cell)| cell),
            _ => None,
        }
    }

    /// Takes a field out of a struct; what is null is not there.
    pub fn take(&mut self, name: &str) -> Option<Cell> {
        let Self::Struct(fields) = self else { return None };
        let at = fields.iter().rposition(|(field, _)| field == name)?;
        Some(fields.remove(at).1).filter(|cell| !cell.is_null())
    }

    /// Whether it is nothing.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The text, where it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// What it is, for messages: `a text`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Int(_) | Self::UInt(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::Text(_) => "a text",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "a list",
            Self::Struct(_) => "an object",
        }
    }

    /// The same as JSON.
    ///
    /// # Errors
    /// JSON has no bytes, and no number that is not finite.
    pub fn into_json(self) -> Result<Value, String> {
        Ok(match self {
            Self::Null => Value::Null,
            Self::Bool(value) => value.into(),
            Self::Int(value) => value.into(),
            Self::UInt(value) => value.into(),
            Self::Float(value) => Number::from_f64(value).map(Value::Number).ok_or_else(|| format!("JSON has no number {value}"))?,
            Self::Text(text) => text.into(),
            Self::Bytes(bytes) => return Err(format!("JSON has no bytes ({} of them)", bytes.len())),
            Self::List(cells) => Value::Array(cells.into_iter().map(Self::into_json).collect::<Result<_, _>>()?),
            Self::Struct(fields) => {
                let mut map = Map::new();
                for (name, cell) in fields {
                    let value = cell.into_json().map_err(|why| format!("{name}: {why}"))?;
                    map.insert(name, value);
                }
                Value::Object(map)
            }
        })
    }
}

impl From<Value> for Cell {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(value),
            Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(value), _) => Self::Int(value),
                (None, Some(value)) => Self::UInt(value),
                _ => Self::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => Self::Text(text),
            Value::Array(values) => Self::List(values.into_iter().map(Self::from).collect()),
            Value::Object(map) => Self::Struct(map.into_iter().map(|(name, value)| (name, Self::from(value))).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_goes_through_cells_and_comes_back() {
        let text = r#"{"a":[1,-2,0.5,18446744073709551615,true,null,"x"],"b":{"c":{}}}"#;
        let value: Value = serde_json::from_str(text).expect("JSON");
        let cell = Cell::from(value.clone());
        assert_eq!(
            cell.get("a"),
            Some(&Cell::List(vec![
                Cell::Int(1),
                Cell::Int(-2),
                Cell::Float(0.5),
                Cell::UInt(u64::MAX),
                Cell::Bool(true),
                Cell::Null,
                Cell::Text("x".into()),
            ]))
        );
        assert_eq!(serde_json::to_string(&cell.into_json().expect("no bytes")).expect("a text"), text);
    }

    #[test]
    fn what_json_has_not_is_refused_with_its_place() {
        let bytes = Cell::Struct(vec![("image".into(), Cell::Struct(vec![("bytes".into(), Cell::Bytes(vec![1, 2]))]))]);
        assert_eq!(bytes.into_json(), Err("image: bytes: JSON has no bytes (2 of them)".into()));
        assert_eq!(Cell::List(vec![Cell::Float(f64::NAN)]).into_json(), Err("JSON has no number NaN".into()));
    }

    #[test]
    fn fields_are_taken_by_name_and_nulls_are_none() {
        let mut row = Cell::Struct(vec![("a".into(), Cell::Null), ("b".into(), Cell::Int(1))]);
        assert_eq!((row.get("a"), row.get("c")), (Some(&Cell::Null), None));
        assert_eq!((row.take("a"), row.take("b"), row.take("b")), (None, Some(Cell::Int(1)), None));
        assert_eq!(row, Cell::Struct(vec![]));
        assert_eq!(Cell::Int(1).get("a"), None);
    }
}
