//! Settings as a flat list: what two of them differ in. In: settings. Out: every key with dots and its value as TOML has it.

use std::collections::BTreeMap;

use toml::Value;

use crate::config::Config;

/// A key that two settings do not agree on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The key.
    pub key: String,
    /// What the first say; empty where they say nothing.
    pub was: String,
    /// What the second say.
    pub is: String,
}

/// Every key with its value; keys without one are not there.
pub fn leaves(config: &Config) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    if let Ok(tree) = Value::try_from(config) {
        walk("", &tree, &mut found);
    }
    found
}

fn walk(prefix: &str, value: &Value, into: &mut BTreeMap<String, String>) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                walk(&key, value, into);
            }
        }
        value => drop(into.insert(prefix.to_owned(), value.to_string())),
    }
}

/// What the settings differ in, in the order of keys.
pub fn differences(was: &Config, is: &Config) -> Vec<Difference> {
    let (was, is) = (leaves(was), leaves(is));
    let keys: std::collections::BTreeSet<&String> = was.keys().chain(is.keys()).collect();
    let of = |side: &BTreeMap<String, String>, key: &String| side.get(key).cloned().unwrap_or_default();
    keys.into_iter()
        .filter(|key| was.get(*key) != is.get(*key))
        .map(|key| Difference { key: key.clone(), was: of(&was, key), is: of(&is, key) })
        .collect()
}

/// Whether a key is `table` or in it.
pub fn is_in(key: &str, table: &str) -> bool {
    key.strip_prefix(table).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_differ_are_named_whole() {
        let was = Config::default();
        let mut is = was.clone();
        (is.seed, is.learner.lr, is.learner.objective.dual_clip) = (3, 1e-4, Some(3.0));
        let keys: Vec<(String, String, String)> = differences(&was, &is).into_iter().map(|it| (it.key, it.was, it.is)).collect();
        let want = [("learner.lr", "0.0003", "0.0001"), ("learner.objective.dual_clip", "", "3.0"), ("seed", "0", "3")];
        assert_eq!(keys, want.map(|(key, was, is)| (key.to_owned(), was.to_owned(), is.to_owned())));
        assert!(differences(&is, &is).is_empty());
        assert!(is_in("synth.tasks", "synth") && is_in("seed", "seed") && !is_in("synthesis", "synth"));
    }
}
