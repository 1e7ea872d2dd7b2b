//! `eval --benchmark` as a person uses it: tasks from published files, what becomes of rows that are none, wrong names.

use std::path::{Path, PathBuf};

use crate::support::{lines, run};
use serde_json::{Value, json};

fn published() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dataset/tests/data/browsecomp-vl")
}

#[track_caller]
fn refused(arguments: &[&str], mentions: &[&str]) {
    let output = run(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
    assert!(output.stdout.is_empty() && mentions.iter().all(|word| said.contains(word)), "{arguments:?}: {said} lacks one of {mentions:?}");
}

#[test]
fn a_benchmark_is_measured_by_domain_with_what_was_published_beside_each_rollout() {
    let scratch = tempfile::tempdir().unwrap();
    let played = scratch.path().join("rollouts.jsonl");
    let data = published();
    let output = run(&[
        "eval",
        "--json",
        "--benchmark",
        "browsecomp-vl@level1",
        "--data",
        data.to_str().unwrap(),
        "--rollouts",
        played.to_str().unwrap(),
    ]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!((&said["tasks"], &said["benchmark"], &said["refused"]), (&json!(2), &json!("browsecomp-vl@level1"), &json!([])));
    assert_eq!(said["rollouts"].as_u64().unwrap() + said["invalid"].as_u64().unwrap(), 2, "{said}");
    let rollouts = lines(&played);
    let tasks: Vec<&Value> = rollouts.iter().map(|one| &one["task"]).collect();
    assert_eq!(tasks.iter().map(|task| &task["kind"]).collect::<Vec<_>>(), ["Art", "Geography"]);
    assert_eq!(tasks[1]["id"], "browsecomp-vl/level1/1");
    assert_eq!(tasks[1]["metadata"], json!({"level": "level1", "image_path": "browsecomp-vl/images/level1/level1_2.jpg"}));
    // The pictures were seen: the prompt names them.
    assert!(rollouts.iter().all(|one| one["trajectory"]["pictures"][0] == one["task"]["pictures"][0]));
}

#[test]
fn pictures_are_seen_with_as_many_tokens_as_are_allowed() {
    let scratch = tempfile::tempdir().unwrap();
    let (data, played) = (published(), scratch.path().join("rollouts.jsonl"));
    let (data, played_path) = (data.to_str().unwrap(), played.to_str().unwrap());
    let prompts = |most: &str| -> Vec<usize> {
        let set = format!("eval.max_picture_tokens={most}");
        let words = ["--benchmark", "browsecomp-vl@level1", "--data", data, "--rollouts", played_path, "--set", &set];
        // What it says does not matter here.
        let short = ["--set", "rollout.max_turn_tokens=8", "--set", "rollout.max_closed_book_tokens=4"];
        let output = run(&[&["eval", "--json"][..], &words, &short].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        lines(&played).iter().map(|one| one["trajectory"]["prompt"].as_array().unwrap().len()).collect()
    };
    let (usual, small) = (prompts("1200"), prompts("1"));
    // Of 64 x 48 and 80 x 48 pixels there are two tokens a side, each of 32 pixels.
    assert_eq!(small.len(), 2);
    assert_eq!(small.iter().map(|tokens| tokens + 3).collect::<Vec<_>>(), usual);
}

#[test]
fn rows_that_are_no_tasks_are_told_with_their_number_and_the_others_measured() {
    let scratch = tempfile::tempdir().unwrap();
    let images = scratch.path().join("images/level1");
    std::fs::create_dir_all(&images).unwrap();
    std::fs::copy(published().join("images/level1/level1_1.jpg"), images.join("level1_1.jpg")).unwrap();
    let rows = scratch.path().join("bc_vl_level1.jsonl");
    std::fs::copy(published().join("bc_vl_level1.jsonl"), &rows).unwrap();
    let data = scratch.path().to_str().unwrap();
    let arguments = ["eval", "--json", "--benchmark", "browsecomp-vl@level1", "--data", data];
    let output = run(&arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let said: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    let row = &said["refused"][0];
    assert_eq!((&said["tasks"], &row["file"], &row["row"]), (&json!(1), &json!("bc_vl_level1.jsonl"), &json!(1)));
    assert!(row["reason"].as_str().unwrap().contains("level1_2.jpg"), "{row}");
    assert!(errors.contains("bc_vl_level1.jsonl, row 1: "), "{errors}");
    // None at all is no accuracy of zero.
    std::fs::write(&rows, "{}\n{}\n").unwrap();
    refused(&arguments, &["none of 2 rows is a task", "row 0: missing field `question`"]);
}

#[test]
fn names_and_folders_that_are_wrong_are_said_before_anything_is_measured() {
    let data = published();
    let data = data.to_str().unwrap();
    let all = ["browsecomp-vl", "fvqa", "hle-vl", "imeb", "infoseek", "livevqa", "mmsearch", "mmsearch@171", "mmsearch-plus", "simplevqa"];
    refused(&["eval", "--benchmark", "bing", "--data", data], &[&["--benchmark", "\"bing\""], &all[..]].concat());
    let help = run(&["eval", "--help"]);
    let help = String::from_utf8_lossy(&help.stdout);
    assert!(all.iter().all(|name| help.contains(name)), "{help}");
    refused(&["eval", "--benchmark", "browsecomp-vl@level9", "--data", data], &["\"level9\"", "level1, level2"]);
    refused(&["eval", "--benchmark", "browsecomp-vl", "--data", "/nowhere"], &["/nowhere/bc_vl_level1.jsonl", "DeepResearch"]);
    refused(&["eval", "--benchmark", "browsecomp-vl", "--data", data, "--tasks", data], &["--benchmark", "--tasks"]);
    refused(&["eval", "--benchmark", "browsecomp-vl"], &["--data"]);
    refused(&["eval", "--data", data], &["--benchmark"]);
}
