//! A whole evaluation of the shipped policy, killed three times on the way: it ends with the bits of one that nobody disturbed.

use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use crate::Machine;
use crate::support::{hypereyes, lines, run, wait_for};

const SETS: [&str; 3] = ["synth.held_out=24", "eval.samples=2", "eval.concurrency=4"];

fn words(out: &str) -> Vec<&str> {
    ["eval", "--json", "--out", out].into_iter().chain(SETS.into_iter().flat_map(|set| ["--set", set])).collect()
}

/// Items in the order of their rollouts, without what a clock says.
fn items(folder: &Path) -> Vec<Value> {
    let mut all = lines(&folder.join("items.jsonl"));
    all.iter_mut().for_each(|item| drop(item.as_object_mut().unwrap().remove("seconds")));
    all.sort_by_key(|item| (item["closed_book"] == true, item["task"].to_string(), item["sample"].as_u64()));
    all
}

#[test]
fn an_evaluation_that_is_killed_three_times_ends_with_the_same_bits() {
    let _machine = Machine::alone();
    let scratch = tempfile::tempdir().unwrap();
    let [whole, killed] = ["whole", "killed"].map(|name| scratch.path().join(name));
    let done = |folder: &Path| {
        let output = run(&words(folder.to_str().unwrap()));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let undisturbed = done(&whole);
    let path = killed.join("items.jsonl");
    for least in [5, 30, 60] {
        let before = lines(&path);
        let mut child = hypereyes(&words(killed.to_str().unwrap())).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_for("items", &mut child, || (lines(&path).len() >= least).then_some(()));
        child.kill().unwrap();
        child.wait().unwrap();
        let after = lines(&path);
        assert_eq!(after[..before.len()], before, "what was finished is unchanged");
        assert!(after.len() >= least && after.len() < 96, "{} items", after.len());
    }
    let resumed = done(&killed);
    assert_eq!(items(&killed), items(&whole));
    assert_eq!(items(&killed).len(), 96, "24 tasks, two rollouts each, with tools and without: a line for each");
    let rollouts = |folder: &Path| std::fs::read_to_string(folder.join("rollouts.jsonl")).unwrap();
    assert!(rollouts(&killed) == rollouts(&whole), "rollouts differ");
    for key in ["accuracy", "rounds", "searches", "kilotokens", "cas", "cas_interval", "by_kind", "pass_at_k", "avg_at_k"] {
        assert_eq!(resumed[key], undisturbed[key], "{key}");
    }
    println!("accuracy {}, rounds {}", resumed["accuracy"], resumed["rounds"]);
}
