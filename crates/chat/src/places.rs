//! Where a model folder keeps its chat template and its named tokens.
//!
//! In: a folder. Out: the template that transformers 5 takes for a processor, and what else there is. In this order:
//! `chat_template` of `processor_config.json`, `chat_template.json`, `chat_template.jinja` with
//! `additional_chat_templates/*.jinja` beside it, `chat_template` of `tokenizer_config.json`. Of several under names the one
//! called `default` counts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{ChatError, files};

const PROCESSOR: &str = "processor_config.json";
const LEGACY: &str = "chat_template.json";
const OWN: &str = "chat_template.jinja";
const MORE: &str = "additional_chat_templates";
pub(crate) const TOKENIZER: &str = "tokenizer_config.json";
const SPECIAL: &str = "special_tokens_map.json";
/// Most templates of a folder that are looked at.
const MOST: usize = 64;

/// A template and where it stands.
pub(crate) struct Found {
    pub(crate) text: String,
    pub(crate) path: PathBuf,
    /// Other places that hold another template, and it; in the order in which they would count.
    pub(crate) others: Vec<(PathBuf, String)>,
}

/// The folder's template.
pub(crate) fn template(folder: &Path) -> Result<Found, ChatError> {
    let mut places: Vec<(PathBuf, String)> = vec![];
    let entry = |name: &str| -> Result<Option<(PathBuf, Value)>, ChatError> {
        let path = folder.join(name);
        let value = json(&path)?.and_then(|mut config| config.get_mut("chat_template").map(Value::take));
        Ok(value.filter(|value| !value.is_null()).map(|value| (path, value)))
    };
    let more = additional(folder)?;
    if let Some((path, value)) = entry(PROCESSOR)? {
        places.push((path.clone(), default(&path, value)?));
    }
    if let Some((path, value)) = entry(LEGACY)? {
        if !more.is_empty() {
            let reason = format!("{LEGACY} and {MORE}/ are both there; transformers reads no such folder, move the former to {OWN}");
            return Err(ChatError::File { path, reason });
        }
        places.push((path.clone(), default(&path, value)?));
    }
    let own = folder.join(OWN);
    if own.is_file() {
        places.push((own.clone(), files::read_text(&own)?));
    } else if let Some(path) = more.get("default") {
        places.push((path.clone(), files::read_text(path)?));
    } else if !more.is_empty() && places.is_empty() {
        let reason = format!("it holds templates and none is called default, nor is there {OWN}");
        return Err(ChatError::File { path: folder.join(MORE), reason });
    }
    if let Some((path, value)) = entry(TOKENIZER)? {
        places.push((path.clone(), default(&path, value)?));
    }
    if places.is_empty() {
        let reason = format!("there is no chat template: {OWN}, {LEGACY}, or chat_template in {TOKENIZER} or {PROCESSOR}");
        return Err(ChatError::Template { reason: format!("{}: {reason}", folder.display()) });
    }
    let (path, text) = places.remove(0);
    places.retain(|(_, other)| *other != text);
    Ok(Found { text, path, others: places })
}

/// The templates of the folder for them, by name.
fn additional(folder: &Path) -> Result<BTreeMap<String, PathBuf>, ChatError> {
    let path = folder.join(MORE);
    let Ok(entries) = std::fs::read_dir(&path) else { return Ok(BTreeMap::new()) };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.extension().is_some_and(|kind| kind == "jinja"));
    let named: BTreeMap<String, PathBuf> =
        paths.take(MOST + 1).filter_map(|path| Some((path.file_stem()?.to_str()?.to_owned(), path))).collect();
    if named.len() > MOST {
        return Err(ChatError::File { path, reason: format!("it holds more than {MOST} templates") });
    }
    Ok(named)
}

/// A text, or the one called `default` of several: a list of names and templates, or an object.
fn default(path: &Path, entry: Value) -> Result<String, ChatError> {
    let named = match &entry {
        Value::Array(list) => list.iter().find(|one| one["name"] == "default").map(|one| &one["template"]),
        Value::Object(map) => map.get("default"),
        other => Some(other),
    };
    let text = named.and_then(Value::as_str).map(str::to_owned);
    text.ok_or_else(|| ChatError::File { path: path.to_owned(), reason: "its chat_template is no text and has none called default".into() })
}

/// Named tokens (`eos_token` and so on) with their text, as a template may use them.
pub(crate) fn named_tokens(folder: &Path) -> Result<BTreeMap<String, String>, ChatError> {
    let mut tokens = BTreeMap::new();
    // The tokenizer's configuration comes last and so goes before the other.
    for name in [SPECIAL, TOKENIZER] {
        let Some(config) = json(&folder.join(name))? else { continue };
        let extra = config.get("extra_special_tokens").and_then(Value::as_object);
        let own = config.as_object().into_iter().flatten().filter(|(key, _)| key.ends_with("_token"));
        for (key, value) in own.chain(extra.into_iter().flatten()) {
            if let Some(text) = value.as_str().or_else(|| value["content"].as_str()) {
                tokens.insert(key.clone(), text.to_owned());
            }
        }
    }
    Ok(tokens)
}

/// A JSON file; `None` where there is none.
pub(crate) fn json(path: &Path) -> Result<Option<Value>, ChatError> {
    if !path.exists() {
        return Ok(None);
    }
    let fault = |error: serde_json::Error| ChatError::File { path: path.to_owned(), reason: format!("it is not JSON ({error})") };
    serde_json::from_str(&files::read_text(path)?).map(Some).map_err(fault)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn folder(files: &[(&str, String)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(folder.path().join(MORE)).expect("made");
        files.iter().for_each(|(name, text)| std::fs::write(folder.path().join(name), text).expect("written"));
        folder
    }

    #[test]
    fn the_place_that_counts_is_the_one_of_transformers() {
        let entry = |text: &str| json!({"chat_template": text}).to_string();
        let all: [(&str, String); 5] = [
            (PROCESSOR, entry("processor")),
            (LEGACY, entry("legacy")),
            (OWN, "own".into()),
            ("additional_chat_templates/default.jinja", "additional".into()),
            (
                TOKENIZER,
                json!({"chat_template": [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "tokenizer"}]})
                    .to_string(),
            ),
        ];
        for (files, want, others) in [
            (vec![0, 1, 2, 4], "processor", 3),
            (vec![1, 2, 4], "legacy", 2),
            (vec![2, 3, 4], "own", 1),
            (vec![3, 4], "additional", 1),
            (vec![4], "tokenizer", 0),
        ] {
            let folder = folder(&files.iter().map(|at: &usize| all[*at].clone()).collect::<Vec<_>>());
            let found = template(folder.path()).expect("one");
            assert_eq!((found.text.as_str(), found.others.len()), (want, others), "{:?}", found.others);
        }
        for (files, part) in [
            (vec![], "there is no chat template"),
            (vec![all[1].clone(), all[3].clone()], "both there"),
            (vec![("additional_chat_templates/rag.jinja", "x".into())], "none is called default"),
            (vec![(TOKENIZER, json!({"chat_template": [{"name": "rag", "template": "x"}]}).to_string())], "none called default"),
            (vec![(LEGACY, "{".into())], "not JSON"),
        ] {
            let error = template(folder(&files).path()).err().expect(part).to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn named_tokens_are_read_in_every_form() {
        let files = [
            (SPECIAL, json!({"eos_token": {"content": "<e>"}, "pad_token": "<p>"}).to_string()),
            (TOKENIZER, json!({"eos_token": "<E>", "bos_token": null, "extra_special_tokens": {"image_token": "<i>"}}).to_string()),
        ];
        let tokens = named_tokens(folder(&files).path()).expect("read");
        assert_eq!(
            tokens.into_iter().collect::<Vec<_>>(),
            [("eos_token", "<E>"), ("image_token", "<i>"), ("pad_token", "<p>")].map(|(k, v)| (k.into(), v.into()))
        );
    }
}
