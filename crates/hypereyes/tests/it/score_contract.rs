//! `hypereyes score` as scripts use it: lines with ids in, lines with the same ids out, number by number as released.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// Feeds JSON lines to `score` and reads JSON lines.
fn score(arguments: &[&str], lines: &[Value]) -> Vec<Value> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hypereyes"));
    let mut child = command.arg("score").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{arguments:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn close(got: &Value, want: &Value) -> bool {
    match (got, want) {
        (Value::Number(got), Value::Number(want)) => (got.as_f64().unwrap() - want.as_f64().unwrap()).abs() <= 1e-9,
        (Value::Array(got), Value::Array(want)) => got.len() == want.len() && got.iter().zip(want).all(|(got, want)| close(got, want)),
        (Value::Object(got), Value::Object(want)) => want.iter().all(|(key, want)| got.get(key).is_some_and(|got| close(got, want))),
        (got, want) => got == want,
    }
}

#[test]
fn families_are_scored_line_by_line_under_their_ids() {
    let vectors: Value = serde_json::from_str(include_str!("../../../scoring/tests/data/reward_vectors.json")).unwrap();
    for (family, key, more) in [
        ("group_bonus", "input", vec![]),
        ("extract_completion", "completion", vec![]),
        ("reward_func", "samples", vec!["--judge", "contains"]),
    ] {
        let cases = vectors[family].as_array().unwrap();
        let lines: Vec<Value> = cases.iter().map(|case| json!({"id": case["id"], key: case[key]})).collect();
        for compat in [vec![], vec!["--compat"]] {
            let arguments = [vec!["--family", family], more.clone(), compat].concat();
            let answers = score(&arguments, &lines);
            assert_eq!(answers.len(), cases.len());
            for (answer, case) in answers.iter().zip(cases) {
                assert_eq!(answer["id"], case["id"]);
                assert!(close(&answer["output"], &case["expected"]), "{family} {}: {}", case["id"], answer["output"]);
            }
        }
    }
}
