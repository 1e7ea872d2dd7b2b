//! A report of a run that the release before there was a format number has written.

use std::path::Path;

use hypereyes_report::{gather, page};
use hypereyes_run::RunFolder;

#[test]
fn a_run_of_the_release_before_has_a_report() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let (old, copy) = (root.join("crates/run/tests/data/format-1"), tempfile::tempdir().expect("a temporary folder"));
    let folder = RunFolder::new(copy.path());
    std::fs::create_dir(folder.learner()).expect("made");
    for file in ["config.toml", "held_out_before.jsonl", "held_out_after.jsonl", "learner/metrics.jsonl"] {
        std::fs::copy(old.join(file), copy.path().join(file)).expect("copied");
    }
    // Its trained policy is not kept; the shipped one has the same tokenizer.
    let mut result: serde_json::Value = hypereyes_run::read_json(&old.join("result.json")).expect("ours");
    result["details"]["policy"] = serde_json::json!(root.join("assets/policy"));
    std::fs::write(folder.result(), result.to_string()).expect("written");
    let material = gather(&folder).expect("it is read");
    assert_eq!((material.steps.len(), material.outcome.summary.groups_trained), (3, 6));
    assert!(!material.examples.is_empty());
    let page = page::render(&material);
    for want in ["From 83.3 to 50.0 % right answers", "text_search", "teacher#1"] {
        assert!(page.contains(want), "{want} is missing");
    }
}
