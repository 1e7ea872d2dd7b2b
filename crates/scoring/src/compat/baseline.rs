//! The released reference cache and its candidates (docs/spec.md#reference). In: updates and reads of per-prompt references. Out: what
//! the released cache would answer, hold and have on disk.
//!
//! [`crate::Known`] is what training uses; it keeps the same order of references but joins them and commits by epoch.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::python::{int, text};
use super::transcript::TurnCount;

/// Tool statistics of one rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolUse {
    /// Tool calls.
    pub count: i64,
    /// Counts per turn with calls.
    pub per_turn: Vec<TurnCount>,
}

/// One scored rollout of a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutTools {
    /// Accuracy part of its reward.
    pub acc_reward: f64,
    /// Its tool statistics.
    pub tool: ToolUse,
}

/// A reference as the released files hold it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BaselineEntry {
    /// Tool calls.
    pub tool_call: i64,
    /// Searches per turn.
    pub parallel: Vec<i64>,
}

/// The cheapest success with a tool call: least (calls, searches), the first on ties.
pub fn best_rollout_baseline(rollouts: &[RolloutTools]) -> Option<BaselineEntry> {
    let cost = |rollout: &&RolloutTools| (rollout.tool.count, rollout.tool.per_turn.iter().map(|turn| turn.searches).sum::<u64>());
    let best = rollouts.iter().filter(|rollout| rollout.acc_reward > 0.0 && rollout.tool.count >= 1).min_by_key(cost)?;
    let searches = |turn: &TurnCount| i64::try_from(turn.searches).unwrap_or(i64::MAX);
    Some(BaselineEntry { tool_call: best.tool.count, parallel: best.tool.per_turn.iter().map(searches).collect() })
}

/// One operation on the cache. Indices of any JSON type are keyed by their text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum CacheOp {
    /// Offers a new reference.
    Update {
        /// Dataset index.
        index: Value,
        /// Calls offered.
        new_tc: i64,
        /// Searches per turn offered.
        new_parallel: Vec<i64>,
        /// Calls of the dataset's reference; -1 when missing.
        orig_tc: i64,
        /// Searches per turn of the dataset's reference.
        orig_parallel: Vec<i64>,
    },
    /// Reads the reference in force.
    Get {
        /// Dataset index.
        index: Value,
        /// Calls of the dataset's reference; -1 when missing.
        orig_tc: i64,
        /// Searches per turn of the dataset's reference.
        orig_parallel: Vec<i64>,
    },
}

/// The answer to one operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum CacheAnswer {
    /// Of an update.
    Updated {
        /// Whether the offer was taken.
        changed: bool,
    },
    /// Of a read.
    Read {
        /// Calls.
        tc: i64,
        /// Searches.
        total: i64,
        /// Searches per turn.
        parallel: Vec<i64>,
    },
}

/// The released cache. Entries stay as they were loaded, since an entry may lack a field.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BaselineCache {
    entries: BTreeMap<String, Value>,
}

impl BaselineCache {
    /// Loads what the file held: an object, or its text. Anything unreadable gives an empty cache.
    pub fn load(file: Option<&Value>) -> Self {
        let parsed = match file {
            Some(Value::String(text)) => serde_json::from_str(text).unwrap_or(Value::Null),
            Some(value) => value.clone(),
            None => Value::Null,
        };
        let Value::Object(map) = parsed else { return Self::default() };
        Self { entries: map.into_iter().collect() }
    }

    /// Stores an offer if it is better than what is in force; true when stored.
    pub fn update(&mut self, index: &Value, new: BaselineEntry, original: &BaselineEntry) -> bool {
        let key = text(index);
        let known = self.cached(&key, original);
        if original.tool_call == -1 || !better(&new, known.as_ref().unwrap_or(original)) {
            return false;
        }
        self.entries.insert(key.into_owned(), json!({"tool_call": new.tool_call, "parallel": new.parallel}));
        true
    }

    /// The cached reference where it is better than the original, else the original.
    pub fn get(&self, index: &Value, original: &BaselineEntry) -> BaselineEntry {
        self.cached(&text(index), original).filter(|cached| better(cached, original)).unwrap_or_else(|| original.clone())
    }

    /// What is held, as the file holds it.
    pub fn to_json(&self) -> Value {
        Value::Object(self.entries.iter().map(|(key, entry)| (key.clone(), entry.clone())).collect::<Map<_, _>>())
    }

    /// A cached entry; fields that it lacks come from the original.
    fn cached(&self, key: &str, original: &BaselineEntry) -> Option<BaselineEntry> {
        let entry = self.entries.get(key)?;
        let tool_call = entry.get("tool_call").and_then(int).unwrap_or(original.tool_call);
        let parallel = entry.get("parallel").and_then(Value::as_array).map(|list| list.iter().filter_map(int).collect());
        Some(BaselineEntry { tool_call, parallel: parallel.unwrap_or_else(|| original.parallel.clone()) })
    }
}

fn total(parallel: &[i64]) -> i64 {
    parallel.iter().fold(0, |sum, searches| sum.saturating_add(*searches))
}

fn better(new: &BaselineEntry, old: &BaselineEntry) -> bool {
    new.tool_call > 0 && (new.tool_call, total(&new.parallel)) < (old.tool_call, total(&old.parallel))
}

/// Answers, final content and final file of a sequence of operations.
#[derive(Clone, Debug, PartialEq)]
pub struct CacheRun {
    /// One per operation.
    pub results: Vec<CacheAnswer>,
    /// What the cache holds in the end.
    pub final_memory: Value,
    /// What the file holds in the end; null when there is none that can be read.
    pub final_disk: Value,
}

/// Runs operations on a cache that was loaded from `preload`.
pub fn run_cache_sequence(preload: Option<&Value>, ops: &[CacheOp]) -> CacheRun {
    let mut cache = BaselineCache::load(preload);
    let mut disk = preload.filter(|file| file.is_object()).cloned().unwrap_or(Value::Null);
    let mut results = Vec::with_capacity(ops.len());
    for op in ops {
        results.push(match op {
            CacheOp::Update { index, new_tc, new_parallel, orig_tc, orig_parallel } => {
                let new = BaselineEntry { tool_call: *new_tc, parallel: new_parallel.clone() };
                let changed = cache.update(index, new, &BaselineEntry { tool_call: *orig_tc, parallel: orig_parallel.clone() });
                if changed {
                    disk = cache.to_json();
                }
                CacheAnswer::Updated { changed }
            }
            CacheOp::Get { index, orig_tc, orig_parallel } => {
                let read = cache.get(index, &BaselineEntry { tool_call: *orig_tc, parallel: orig_parallel.clone() });
                CacheAnswer::Read { tc: read.tool_call, total: total(&read.parallel), parallel: read.parallel }
            }
        });
    }
    CacheRun { results, final_memory: cache.to_json(), final_disk: disk }
}
