//! A study killed at any moment ends with the table of one that was not, and goes on from its lines alone.

use std::path::Path;
use std::process::Child;
use std::time::Duration;

use serde_json::{Value, json};

use crate::Machine;
use crate::support::{hypereyes, lines, run, wait_for};

const STUDY: &str = r#"
about = "two arms"
base = "plain"
seeds = [1]
claims = ["rounds(trace) <= 0.9 x rounds(plain)"]
[settings]
synth = { tasks = 8, held_out = 6 }
learner = { steps = 3, groups_per_step = 2, group_size = 4, checkpoint_every = 1, deterministic = true }
up = { distill = false }
[arms.plain]
about = "accuracy only"
settings = { reward_service = { trace = { enabled = false } } }
[arms.trace]
about = "TRACE"
"#;

/// Starts the study of a folder.
fn start(folder: &Path) -> Child {
    std::fs::create_dir_all(folder).unwrap();
    let (file, out) = (folder.join("s.toml"), folder.join("out"));
    std::fs::write(&file, STUDY).unwrap();
    hypereyes(&["study", &file.display().to_string(), "--out", &out.display().to_string(), "--json"]).spawn().unwrap()
}

fn finish(study: Child) -> Value {
    let output = study.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What does not depend on when and where it ran.
fn without_times(folder: &Path) -> Vec<Value> {
    let mut lines = lines(&folder.join("s.jsonl"));
    for line in &mut lines {
        line["wall_seconds"] = Value::Null;
    }
    lines
}

#[test]
fn a_study_that_is_killed_at_any_moment_ends_with_the_same_lines() {
    let _machine = Machine::alone();
    let scratch = tempfile::tempdir().unwrap();
    let plain = scratch.path().join("plain");
    let whole = finish(start(&plain));
    assert_eq!((&whole["arms"]["trace"]["seeds"], whole["missing"].as_array().unwrap().len()), (&json!(1), 0));
    assert_eq!(whole["claims"][0]["verdict"], "undecided", "one seed decides nothing");
    assert!(std::fs::read_to_string(plain.join("out/report.html")).unwrap().contains("2 of 2 runs"));

    let cut = scratch.path().join("cut");
    let metrics = |arm: &str| cut.join(format!("out/runs/{arm}-1/learner/metrics.jsonl"));
    // In the middle of the first arm's training, and of the second's.
    for arm in ["plain", "trace"] {
        let mut study = start(&cut);
        wait_for(&format!("a step of {arm}"), &mut study, || (!lines(&metrics(arm)).is_empty()).then_some(()));
        study.kill().unwrap();
        study.wait().unwrap();
        // What it started ends with it; a run is held as long as its program lives.
        std::thread::sleep(Duration::from_secs(1));
    }
    let after = finish(start(&cut));
    assert_eq!(without_times(&cut), without_times(&plain));
    assert_eq!(after["arms"]["trace"]["intervals"], whole["arms"]["trace"]["intervals"]);

    // On a fresh clone: the lines alone, and nothing is run.
    let fresh = scratch.path().join("fresh");
    std::fs::create_dir(&fresh).unwrap();
    std::fs::copy(plain.join("s.jsonl"), fresh.join("s.jsonl")).unwrap();
    let told = finish(start(&fresh));
    assert_eq!((&told["arms"], &told["claims"]), (&whole["arms"], &whole["claims"]));
    assert!(!fresh.join("out/runs/plain-1").exists());
}

#[test]
fn what_is_wrong_with_an_arm_is_said_before_the_first_one_runs() {
    let scratch = tempfile::tempdir().unwrap();
    let study = |text: &str, more: &[&str]| {
        let (file, out) = (scratch.path().join("s.toml"), scratch.path().join("out"));
        std::fs::write(&file, text).unwrap();
        let (file, out) = (file.display().to_string(), out.display().to_string());
        let output = run(&[&["study", &file, "--out", &out], more].concat());
        assert!(!Path::new(&out).exists(), "nothing is made");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (from, to, says) in [
        ("about = \"TRACE\"", "about = \"TRACE\"\nsettings = { learner = { stepz = 4 } }", "arms.trace: "),
        ("about = \"TRACE\"", "about = \"TRACE\"\nsettings = { up = { actors = 0 } }", "arms.trace: up.actors"),
        ("about = \"TRACE\"", "about = \"TRACE\"\nsettings = { world = \"/nowhere\" }", "arms.trace: no world pack"),
        ("base = \"plain\"", "base = \"none\"", "base is \"none\""),
        ("rounds(plain)\"", "rounds(other)\"", "\"other\" is none of arms"),
    ] {
        assert!(STUDY.contains(from), "{from}");
        let (code, said) = study(&STUDY.replacen(from, to, 1), &[]);
        assert!(code == Some(2) && said.contains(says), "{says}: {said}");
    }
    let (code, said) = study(STUDY, &["--set", "learner.steps=9"]);
    assert!(code == Some(2) && said.contains("put --config and --set into its settings"), "{said}");
    let (code, said) = study(STUDY, &["--arm", "other"]);
    assert!(code == Some(2) && said.contains("--arm other is none of"), "{said}");
    let (code, _) = study(STUDY, &["--dry-run"]);
    assert_eq!(code, Some(0));
}
