//! Everything that a rollout of an evaluation depends on. In: settings, a policy, tasks. Out: `settings.json`, and the first key in which
//! two of them differ: rollouts of other settings are never mixed.
//!
//! What costs time or money and changes no rollout (budgets, rates, concurrency, timeouts of servers) is not in it: it may be changed and
//! the evaluation goes on. What is under `noted` is for people.

use std::path::Path;

use anyhow::{Context, Result};
use hypereyes_domain::Task;
use hypereyes_policy::checkpoint;
use hypereyes_rollout::RolloutConfig;
use hypereyes_search::{BackEndConfig, Mode, SearchConfig};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::config::Config;

/// The format of the folder.
pub const FORMAT: u64 = 1;
/// What is for people only.
pub const NOTED: &str = "noted";

/// Small files of a model folder on which its rollouts depend, beside its weights.
const SMALL_FILES: [&str; 8] = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
    "processor_config.json",
];
/// Largest of those that is read.
const MOST_BYTES: u64 = 256 << 20;

/// Who is evaluated.
pub enum Policy<'a> {
    /// A model folder.
    Folder(&'a Path),
    /// A model of a server.
    Served {
        /// Its address.
        url: &'a str,
        /// Its name there.
        model: &'a str,
    },
}

/// Of what.
pub struct Tasks<'a> {
    /// The benchmark, as it was asked for.
    pub benchmark: Option<&'a str>,
    /// Its own metric.
    pub metric: Option<&'a str>,
    /// The tasks.
    pub tasks: &'a [Task],
    /// The world that searches may be answered from, and that tasks may be of.
    pub world: String,
}

/// The settings that must be the same.
///
/// # Errors
/// When the model's folder cannot be read.
pub fn of(config: &Config, policy: &Policy<'_>, of: &Tasks<'_>) -> Result<Map<String, Value>> {
    let engine = &config.engine;
    let model = match policy {
        Policy::Folder(folder) => json!({"digest": digest(folder)?}),
        Policy::Served { url, model } => json!({"url": url, "name": model}),
    };
    let engine = match policy {
        Policy::Folder(_) if engine.is_remote() => json!({"kind": engine.kind, "max_context": engine.max_context}),
        Policy::Folder(_) => json!({"kind": engine.kind, "device": plain(&engine.device), "max_context": engine.max_context}),
        Policy::Served { .. } => json!({"kind": engine.kind}),
    };
    let settings = json!({
        "format": FORMAT,
        "release": env!("CARGO_PKG_VERSION"),
        "model": model,
        "engine": engine,
        "judge": judge(config),
        "metric": of.metric,
        "sampling": plain(&config.sampling.eval),
        "rollout": rollout(&config.rollout),
        "max_picture_tokens": config.eval.max_picture_tokens,
        "seed": config.eval.seed,
        "samples": config.eval.samples,
        "benchmark": of.benchmark,
        "tasks": {"count": of.tasks.len(), "digest": digest_of_tasks(of.tasks)},
        "world": of.world,
        "search": search(&config.search),
    });
    let Value::Object(settings) = settings else { unreachable!("it was written as one") };
    Ok(settings)
}

/// As JSON has it: a number of 32 bits stays as short as it was written.
fn plain<T: Serialize>(value: &T) -> Value {
    let text = serde_json::to_string(value).expect("settings are plain values");
    serde_json::from_str(&text).expect("what was just written")
}

/// Who judges: a rule by its name, a model with all that its verdicts depend on.
pub fn judge(config: &Config) -> Value {
    plain(&config.reward_service.judge.about(&config.reward_service.judge_model))
}

/// Limits and wording of episodes. A turn that takes too long fails, and its rollout is asked again: that bound may be raised.
fn rollout(config: &RolloutConfig) -> Value {
    let mut limits = plain(config);
    limits.as_object_mut().expect("a table").remove("turn_timeout_s");
    limits
}

/// Who answers searches, and how; in a replay that is the recording.
fn search(config: &SearchConfig) -> Value {
    fn of_side(side: &BackEndConfig) -> Value {
        let fallbacks: Vec<Value> = side.fallbacks.iter().map(of_side).collect();
        json!({"backend": side.backend, "url": side.url, "parameters": side.parameters, "hits": side.hits, "fallbacks": fallbacks})
    }
    let recording = config.cache.path.as_ref().filter(|_| config.mode == Mode::Replay);
    json!({
        "mode": plain(&config.mode),
        "recording": recording.map(|path| path.display().to_string()),
        "text": of_side(&config.text),
        "image": of_side(&config.image),
        "page": of_side(&config.page),
    })
}

/// One name for all tasks: their order and everything in them; pictures are named by what they show.
fn digest_of_tasks(tasks: &[Task]) -> String {
    let mut hasher = blake3::Hasher::new();
    for task in tasks {
        hasher.update(&serde_json::to_vec(task).expect("tasks are plain values")).update(b"\n");
    }
    hasher.finalize().to_hex().to_string()
}

/// One name for a model folder, wherever it lies: its weights, and the small files beside them.
///
/// # Errors
/// When something of it cannot be read; the text names the file.
pub fn digest(folder: &Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(checkpoint::digest(folder).map_err(hypereyes_offline::refusal)?.as_bytes());
    for name in SMALL_FILES {
        let path = folder.join(name);
        if path.is_file() {
            let bytes = hypereyes_outside::files::read(&path, MOST_BYTES).with_context(|| format!("cannot read {}", path.display()))?;
            hasher.update(name.as_bytes()).update(&(bytes.len() as u64).to_le_bytes()).update(&bytes);
        }
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// A key in which two settings differ.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Differs {
    /// Which, as a path.
    pub key: String,
    /// In the first; null where it is not there.
    pub first: Value,
    /// In the second.
    pub second: Value,
}

/// All keys in which they differ, in their order; what is for people is no matter.
pub fn differences(first: &Map<String, Value>, second: &Map<String, Value>) -> Vec<Differs> {
    let mut found = vec![];
    walk("", first, second, &mut found);
    found
}

fn walk(path: &str, first: &Map<String, Value>, second: &Map<String, Value>, found: &mut Vec<Differs>) {
    let keys = first.keys().chain(second.keys().filter(|key| !first.contains_key(*key)));
    for key in keys.filter(|key| !(path.is_empty() && *key == NOTED)) {
        let (one, other) = (first.get(key).unwrap_or(&Value::Null), second.get(key).unwrap_or(&Value::Null));
        let key = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match (one, other) {
            (Value::Object(one), Value::Object(other)) => walk(&key, one, other, found),
            _ if one == other => {}
            _ => found.push(Differs { key, first: one.clone(), second: other.clone() }),
        }
    }
}

/// A value within a line.
pub fn short(value: &Value) -> String {
    /// Characters of it that are shown.
    const MOST: usize = 60;
    let text = value.to_string();
    if text.chars().count() <= MOST { text } else { text.chars().take(MOST).chain("..".chars()).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(change: impl FnOnce(&mut Config)) -> Map<String, Value> {
        let mut config = Config::default();
        change(&mut config);
        let tasks = Tasks { benchmark: Some("fvqa"), metric: None, tasks: &[], world: "w".into() };
        of(&config, &Policy::Served { url: "http://a/v1", model: "m" }, &tasks).expect("plain")
    }

    fn differing(change: impl FnOnce(&mut Config)) -> Vec<String> {
        differences(&made(|_| {}), &made(change)).into_iter().map(|one| one.key).collect()
    }

    #[test]
    fn the_first_key_that_differs_is_found_and_what_changes_no_rollout_is_none() {
        assert_eq!(differing(|_| {}), [""; 0]);
        assert_eq!(differing(|config| config.sampling.eval.temperature = 0.0), ["sampling.temperature"]);
        assert_eq!(differing(|config| config.rollout.env.max_rounds = 18), ["rollout.env.max_rounds"]);
        assert_eq!(differing(|config| (config.eval.seed, config.eval.samples) = (1, 2)), ["seed", "samples"]);
        assert_eq!(differing(|config| config.search.text.backend = "serper".into()), ["search.text.backend"]);
        let changes = |config: &mut Config| {
            config.search.budget.requests = 5;
            config.search.text.usd_per_request = 0.1;
            config.eval.concurrency = 3;
            config.engine.max_sequences = 7;
            config.rollout.turn_timeout_s = 9;
            config.search.cache.path = Some("kept".into());
        };
        assert_eq!(differing(changes), [""; 0]);
        let replayed = |path: &str| made(|config| (config.search.mode, config.search.cache.path) = (Mode::Replay, Some(path.into())));
        let found = differences(&replayed("a"), &replayed("b"));
        assert_eq!(found.iter().map(|one| one.key.as_str()).collect::<Vec<_>>(), ["search.recording"], "it is what answers");
        assert_eq!(made(|_| {})["sampling"]["temperature"].to_string(), "0.8", "not 0.800000011920929");
    }

    #[test]
    fn a_judge_is_what_its_verdicts_depend_on() {
        assert_eq!(judge(&Config::default()), json!({"judge": "alias"}));
        let mut config = Config::default();
        config.reward_service.judge = hypereyes_judge::JudgeChoice::Model;
        config.reward_service.judge_model.model = "m".into();
        let said = judge(&config);
        assert_eq!((&said["judge"], &said["model"]["model"], &said["model"]["temperature"]), (&json!("model"), &json!("m"), &json!(0.0)));
        config.reward_service.judge_model.concurrency = 1;
        assert_eq!(judge(&config), said);
    }

    #[test]
    fn what_is_for_people_is_no_difference_and_what_is_missing_is_one() {
        let map = |value: Value| value.as_object().cloned().expect("an object");
        let first = map(json!({"a": {"b": 1, "c": [1, 2]}, "noted": {"x": 1}}));
        assert_eq!(differences(&first, &map(json!({"a": {"b": 1, "c": [1, 2]}, "noted": {}}))), []);
        let found = differences(&first, &map(json!({"a": {"b": 2, "c": [1]}, "d": 5})));
        assert_eq!(found.iter().map(|one| one.key.as_str()).collect::<Vec<_>>(), ["a.b", "a.c", "d"]);
        assert_eq!((&found[2].first, &found[2].second), (&Value::Null, &json!(5)));
        assert_eq!(short(&"x".repeat(100).into()).chars().count(), 62);
    }
}
