//! Evaluations that are there, as they are compared and put into tables. In: a folder. Out: its settings and the newest line of every
//! rollout, in an order that does not depend on which came to its end first.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use hypereyes_chassis::BadInput;
use hypereyes_eval::{Item, Key};
use hypereyes_run::{EvaluationFolder, journal, read_json};
use serde_json::{Map, Value};

use super::settings::{FORMAT, NOTED};
use super::store::MAX_ITEM;

/// An evaluation, finished or not.
pub struct Loaded {
    /// Its folder.
    pub folder: PathBuf,
    /// Its settings.
    pub settings: Map<String, Value>,
    /// Its rollouts, with and without tools.
    pub items: Vec<Item>,
}

impl Loaded {
    /// Reads the folder at `path`.
    ///
    /// # Errors
    /// [`BadInput`] when it holds no evaluation, or one of a later release.
    pub fn read(path: &Path) -> Result<Self> {
        let folder = EvaluationFolder::new(path);
        if !folder.settings().exists() {
            let text = format!("{} holds no evaluation: there is no settings.json; make one with `hypereyes eval --out`", path.display());
            return Err(BadInput::new(text).into());
        }
        let settings: Map<String, Value> = read_json(&folder.settings())?;
        if settings.get("format").and_then(Value::as_u64).is_none_or(|format| format > FORMAT) {
            return Err(BadInput::new(format!("{}: this release reads evaluations of format {FORMAT}", folder.settings().display())).into());
        }
        let mut items: BTreeMap<Key, Item> = BTreeMap::new();
        journal::read(&folder.items(), MAX_ITEM, |item: Item| drop(items.insert(item.key(), item)))?;
        Ok(Self { folder: path.to_owned(), settings, items: items.into_values().collect() })
    }

    /// A text that is noted for people.
    pub fn noted(&self, key: &str) -> Option<&str> {
        self.settings.get(NOTED)?.get(key)?.as_str()
    }

    /// What the policy is called.
    pub fn model(&self) -> String {
        self.noted("model").map_or_else(|| self.folder.display().to_string(), str::to_owned)
    }

    /// What it was measured on.
    pub fn benchmark(&self) -> String {
        self.noted("tasks").unwrap_or("tasks").to_owned()
    }

    /// Rollouts with tools, or without.
    pub fn of(&self, closed_book: bool) -> Vec<Item> {
        self.items.iter().filter(|item| item.closed_book == closed_book).cloned().collect()
    }

    /// Rollouts that are to have a verdict, with and without tools, and those that have one.
    pub fn progress(&self) -> (u64, u64) {
        let number = |value: Option<&Value>| value.and_then(Value::as_u64).unwrap_or(0);
        let tasks = number(self.settings.get("tasks").and_then(|tasks| tasks.get("count")));
        let all = 2 * tasks * number(self.settings.get("samples")).max(1);
        (all, self.items.iter().filter(|item| item.is_finished()).count() as u64)
    }
}
