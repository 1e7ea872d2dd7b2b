//! Models and pictures as people publish and save them: the inputs of `tests/cases`, with the real binary.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Map, Value, json};

/// Largest difference of a log-prob from transformers' that is rounding.
const NEAR: f64 = 1e-3;

fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/cases").join(name)
}

fn expected(case: &Path) -> Map<String, Value> {
    let text = std::fs::read(case.join("expected.json")).unwrap();
    serde_json::from_slice::<Value>(&text).unwrap().as_object().unwrap().clone()
}

/// Runs a command in `case` with one line of input: its exit code, what it answered, and what it said on stderr.
fn ask(case: &Path, arguments: &[&str], line: &Value) -> (Option<i32>, Value, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hypereyes"));
    command.args(arguments).current_dir(case).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(line.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let answer = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code(), answer, String::from_utf8_lossy(&output.stderr).into_owned())
}

fn generate(case: &Path, model: &str, line: Value, count: usize) -> (Option<i32>, Value, String) {
    let mut whole = line;
    whole["id"] = json!(1);
    ask(case, &["generate", "--model", model, "--greedy", "--max-new-tokens", &count.to_string()], &whole)
}

fn logprobs(case: &Path, model: &str, ids: &Value, images: &[&str]) -> (Option<i32>, Value, String) {
    ask(case, &["logprobs", "--model", model], &json!({"id": 1, "input_ids": ids, "images": images}))
}

/// Greedy continuations of messages are those of transformers.
#[track_caller]
fn continues(case: &Path, model: &str, expected: &Value) {
    let (messages, ids) = (&expected[0], &expected[1]);
    let (code, answer, said) = generate(case, model, json!({"messages": messages}), ids.as_array().unwrap().len());
    assert_eq!(code, Some(0), "{model}: {said}");
    assert_eq!(answer["output_ids"], *ids, "{model}: {messages}");
}

/// Log-probs of a sequence are those of transformers, and what was said on the way.
#[track_caller]
fn says(case: &Path, model: &str, expected: &Value, images: &[&str], tolerance: f64) -> String {
    let (code, answer, said) = logprobs(case, model, &expected[0], images);
    assert_eq!(code, Some(0), "{model}: {said}");
    let numbers = |value: &Value| -> Vec<f64> { value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect() };
    let (ours, theirs) = (numbers(&answer["next_logprobs"]), numbers(&expected[1]));
    assert_eq!(ours.len(), theirs.len());
    let far = ours.iter().zip(&theirs).map(|(one, other)| (one - other).abs()).fold(0.0, f64::max);
    assert!(far <= tolerance, "{model} {images:?}: off by {far}");
    said
}

/// A copy of a folder, to be changed.
fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.path().join(path.file_name().unwrap())).unwrap();
    }
    to
}

fn change(path: &Path, work: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    work(&mut value);
    std::fs::write(path, value.to_string()).unwrap();
}

#[test]
fn case_saved_by_transformers_5() {
    let case = case("saved-by-transformers-5");
    let want = expected(&case);
    for expected in want["generate"].as_object().unwrap().values() {
        continues(&case, "model", expected);
    }
    assert_eq!(says(&case, "model", &want["logprobs"], &["picture.png"], NEAR), "");

    // Its brothers: the same settings where earlier versions keep them; both files, of which the nested one counts; neither.
    let folder = copy(&case.join("model"));
    let at = |name: &str| folder.path().join(name);
    let model = folder.path().to_str().unwrap();
    let settings = |change: &dyn Fn(&mut Value)| {
        let whole: Value = serde_json::from_slice(&std::fs::read(case.join("model/processor_config.json")).unwrap()).unwrap();
        let mut settings = whole["image_processor"].clone();
        change(&mut settings);
        std::fs::write(at("preprocessor_config.json"), settings.to_string()).unwrap();
    };
    settings(&|settings| settings["size"] = json!({"shortest_edge": 256, "longest_edge": 1024}));
    says(&case, model, &want["logprobs"], &["picture.png"], NEAR);
    settings(&|_| {});
    std::fs::remove_file(at("processor_config.json")).unwrap();
    says(&case, model, &want["logprobs"], &["picture.png"], NEAR);
    settings(&|settings| drop(settings.as_object_mut().unwrap().remove("size")));
    let (_, _, said) = logprobs(&case, model, &want["logprobs"][0], &["picture.png"]);
    assert!(said.contains("preprocessor_config.json") && said.contains("size.longest_edge = 1003520"), "what was assumed is said: {said}");
    settings(&|settings| settings["do_normalize"] = json!(false));
    let (code, _, said) = logprobs(&case, model, &want["logprobs"][0], &["picture.png"]);
    assert!(code == Some(2) && said.contains("do_normalize is false"), "{said}");
    std::fs::remove_file(at("preprocessor_config.json")).unwrap();
    let (code, _, said) = generate(&case, model, json!({"messages": want["generate"]["picture"][0].clone()}), 1);
    assert!(code == Some(2) && said.contains("neither processor_config.json"), "{said}");
    let (_, _, said) = logprobs(&case, model, &want["logprobs"][0], &["picture.png"]);
    assert!(said.contains("assumed"), "{said}");
}

#[test]
fn case_tensors_under_other_names() {
    let case = case("tensors-under-other-names");
    let want = expected(&case);
    for (folder, expected) in &want {
        assert_eq!(says(&case, folder, expected, &[], NEAR), "", "{folder}");
    }
    // A tensor that is really missing stays an error that names it; so does one of another shape.
    let (name, raw) = ("model.language_model.norm.weight", std::fs::read(case.join("plain/model.safetensors")).unwrap());
    for (from, to, part) in [
        (format!("\"{name}\""), "\"model.language_model.nirm.weight\"".to_owned(), format!("tensor {name} is missing")),
        ("\"shape\":[32]".into(), "\"shape\":[ 9]".into(), "safetensors".into()),
    ] {
        let folder = copy(&case.join("plain"));
        let at = raw.windows(from.len()).position(|window| window == from.as_bytes()).expect("in the header");
        let mut changed = raw.clone();
        changed[at..at + from.len()].copy_from_slice(to.as_bytes());
        std::fs::write(folder.path().join("model.safetensors"), changed).unwrap();
        let (code, _, said) = logprobs(&case, folder.path().to_str().unwrap(), &want["plain"][0], &[]);
        assert!(code == Some(2) && said.contains(&part), "{said}");
    }
}

#[test]
fn case_tensors_beside_the_model() {
    let case = case("tensors-beside-the-model");
    let want = expected(&case);
    for (folder, expected) in &want {
        let said = says(&case, folder, expected, &[], NEAR);
        let warned = said.matches("no part of the model").count();
        assert_eq!(warned, usize::from(folder == "extra"), "{folder}: {said}");
        if folder == "extra" {
            assert!(said.contains("3 tensors") && said.contains("v_head.summary.weight"), "{said}");
        }
    }
    // A file beside an index goes before it, as in transformers, and that is said.
    let folder = copy(&case.join("twin"));
    std::fs::copy(case.join("extra/model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    let said = says(&case, folder.path().to_str().unwrap(), &want["extra"], &[], NEAR);
    assert!(said.contains("both there"), "{said}");
    // One tensor with two values is refused, and both places are named.
    let folder = copy(&case.join("twin"));
    let shard = folder.path().join("model-00001-of-00002.safetensors");
    let mut raw = std::fs::read(&shard).unwrap();
    let header = 8 + u64::from_le_bytes(raw[..8].try_into().unwrap()) as usize;
    raw[header..].iter_mut().step_by(2).for_each(|byte| *byte ^= 1);
    std::fs::write(&shard, raw).unwrap();
    let (code, _, said) = logprobs(&case, folder.path().to_str().unwrap(), &want["twin"][0], &[]);
    assert!(code == Some(2) && said.contains("differs from") && said.contains("00001-of") && said.contains("00002-of"), "{said}");
}

#[test]
fn case_template_extensions() {
    let case = case("template-extensions");
    for (folder, cases) in expected(&case) {
        match cases.as_object() {
            Some(cases) => cases.values().for_each(|expected| continues(&case, &folder, expected)),
            None => continues(&case, &folder, &cases),
        }
    }
    // A template that cannot be parsed stops messages and nothing else.
    let folder = copy(&case.join("clock"));
    let model = folder.path().to_str().unwrap();
    change(&folder.path().join("tokenizer_config.json"), |config| config["chat_template"] = json!("{% for %}"));
    let (code, _, said) = generate(&case, model, json!({"messages": [{"role": "user", "content": "x"}]}), 2);
    assert!(code == Some(2) && said.contains("tokenizer_config.json") && said.contains("template:1"), "{said}");
    let (code, answer, said) = generate(&case, model, json!({"input_ids": [5, 6]}), 2);
    assert!(code == Some(0) && answer["output_ids"].as_array().is_some_and(|ids| !ids.is_empty()), "{said}");
    assert_eq!(logprobs(&case, model, &json!([5, 6]), &[]).0, Some(0));
}

#[test]
fn case_thinking_history() {
    let case = case("thinking-history");
    for (folder, cases) in expected(&case) {
        cases.as_object().unwrap().values().for_each(|expected| continues(&case, &folder, expected));
    }
}

#[test]
fn case_pictures_among_text() {
    let case = case("pictures-among-text");
    for expected in expected(&case).values() {
        continues(&case, "model", expected);
    }
    // The other spelling of a picture is the same picture; what is not known is named.
    let messages = |part: Value| json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "zq"}, part]}]});
    let (_, one, _) = generate(&case, "model", messages(json!({"type": "image", "image": "a.png"})), 4);
    let (_, other, _) = generate(&case, "model", messages(json!({"type": "image_url", "image_url": {"url": "a.png"}})), 4);
    assert!(one["output_ids"].is_array() && one == other);
    let (code, _, said) = generate(&case, "model", messages(json!({"type": "video", "video": "a.mp4"})), 4);
    assert!(code == Some(2) && said.contains("\"video\""), "{said}");
}

#[test]
fn case_exif_orientation() {
    let case = case("exif-orientation");
    for (name, expected) in expected(&case) {
        says(&case, "model", &expected, &[&name], if name.ends_with("png") { NEAR } else { 0.3 });
    }
}

#[test]
fn case_jpeg_cut_short() {
    let case = case("jpeg-cut-short");
    let ids: Value = serde_json::from_slice(&std::fs::read(case.join("prompt.json")).unwrap()).unwrap();
    for name in ["whole.jpg", "cut20.jpg", "cut60.jpg", "cut97.jpg"] {
        let code = Some(if name == "whole.jpg" { 0 } else { 2 });
        let part = json!([{"type": "image", "image": name}, {"type": "text", "text": "what?"}]);
        let answers = [
            logprobs(&case, "model", &ids, &[name]),
            generate(&case, "model", json!({"messages": [{"role": "user", "content": part}]}), 2),
            ask(&case, &["ask", name, "what?"], &json!({})),
        ];
        for (at, (found, _, said)) in answers.into_iter().enumerate() {
            assert!(found == code && (code == Some(0) || said.contains(name)), "{name}, command {at}: {found:?} {said}");
        }
    }
}

/// The tokens that a policy depends on must mean the same in every file, wherever a template is rendered.
#[test]
fn files_that_mean_different_tokens_are_refused_in_one_line() {
    let case = case("thinking-history");
    let folder = copy(&case.join("model"));
    change(&folder.path().join("config.json"), |config| config["image_token_id"] = json!(200));
    let model = folder.path().to_str().unwrap();
    let (code, _, said) = generate(&case, model, json!({"messages": [{"role": "user", "content": "x"}]}), 2);
    assert!(code == Some(2) && said.contains("image_token_id = 200") && said.contains("tokenizer.json has 260"), "{said}");
    assert_eq!(said.trim().lines().count(), 1, "{said}");
    assert_eq!(generate(&case, model, json!({"input_ids": [5]}), 2).0, Some(0), "ids need no template");
}
