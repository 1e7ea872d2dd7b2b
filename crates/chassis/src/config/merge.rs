//! Puts one layer on another and asks the config type whether it can be read.
//!
//! In: the defaults as a tree, the user's layers. Out: the config; every key that the type refuses is reported with the
//! layer that said it and then left out, so that one run reports them all.

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::layers::{self, Layer};
use super::{ConfigError, Problem, Settings};
use crate::nearest::nearest;

/// After this many mistakes in one layer the user has surely got the point.
const MAX_PROBLEMS_PER_LAYER: usize = 50;

/// Lays `layers` over `base` in order. Problems are added to `problems`; the result is what is left without them.
pub(super) fn apply<T: Settings>(base: Table, layers: Vec<Layer>, problems: &mut Vec<Problem>) -> Result<T, ConfigError> {
    let mut config = try_read::<T>(&base).map_err(|refusal| ConfigError::Defaults(refusal.to_string()))?;
    let mut base = base;
    for layer in layers {
        (config, base) = lay(config, base, layer, problems);
    }
    Ok(config)
}

fn lay<T: Settings>(config: T, base: Table, layer: Layer, problems: &mut Vec<Problem>) -> (T, Table) {
    let known = base.clone();
    let Layer { name, mut tree, raw } = layer;
    let (mut floor, mut raw) = (base.clone(), raw);
    for _ in 0..MAX_PROBLEMS_PER_LAYER {
        let mut merged = floor.clone();
        merge(&mut merged, tree.clone());
        let refusal = match try_read::<T>(&merged) {
            Ok(config) => return (config, merged),
            Err(refusal) => refusal,
        };
        let said = (1..=refusal.path.len()).rev().map(|length| &refusal.path[..length]).find(|path| layers::get(&tree, path).is_some());
        if refusal.unknown.is_some() && said != Some(&refusal.path[..]) && layers::remove(&mut floor, &refusal.path).is_some() {
            // A default that the layer's choice of another variant has no use for.
            continue;
        }
        let Some(said) = said.map(<[String]>::to_vec).or_else(|| sole_path(&tree)) else {
            problems.push(Problem { key: String::new(), layer: name, message: refusal.message, suggestion: None });
            return (config, base);
        };
        if refusal.unknown.is_none()
            && let Some(text) = raw.take()
            && !matches!(layers::get(&tree, &said), None | Some(Value::String(_)))
        {
            // Perhaps text is wanted here, though it reads as a number. The first refusal is told if it is not.
            let mut as_text = floor.clone();
            let mut text_tree = tree.clone();
            set(&mut text_tree, &said, Value::String(text));
            merge(&mut as_text, text_tree);
            if let Ok(config) = try_read::<T>(&as_text) {
                return (config, as_text);
            }
        }
        let key = if refusal.path.len() > said.len() && refusal.path.starts_with(&said) { refusal.path.join(".") } else { said.join(".") };
        let moved = T::moved().into_iter().find(|former| refusal.unknown.is_some() && former.was == key);
        problems.push(match moved {
            Some(former) => Problem { suggestion: None, key, layer: name.clone(), message: former.to_string() },
            None => Problem { suggestion: refusal.suggestion(&known), key, layer: name.clone(), message: refusal.message },
        });
        layers::remove(&mut tree, &said);
    }
    (config, base)
}

/// Tables are joined key by key; anything else replaces what was there.
fn merge(below: &mut Table, above: Table) {
    for (key, value) in above {
        match (below.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => merge(below, above),
            (_, value) => {
                below.insert(key, value);
            }
        }
    }
}

fn set(tree: &mut Table, path: &[String], value: Value) {
    let Some((last, inner)) = path.split_last() else { return };
    if let Some(tree) = inner.iter().try_fold(tree, |tree, part| tree.get_mut(part)?.as_table_mut()) {
        tree.insert(last.clone(), value);
    }
}

/// The only leaf of a tree, as a variable or a `--set` has it.
fn sole_path(tree: &Table) -> Option<Vec<String>> {
    let mut path = Vec::new();
    let mut tree = tree;
    loop {
        let (key, value) = tree.iter().next().filter(|_| tree.len() == 1)?;
        path.push(key.clone());
        match value {
            Value::Table(inner) if !inner.is_empty() => tree = inner,
            _ => return Some(path),
        }
    }
}

/// What the config type did not take.
struct Refusal {
    /// Key path of the value.
    path: Vec<String>,
    /// serde's words.
    message: String,
    /// For a key that does not exist: the keys that do, beside it.
    unknown: Option<Vec<String>>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path.join("."), self.message)
    }
}

impl Refusal {
    /// For an unknown key: a near one beside it, else the same key elsewhere.
    fn suggestion(&self, known: &Table) -> Option<String> {
        let beside = self.unknown.as_ref()?;
        let (last, inner) = self.path.split_last()?;
        let join = |key: &str| inner.iter().map(String::as_str).chain([key]).collect::<Vec<_>>().join(".");
        if let Some(near) = nearest(last, beside.iter().map(String::as_str)) {
            return Some(join(near));
        }
        let mut all = Vec::new();
        paths(known, "", &mut all);
        all.into_iter().find(|path| path.rsplit('.').next() == Some(last))
    }
}

fn paths(tree: &Table, prefix: &str, into: &mut Vec<String>) {
    for (key, value) in tree {
        let path = format!("{prefix}{key}");
        if let Value::Table(inner) = value {
            paths(inner, &format!("{path}."), into);
        }
        into.push(path);
    }
}

fn try_read<T: DeserializeOwned>(tree: &Table) -> Result<T, Refusal> {
    serde_path_to_error::deserialize(Value::Table(tree.clone())).map_err(|error| {
        let mut path: Vec<String> = Vec::new();
        for segment in error.path() {
            // Lists are replaced whole, so a key path ends at the list; variants are named by values, not keys.
            match segment {
                serde_path_to_error::Segment::Map { key } => path.push(key.clone()),
                serde_path_to_error::Segment::Enum { .. } => {}
                serde_path_to_error::Segment::Seq { .. } | serde_path_to_error::Segment::Unknown => break,
            }
        }
        let message = error.inner().message().trim().replace('\n', " ");
        let unknown = unknown_field(&message);
        if let Some((field, _)) = &unknown
            && path.last() != Some(field)
        {
            // Inside tagged enums serde loses the last step of the path; its message still has it.
            path.push(field.clone());
        }
        match unknown {
            Some((_, beside)) => {
                let list = if beside.is_empty() { "none".to_owned() } else { beside.join(", ") };
                Refusal { path, message: format!("there is no such key (there are: {list})"), unknown: Some(beside) }
            }
            None => Refusal { path, message, unknown: None },
        }
    })
}

/// Reads serde's "unknown field `a`, expected one of `b`, `c`", the only place where a type tells its keys.
fn unknown_field(message: &str) -> Option<(String, Vec<String>)> {
    let mut quoted = message.strip_prefix("unknown field ")?.split('`').skip(1).step_by(2).map(str::to_owned);
    Some((quoted.next()?, quoted.collect()))
}
