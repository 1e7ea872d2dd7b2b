//! What a row says beside what a task is made of, on its way to the task's metadata. In: cells. Out: JSON, and warnings of what it has no place
//! for. It knows no layout.

use hypereyes_domain::Metadata;
use hypereyes_tables::Cell;
use serde_json::Value;

/// Whether it is null, or a struct of nulls, as parquet has for a struct that other rows have.
pub(super) fn is_nothing(cell: &Cell) -> bool {
    match cell {
        Cell::Null => true,
        Cell::Struct(fields) => fields.iter().all(|(_, cell)| is_nothing(cell)),
        _ => false,
    }
}

/// Collects what is odd about a row while its cells become metadata.
pub(super) struct Beside {
    /// Whether nulls stand for whatever other rows of the file say.
    sparse: bool,
    /// What was left out.
    pub warnings: Vec<String>,
}

impl Beside {
    /// Nothing is odd yet.
    pub fn new(sparse: bool) -> Self {
        Self { sparse, warnings: vec![] }
    }

    /// The columns that are left.
    pub fn rest(&mut self, row: Cell) -> Metadata {
        let mut rest = Metadata::new();
        let Cell::Struct(fields) = row else { return rest };
        for (name, cell) in fields {
            if let Some(value) = self.json(&name, cell) {
                self.add(&mut rest, &name, value);
            }
        }
        rest
    }

    /// Puts a value into the metadata. What is there already stays; where it differs, that is said.
    pub fn add(&mut self, metadata: &mut Metadata, name: &str, value: Value) {
        match metadata.get(name) {
            None => {
                metadata.insert(name.to_owned(), value);
            }
            Some(there) if *there == value => {}
            Some(_) => self.warnings.push(format!("{name} is said twice, and differs: one is left out")),
        }
    }

    /// A value of the metadata; none where nothing is said. What JSON has not is left out, and that is said.
    pub fn json(&mut self, name: &str, cell: Cell) -> Option<Value> {
        match cell {
            Cell::Null => (!self.sparse).then_some(Value::Null),
            // What tables without nulls have for nothing.
            Cell::Float(value) if value.is_nan() => (!self.sparse).then_some(Value::Null),
            Cell::Float(value) if value.is_infinite() => Some(value.to_string().into()),
            Cell::Bytes(bytes) => {
                let what = if bytes.is_empty() { "no bytes" } else { "bytes" };
                self.warnings.push(format!("{name} holds {what}, which metadata cannot: left out"));
                None
            }
            Cell::List(cells) => Some(cells.into_iter().map(|cell| self.json(name, cell).unwrap_or_default()).collect()),
            Cell::Struct(fields) => {
                let mut map = Metadata::new();
                for (field, cell) in fields {
                    if let Some(value) = self.json(&format!("{name}.{field}"), cell) {
                        self.add(&mut map, &field, value);
                    }
                }
                (!(self.sparse && map.is_empty())).then(|| map.into())
            }
            other => Some(other.into_json().expect("bytes, and numbers that are not finite, were seen to")),
        }
    }

    /// Takes a column that holds an object, or its JSON text; empty where there is none.
    ///
    /// # Errors
    /// It is a text, and no JSON.
    pub fn object(&mut self, row: &mut Cell, name: &str) -> Result<Metadata, String> {
        let Some(cell) = row.take(name) else { return Ok(Metadata::new()) };
        let value = match cell {
            Cell::Text(text) if text.trim().is_empty() => return Ok(Metadata::new()),
            Cell::Text(text) => serde_json::from_str(&text).map_err(|error| format!("{name} is a text, and no JSON: {error}"))?,
            cell => self.json(name, cell).unwrap_or_default(),
        };
        match value {
            Value::Null => Ok(Metadata::new()),
            Value::Object(map) => Ok(map),
            other => Ok(Metadata::from_iter([("value".to_owned(), other)])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_twice_is_kept_once_and_the_other_is_named_where_it_differs() {
        let mut beside = Beside::new(false);
        let row = r#"{"a": 1, "b": {"c": 1, "c": 2}, "a": 1, "b": 7}"#;
        let rest = beside.rest(serde_json::from_str(row).expect("JSON"));
        assert_eq!(Value::Object(rest), serde_json::json!({"a": 1, "b": {"c": 1}}));
        assert_eq!(beside.warnings, ["c", "b"].map(|name| format!("{name} is said twice, and differs: one is left out")));
    }

    #[test]
    fn what_json_has_not_is_left_out_or_written_as_text() {
        let row = || {
            Cell::Struct(vec![
                ("raw".into(), Cell::Struct(vec![("of".into(), Cell::Bytes(vec![1]))])),
                ("far".into(), Cell::Float(f64::INFINITY)),
                ("none".into(), Cell::Float(f64::NAN)),
            ])
        };
        let mut beside = Beside::new(false);
        assert_eq!(Value::Object(beside.rest(row())), serde_json::json!({"raw": {}, "far": "inf", "none": null}));
        assert_eq!(beside.warnings, ["raw.of holds bytes, which metadata cannot: left out"]);
        assert_eq!(Value::Object(Beside::new(true).rest(row())), serde_json::json!({"far": "inf"}));
    }
}
