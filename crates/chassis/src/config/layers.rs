//! What the user said, by layer.
//!
//! In: a TOML table, variables, `key=value` texts. Out: [`Layer`]s, each a tree of values and its name for messages.

use std::path::Path;

use toml::{Table, Value};

use super::Problem;

/// Keys deeper than this are refused, since each level is a call on the stack.
const MAX_DEPTH: usize = 16;

/// One source of settings. A variable and a `--set` are a layer each, so that messages can name them.
pub(super) struct Layer {
    /// Its name for messages.
    pub(super) name: String,
    /// What it says.
    pub(super) tree: Table,
    /// For a variable or a `--set`: the text as it was written, used where text is wanted though it reads as something
    /// else (a run named `2024`).
    pub(super) raw: Option<String>,
}

impl Layer {
    pub(super) fn file(path: &Path, tree: Table) -> Self {
        Self { name: format!("file {}", path.display()), tree, raw: None }
    }

    /// One layer per variable `PREFIX__A__B`, in the order of their names.
    pub(super) fn env(prefix: &str, env: impl IntoIterator<Item = (String, String)>) -> Vec<Self> {
        let mut ours: Vec<(String, String)> = env.into_iter().filter(|(key, _)| key.starts_with(&format!("{prefix}__"))).collect();
        ours.sort();
        let layer = |(key, value): (String, String)| {
            let path: Vec<String> = key[prefix.len() + 2..].to_lowercase().split("__").map(str::to_owned).collect();
            Self { tree: nest(&path, parse(&value)), name: format!("environment {key}"), raw: Some(value) }
        };
        ours.into_iter().map(layer).collect()
    }

    /// A layer from `a.b=c`.
    pub(super) fn set(text: &str) -> Result<Self, Problem> {
        let name = match text.split_once('=') {
            // Nothing of ours takes a secret; who gives one all the same must not find it in a log.
            Some((key, _)) if is_secret(key) => format!("--set {key}=..."),
            _ => format!("--set {text}"),
        };
        let problem = |message: &str| Problem { key: String::new(), layer: name.clone(), message: message.into(), suggestion: None };
        let (key, value) = text.split_once('=').ok_or_else(|| problem("is not of the form key=value, such as learner.lr=1e-5"))?;
        let path: Vec<String> = key.split('.').map(|part| part.trim().to_owned()).collect();
        if path.iter().any(String::is_empty) {
            return Err(problem("has an empty part in its key; write it like learner.lr=1e-5"));
        }
        if path.len() > MAX_DEPTH {
            return Err(problem("has a key that is too deep"));
        }
        let value = value.trim();
        Ok(Self { tree: nest(&path, parse(value)), raw: Some(value.to_owned()), name })
    }
}

/// Whether a key's name says that its value is a secret.
fn is_secret(key: &str) -> bool {
    let key = key.trim().to_lowercase();
    ["key", "token", "secret", "password", "credential", "credentials"].iter().any(|end| key.ends_with(end))
}

/// The value of `a.b` in a tree.
pub(super) fn get<'a>(tree: &'a Table, path: &[String]) -> Option<&'a Value> {
    let (last, inner) = path.split_last()?;
    inner.iter().try_fold(tree, |tree, part| tree.get(part)?.as_table())?.get(last)
}

/// Takes the value of `a.b` out of a tree.
pub(super) fn remove(tree: &mut Table, path: &[String]) -> Option<Value> {
    let (last, inner) = path.split_last()?;
    inner.iter().try_fold(tree, |tree, part| tree.get_mut(part)?.as_table_mut())?.remove(last)
}

/// `{a: {b: value}}`.
fn nest(path: &[String], value: Value) -> Table {
    let mut value = value;
    for part in path.iter().skip(1).rev() {
        value = Value::Table(Table::from_iter([(part.clone(), value)]));
    }
    Table::from_iter([(path.first().cloned().unwrap_or_default(), value)])
}

/// A TOML value if the text is one, else the text.
fn parse(text: &str) -> Value {
    // A line break would smuggle a second key into the document below.
    if text.contains(['\n', '\r']) {
        return Value::String(text.to_owned());
    }
    match format!("v = {text}").parse::<Table>() {
        Ok(mut table) if table.len() == 1 => table.remove("v").unwrap_or_else(|| Value::String(text.to_owned())),
        _ => Value::String(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_toml_where_they_can_be() {
        assert_eq!(parse("1e-5"), Value::Float(1e-5));
        assert_eq!(parse("7"), Value::Integer(7));
        assert_eq!(parse("true"), Value::Boolean(true));
        assert_eq!(parse("\"7\""), Value::String("7".into()));
        assert_eq!(parse("[1, 2]"), Value::Array(vec![Value::Integer(1), Value::Integer(2)]));
        for text in ["/data/run", "127.0.0.1:7000", "", "a=b", "1\nw = 2", "["] {
            assert_eq!(parse(text), Value::String(text.into()));
        }
    }

    #[test]
    fn a_secret_in_the_wrong_place_is_not_repeated() {
        let layer = Layer::set("judge_model.api_key=sk-1").map_err(|problem| problem.to_string()).expect("it has the form");
        assert_eq!(layer.name, "--set judge_model.api_key=...");
        let layer = Layer::set("engine.max_tokens=x").map_err(|problem| problem.to_string()).expect("it has the form");
        assert_eq!(layer.name, "--set engine.max_tokens=x");
    }

    #[test]
    fn only_variables_with_the_prefix_and_two_underscores_count() {
        let env = [("HYPEREYES__LEARNER__LR", "2"), ("HYPEREYES_SERVICE_HOST", "10.0.0.1"), ("PATH", "/bin"), ("HYPEREYES__SEED", "1")];
        let layers = Layer::env("HYPEREYES", env.map(|(key, value)| (key.to_owned(), value.to_owned())));
        let names: Vec<&str> = layers.iter().map(|layer| layer.name.as_str()).collect();
        assert_eq!(names, ["environment HYPEREYES__LEARNER__LR", "environment HYPEREYES__SEED"]);
        assert_eq!(get(&layers[0].tree, &["learner".into(), "lr".into()]), Some(&Value::Integer(2)));
    }
}
