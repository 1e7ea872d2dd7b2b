//! What ends no run, from `tests/cases`, with the real binary.

use std::path::{Path, PathBuf};
use std::process::Child;

use crate::support::{hypereyes, lines, wait_for};
use serde_json::Value;

fn case(path: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/cases").join(path);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn up(folder: &Path, sets: &[&str]) -> Child {
    let run_dir = format!("run_dir={}", folder.display());
    let mut arguments = vec!["up", "--json", "--set", &run_dir];
    arguments.extend(sets.iter().flat_map(|set| ["--set", *set]));
    hypereyes(&arguments).spawn().unwrap()
}

#[test]
fn case_progress_file() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("run");
    let sets = [
        "synth.tasks=6",
        "synth.held_out=2",
        "learner.steps=24",
        "learner.groups_per_step=2",
        "learner.group_size=4",
        "learner.record_every=1",
        "learner.checkpoint_every=5",
    ];
    let mut run = up(&folder, &sets);
    let metrics = folder.join("learner/metrics.jsonl");
    wait_for("three steps", &mut run, || (lines(&metrics).len() >= 3).then_some(()));
    let files: Vec<PathBuf> =
        case("progress-file/files.json").as_array().unwrap().iter().map(|name| folder.join(name.as_str().unwrap())).collect();
    let block = |file: &PathBuf| {
        // Written again between the two calls, it is removed again.
        while std::fs::create_dir_all(file.join("x")).is_err() {
            let _ = std::fs::remove_file(file);
        }
    };
    // First the file for people, while steps go by that `up` would note in it; then those that say of steps, too.
    let seen = lines(&metrics).len();
    block(&files[0]);
    wait_for("two steps", &mut run, || (lines(&metrics).len() >= seen + 2).then_some(()));
    let ledger = folder.join("learner/groups.jsonl");
    let trained = || lines(&ledger).iter().filter(|line| line["event"] == "trained").count();
    let before = trained();
    files[1..].iter().for_each(block);
    wait_for("two steps that no file tells of", &mut run, || (trained() >= before + 4).then_some(()));
    assert!(run.try_wait().unwrap().is_none(), "it goes on");
    for file in &files {
        std::fs::remove_dir_all(file).unwrap();
    }
    let output = run.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("progress.json") && said.contains("the run goes on"), "{said}");
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result["steps"], 24);
    let steps: Vec<u64> = lines(&metrics).iter().filter_map(|line| line["step"].as_u64()).collect();
    assert!(steps.len() < 24 && steps.last() == Some(&24) && steps.windows(2).all(|pair| pair[1] == pair[0] + 1), "{steps:?}");
    let progress: Value = serde_json::from_slice(&std::fs::read(folder.join("progress.json")).unwrap()).unwrap();
    assert_eq!(progress["attempts"], 1);
}
