//! Rendered manifests, as text, and the objects in them.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Kinds that something here acts upon.
const KNOWN: &[&str] = &[
    "ConfigMap",
    "Deployment",
    "HorizontalPodAutoscaler",
    "Job",
    "PersistentVolumeClaim",
    "Pod",
    "PodDisruptionBudget",
    "Secret",
    "Service",
    "ServiceAccount",
    "StatefulSet",
];

/// What an object is called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// `Deployment`, `Service`, …
    pub kind: String,
    /// `default` where the manifest says nothing.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl Key {
    /// The key of an object of this kind.
    pub fn new(kind: &str, namespace: &str, name: &str) -> Self {
        Self { kind: kind.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.kind, self.name)
    }
}

/// Objects by name, each as its manifest says it.
pub type Objects = BTreeMap<Key, Value>;

/// Reads several documents; the second part says, a line each, what is not acted upon and why.
pub fn parse(text: &str) -> Result<(Objects, Vec<String>)> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).context("the manifests are not YAML")?;
    let (mut objects, mut ignored) = (Objects::new(), vec![]);
    for (number, document) in documents.into_iter().enumerate().filter(|(_, document)| !document.is_null()) {
        let word = |pointer: &str| document.pointer(pointer).and_then(Value::as_str);
        let (Some(kind), Some(name)) = (word("/kind"), word("/metadata/name")) else {
            bail!("document {} has no kind or no metadata.name", number + 1);
        };
        let key = Key::new(kind, word("/metadata/namespace").unwrap_or("default"), name);
        match kind {
            "NetworkPolicy" => ignored.push(format!("{key}: read, not enforced: every pod reaches every pod")),
            _ if !KNOWN.contains(&kind) => ignored.push(format!("{key}: this kind is not simulated")),
            _ => {
                if objects.insert(key.clone(), document).is_some() {
                    bail!("{key} is there twice");
                }
            }
        }
    }
    Ok((objects, ignored))
}

/// Whether labels fit a selector's `matchLabels`, or a Service's plain `selector`.
pub fn selects(selector: &Value, labels: &BTreeMap<String, String>) -> bool {
    let wanted = if selector["matchLabels"].is_object() { &selector["matchLabels"] } else { selector };
    wanted
        .as_object()
        .is_some_and(|wanted| !wanted.is_empty() && wanted.iter().all(|(key, value)| labels.get(key).map(String::as_str) == value.as_str()))
}

/// Strings of a JSON object, such as labels.
pub fn strings(value: &Value) -> BTreeMap<String, String> {
    let entries = value.as_object().into_iter().flatten();
    entries.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// Elements of a list, none where there is no list.
pub fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A string, where there is one.
pub fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_become_objects_and_the_rest_is_said() {
        let (objects, ignored) = parse(
            "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: run, namespace: rl}\ndata:\n  a.toml: |\n    x = 1\n  on: \"true\"\n\
             ---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: deny}\n---\nkind: Queue\nmetadata: {name: q}\n---\n",
        )
        .unwrap();
        let map = &objects[&Key::new("ConfigMap", "rl", "run")];
        assert_eq!(map["data"]["a.toml"], "x = 1\n");
        assert_eq!(map["data"]["on"], "true");
        assert_eq!(ignored.len(), 2);
        assert!(parse("kind: Job\n").is_err());
    }

    #[test]
    fn an_empty_selector_selects_nothing() {
        let labels = BTreeMap::from([("app".to_owned(), "a".to_owned())]);
        assert!(selects(&serde_json::json!({"app": "a"}), &labels));
        assert!(selects(&serde_json::json!({"matchLabels": {"app": "a"}}), &labels));
        assert!(!selects(&serde_json::json!({"app": "b"}), &labels));
        assert!(!selects(&Value::Null, &labels));
    }
}
