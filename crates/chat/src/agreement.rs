//! Whether the files of a model folder mean the same tokens.
//!
//! In: a folder. Out: what there is to say of it, or the one line for which it is refused. The tokens that a policy depends on
//! (a picture's placeholder, start and end of a picture, start and end of a turn) must agree in `tokenizer.json`, `config.json`,
//! `tokenizer_config.json` and the generation settings, and pictures must be cut as the vision tower reads them. Other
//! disagreements (bos, pad, several ends) are said and resolved as transformers resolves them.

use std::path::Path;

use hypereyes_pictures::Loaded;
use serde_json::Value;

use crate::places::{self, TOKENIZER};
use crate::vocabulary::Vocabulary;
use crate::{Chat, ChatError, special};

const MODEL: &str = "config.json";
const GENERATION: &str = "generation_config.json";
/// Tokens that `config.json` names by id: its key, the token, and the id that transformers assumes.
const NAMED: [(&str, &str, u64); 3] = [
    ("image_token_id", special::IMAGE_PAD, 151_655),
    ("vision_start_token_id", special::VISION_START, 151_652),
    ("vision_end_token_id", special::VISION_END, 151_653),
];
/// What `tokenizer_config.json` calls the tokens that a policy depends on.
const CALLED: [(&str, &str); 3] =
    [("image_token", special::IMAGE_PAD), ("vision_start_token", special::VISION_START), ("vision_end_token", special::VISION_END)];
/// The part of `config.json` and its sides that picture settings must fit.
const SIDES: [(&str, &str, u64); 3] =
    [("patch_size", "patch_size", 16), ("merge_size", "spatial_merge_size", 2), ("temporal_patch_size", "temporal_patch_size", 2)];

/// Checks a whole model folder as a policy for rollouts: tokenizer, template, picture settings, and what they say of each other
/// and `config.json`. Reads no weights; takes as long as reading `tokenizer.json`. Gives what was assumed or resolved, a
/// sentence each, for whoever looks after the settings.
///
/// # Errors
/// [`ChatError`]: one line that names the files and the two values.
pub fn check(folder: &Path) -> Result<Vec<String>, ChatError> {
    Chat::load_with_remarks(folder, &crate::ChatConfig::default()).map(|(_, remarks)| remarks)
}

/// Checks what the files say of tokens. A folder without `config.json` (a tokenizer by itself) is not compared with it.
///
/// # Errors
/// As [`check`].
pub fn tokens(folder: &Path, vocabulary: &Vocabulary) -> Result<Vec<String>, ChatError> {
    let id = |name: &'static str| vocabulary.id(name).ok_or(ChatError::MissingToken { name });
    for name in [special::IM_START, special::IM_END, special::VISION_START, special::VISION_END, special::IMAGE_PAD] {
        id(name)?;
    }
    let differ = |what: &str, one: String, other: String| ChatError::Disagree {
        folder: folder.to_owned(),
        reason: format!("{what}: {one}, {other}"),
    };
    let file = |name: &str| places::json(&folder.join(name));
    let (config, generation, tokenizer) = (file(MODEL)?, file(GENERATION)?, file(TOKENIZER)?.unwrap_or(Value::Null));
    let mut remarks = vec![];
    if let Some(config) = &config {
        let mut assumed = vec![];
        for (key, name, default) in NAMED {
            let said = config.get(key).and_then(Value::as_u64);
            if said.is_none() {
                assumed.push(format!("{key} = {default}"));
            }
            let (said, ours) = (said.unwrap_or(default), id(name)?);
            if said != u64::from(ours) {
                return Err(differ(name, format!("{MODEL} has {key} = {said}"), format!("tokenizer.json has {ours}")));
            }
        }
        if !assumed.is_empty() {
            remarks.push(format!("{MODEL} does not say everything; as transformers does, this is assumed: {}", assumed.join(", ")));
        }
    }
    for (key, name) in CALLED {
        let called = tokenizer[key].as_str().or_else(|| tokenizer[key]["content"].as_str()).filter(|called| *called != name);
        if let Some(called) = called {
            return Err(differ(key, format!("{TOKENIZER} has {called}"), format!("the template and tokenizer.json have {name}")));
        }
    }
    if let Some(listed) = tokenizer["added_tokens_decoder"].as_object() {
        for name in special::ALL {
            let wrong = listed.iter().find(|(number, token)| token["content"] == name && number.parse().ok() != vocabulary.id(name));
            if let Some((number, _)) = wrong {
                let ours = vocabulary.id(name).map_or("none".into(), |id| id.to_string());
                return Err(differ(name, format!("{TOKENIZER} has {number}"), format!("tokenizer.json has {ours}")));
            }
        }
    }
    let mut named = vec![];
    if let Some(generation) = &generation {
        named.push((GENERATION, generation));
    }
    if let Some(config) = &config {
        named.extend([("text_config of config.json", &config["text_config"]), (MODEL, config)]);
    }
    ends(vocabulary, &named, &tokenizer, id(special::IM_END)?, &mut remarks)
        .map_err(|(one, other)| differ("the end of a turn", one, other))?;
    let others: Vec<String> = ["bos", "pad"].into_iter().filter_map(|kind| others(vocabulary, &named, &tokenizer, kind)).collect();
    if !others.is_empty() {
        remarks.push(format!("files differ in tokens that are not used here: {}", others.join("; ")));
    }
    Ok(remarks)
}

/// Whether turns end with a token that ends generation; of several files that say which do, the first counts.
fn ends(
    vocabulary: &Vocabulary,
    named: &[(&str, &Value)],
    tokenizer: &Value,
    end: u32,
    remarks: &mut Vec<String>,
) -> Result<(), (String, String)> {
    let named: Vec<(&str, Vec<u64>)> =
        named.iter().map(|(file, value)| (*file, ids(&value["eos_token_id"]))).filter(|(_, ids)| !ids.is_empty()).collect();
    if let Some((file, ids)) = named.first() {
        if !ids.contains(&u64::from(end)) {
            return Err((
                format!("{file} has eos_token_id = {ids:?}"),
                format!("the template and tokenizer.json have {} = {end}", special::IM_END),
            ));
        }
        let differing = |other: &&(&str, Vec<u64>)| other.1.iter().any(|id| !ids.contains(id));
        let others: Vec<String> = named.iter().filter(differing).map(|(file, ids)| format!("{file} has {ids:?}")).collect();
        if !others.is_empty() {
            remarks.push(format!("eos_token_id: {file} has {ids:?}, which counts as in transformers; {}", others.join(", ")));
        }
    }
    let called = called(tokenizer, "eos_token");
    if let Some(called) = called.filter(|called| *called != special::IM_END) {
        let id = vocabulary.id(called).map_or("no token".into(), |id| id.to_string());
        remarks.push(format!(
            "eos_token: {TOKENIZER} has {called} ({id}); turns end with {} ({end}), as the template has it",
            special::IM_END
        ));
    }
    Ok(())
}

/// Where two files name different tokens of a kind that nothing here depends on.
fn others(vocabulary: &Vocabulary, named: &[(&str, &Value)], tokenizer: &Value, kind: &str) -> Option<String> {
    let (key, name) = (format!("{kind}_token_id"), format!("{kind}_token"));
    let ours = called(tokenizer, &name).map(|text| (TOKENIZER, vocabulary.id(text).map_or(Value::Null, Value::from)));
    let said: Vec<(&str, Value)> =
        named.iter().map(|(file, value)| (*file, value[&key].clone())).filter(|(_, id)| !id.is_null()).chain(ours).collect();
    let differ = said.iter().any(|(_, id)| *id != said[0].1);
    differ.then(|| format!("{kind}: {}", said.iter().map(|(file, id)| format!("{id} in {file}")).collect::<Vec<_>>().join(", ")))
}

fn called<'a>(tokenizer: &'a Value, key: &str) -> Option<&'a str> {
    tokenizer[key].as_str().or_else(|| tokenizer[key]["content"].as_str())
}

/// One token or a list of them; nothing where there is none.
fn ids(value: &Value) -> Vec<u64> {
    match value {
        Value::Array(ids) => ids.iter().filter_map(Value::as_u64).collect(),
        value => value.as_u64().into_iter().collect(),
    }
}

/// Checks that pictures are cut into the patches that the vision tower of `config.json` reads; a folder without one is not compared.
///
/// # Errors
/// As [`check`].
pub fn pictures(folder: &Path, loaded: &Loaded) -> Result<Vec<String>, ChatError> {
    let Some(config) = places::json(&folder.join(MODEL))? else { return Ok(vec![]) };
    let vision = &config["vision_config"];
    if !vision.is_object() {
        return Ok(vec![]);
    }
    let processor = &loaded.processor;
    for ((ours, theirs, default), value) in SIDES.into_iter().zip([processor.patch, processor.merge, processor.temporal]) {
        let said = vision[theirs].as_u64().unwrap_or(default);
        if said != value as u64 {
            let file = loaded.path.file_name().unwrap_or_default().display();
            let reason = format!("pictures: {file} has {ours} = {value}, vision_config of {MODEL} has {theirs} = {said}");
            return Err(ChatError::Disagree { folder: folder.to_owned(), reason });
        }
    }
    let file = loaded.path.file_name().unwrap_or_default().display();
    Ok(loaded.assumed.iter().map(|assumed| format!("{file}: {assumed}")).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::bytelevel::{self, Summary};

    /// A folder whose files agree, changed by `change` (file, pointer, value; null takes the key away).
    fn folder(changes: &[(&str, &str, Value)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let summary = bytelevel::write(folder.path(), []).expect("written");
        std::fs::write(folder.path().join(MODEL), config(&summary).to_string()).expect("written");
        for (file, pointer, value) in changes {
            let path = folder.path().join(file);
            let mut whole: Value = serde_json::from_slice(&std::fs::read(&path).expect("there")).expect("JSON");
            let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
            whole.pointer_mut(parent).expect("there")[key] = value.clone();
            std::fs::write(path, whole.to_string()).expect("written");
        }
        folder
    }

    fn config(summary: &Summary) -> Value {
        json!({
            "image_token_id": summary.image, "vision_start_token_id": summary.vision_start, "vision_end_token_id": summary.vision_end,
            "text_config": {"eos_token_id": summary.end, "vocab_size": summary.vocab_size},
            "vision_config": {"patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2},
        })
    }

    #[test]
    fn files_that_agree_need_no_words() {
        assert_eq!(check(folder(&[]).path()).expect("they agree"), Vec::<String>::new());
    }

    #[test]
    fn what_a_policy_depends_on_must_agree_and_both_values_are_named() {
        for (file, pointer, value, parts) in [
            (MODEL, "/image_token_id", json!(7), ["<|image_pad|>", "config.json has image_token_id = 7", "tokenizer.json has 261"]),
            (MODEL, "/image_token_id", Value::Null, ["<|image_pad|>", "151655", "tokenizer.json has 261"]),
            (MODEL, "/vision_start_token_id", json!(1), ["<|vision_start|>", "vision_start_token_id = 1", "tokenizer.json has 259"]),
            (MODEL, "/vision_end_token_id", json!(1), ["<|vision_end|>", "vision_end_token_id = 1", "tokenizer.json has 260"]),
            (
                GENERATION,
                "/eos_token_id",
                json!([256]),
                ["end of a turn", "generation_config.json has eos_token_id = [256]", "<|im_end|> = 258"],
            ),
            (TOKENIZER, "/image_token", json!("<image>"), ["image_token", "<image>", "<|image_pad|>"]),
            (
                TOKENIZER,
                "/added_tokens_decoder",
                json!({"5": {"content": "<|im_end|>"}}),
                ["<|im_end|>", "tokenizer_config.json has 5", "258"],
            ),
            (
                MODEL,
                "/vision_config/patch_size",
                json!(14),
                ["preprocessor_config.json has patch_size = 16", "patch_size = 14", "pictures"],
            ),
            (MODEL, "/vision_config/spatial_merge_size", json!(3), ["merge_size = 2", "spatial_merge_size = 3", "pictures"]),
        ] {
            let error = check(folder(&[(file, pointer, value)]).path()).expect_err(pointer).to_string();
            assert!(parts.iter().all(|part| error.contains(part)) && !error.contains('\n'), "{pointer}: {error}");
        }
    }

    #[test]
    fn other_disagreements_are_said_and_resolved() {
        let said = |changes: &[(&str, &str, Value)]| check(folder(changes).path()).expect("resolved");
        let remarks = said(&[(MODEL, "/text_config/eos_token_id", json!(7))]);
        assert!(remarks.len() == 1 && remarks[0].contains("generation_config.json has [258, 256], which counts"), "{remarks:?}");
        let remarks = said(&[(TOKENIZER, "/eos_token", json!("<|endoftext|>"))]);
        assert!(remarks.len() == 1 && remarks[0].contains("<|endoftext|> (256)"), "{remarks:?}");
        let remarks =
            said(&[(GENERATION, "/pad_token_id", json!(3)), (GENERATION, "/bos_token_id", json!(1)), (MODEL, "/bos_token_id", json!(2))]);
        assert!(remarks.len() == 1 && remarks[0].contains("bos: 1 in generation_config.json, 2 in config.json"), "{remarks:?}");
        assert!(remarks[0].contains("pad: 3 in generation_config.json, 256 in tokenizer_config.json"), "{remarks:?}");
    }
}
