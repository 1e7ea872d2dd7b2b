//! `hypereyes generate` and `logprobs` as scripts use them: token ids in, what transformers makes of them out.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The tiny checkpoint and what transformers makes of it.
fn fixture() -> (PathBuf, Value) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policy/tests/data/qwen3vl-tiny");
    let expected = serde_json::from_slice(&std::fs::read(folder.join("expected.json")).unwrap()).unwrap();
    (folder, expected)
}

/// Greedy continuations of prompts, in order.
fn continued(model: &Path, count: usize, prompts: &[Vec<u64>]) -> Vec<Vec<u64>> {
    answers(model, &["generate", "--greedy", "--json", "--max-new-tokens", &count.to_string()], "output_ids", prompts)
}

/// What a command says of token ids, line by line.
fn answers<T: DeserializeOwned>(model: &Path, arguments: &[&str], key: &str, prompts: &[Vec<u64>]) -> Vec<T> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hypereyes"));
    command.args(arguments).arg("--model").arg(model);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let lines: String = prompts.iter().enumerate().map(|(id, ids)| format!("{}\n", json!({"id": id, "input_ids": ids}))).collect();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let answer = |(id, line): (usize, &str)| {
        let answer: Value = serde_json::from_str(line).unwrap();
        assert_eq!(answer["id"], id);
        serde_json::from_value(answer[key].clone()).unwrap()
    };
    String::from_utf8(output.stdout).unwrap().lines().enumerate().map(answer).collect()
}

fn greedy(expected: &Value) -> (Vec<u64>, Vec<u64>) {
    let ids = |key: &str| -> Vec<u64> { serde_json::from_value(expected["greedy"][key].clone()).unwrap() };
    let (prompt, output) = (ids("prompt"), ids("output"));
    let more = output[prompt.len()..].to_vec();
    (prompt, more)
}

#[test]
fn prompts_of_any_length_are_continued_and_a_placeholder_is_a_token_as_any_other() {
    let (model, expected) = fixture();
    let (prompt, more) = greedy(&expected);
    let config: Value = serde_json::from_slice(&std::fs::read(model.join("config.json")).unwrap()).unwrap();
    let placeholder = config["image_token_id"].as_u64().unwrap();
    let got = continued(&model, more.len(), &[prompt, vec![5], vec![5, placeholder, 7], vec![placeholder]]);
    assert_eq!(got[0], more);
    assert!(got.iter().all(|ids| ids.len() == more.len()), "{got:?}");
    assert_ne!(got[2], continued(&model, more.len(), &[vec![5, 6, 7]])[0], "it has an embedding of its own");
    let texts = [vec![5, placeholder, 7], vec![5, 6, 7], vec![5, placeholder, 7, 9]];
    let said: Vec<Vec<f32>> = answers(&model, &["logprobs", "--json"], "next_logprobs", &texts);
    assert_eq!(said.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 3]);
    assert!(said[0][1] != said[1][1] && (said[0][1] - said[2][1]).abs() < 1e-5, "{said:?}");
}

#[test]
fn any_of_the_end_tokens_ends_it_wherever_they_are_named() {
    let (model, expected) = fixture();
    let (prompt, more) = greedy(&expected);
    // One that comes first at its place.
    let at = (2..more.len()).find(|at| !more[..*at].contains(&more[*at])).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(model.join(name), folder.path().join(name)).unwrap();
    }
    let one = || continued(folder.path(), more.len(), std::slice::from_ref(&prompt)).remove(0);
    assert_eq!(one(), more, "nothing ends it");
    let config: Value = serde_json::from_slice(&std::fs::read(model.join("config.json")).unwrap()).unwrap();
    for place in ["/text_config", ""] {
        let mut config = config.clone();
        config.pointer_mut(place).unwrap()["eos_token_id"] = json!(more[at]);
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        assert_eq!(one(), more[..=at], "config.json{place}");
    }
    let ids = json!({"eos_token_id": [more[at + 1], more[at]]});
    std::fs::write(folder.path().join("generation_config.json"), ids.to_string()).unwrap();
    assert_eq!(one(), more[..=at], "generation_config.json");
    std::fs::write(folder.path().join("generation_config.json"), json!({"eos_token_id": 0}).to_string()).unwrap();
    let end = more.iter().position(|id| *id == 0).map_or(more.len(), |at| at + 1);
    assert_eq!(one(), more[..end], "it comes before config.json");
}
