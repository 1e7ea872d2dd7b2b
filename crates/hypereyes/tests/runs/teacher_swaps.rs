//! Teachers of a run that is going on: another one is loaded, looked at and promoted without a pause, and the run goes on while none
//! answers. Every command here is the real binary.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::Machine;
use crate::support::{hypereyes, lines, pid, run, signal, wait_for};
use serde_json::Value;

/// Longest that the teacher is held still, and what is waited for beside it.
const STILL: Duration = Duration::from_secs(120);

/// Runs a command that must succeed and print one JSON value.
fn told(arguments: &[&str]) -> Value {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
}

#[test]
fn a_teacher_is_swapped_in_mid_run_and_its_absence_is_survived() {
    let _machine = Machine::alone();
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("run");
    let run_dir = format!("run_dir={}", folder.display());
    let sets = [
        "synth.tasks=12",
        "synth.held_out=8",
        "learner.steps=4000",
        "learner.time_limit_s=600",
        "learner.groups_per_step=2",
        "learner.group_size=4",
        "learner.checkpoint_every=1000",
        "actor.teacher_ms=2000",
        "actor.teacher_breaker.pause_ms=1000",
    ];
    let mut arguments = vec!["up", "--set", &run_dir];
    arguments.extend(sets.iter().flat_map(|set| ["--set", *set]));
    let mut up = hypereyes(&arguments).spawn().unwrap();
    let metrics = folder.join("learner/metrics.jsonl");
    let versions = || -> BTreeSet<String> {
        let steps = lines(&metrics);
        steps.iter().filter_map(|step| step["teachers"].as_object()).flat_map(|teachers| teachers.keys().cloned()).collect()
    };
    wait_for("the first teacher's word", &mut up, || versions().contains("teacher#1").then_some(()));

    // The policy itself is a teacher of its own vocabulary, and another one than the shipped.
    let green = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/policy");
    let teacher = |arguments: &[&str]| told(&[&["teacher", "--json", "--set", &run_dir], arguments].concat());
    let loaded = teacher(&["load", "green", green.to_str().unwrap()]);
    assert_eq!((loaded["state"].as_str(), loaded["card"]["sighted"].as_bool()), (Some("ready"), Some(true)), "{loaded}");
    let checked = teacher(&["check", "green", "--tasks", "4", "--max-kl", "5"]);
    assert!(checked[0]["reverse_kl"].as_f64().is_some_and(|kl| kl.abs() < 1e-4), "a policy is no distance from itself: {checked}");
    assert!(checked[1]["reverse_kl"].as_f64().is_some_and(|kl| kl > 1e-3), "the shipped teacher is another: {checked}");
    let far = run(&["teacher", "--set", &run_dir, "check", "teacher", "--tasks", "4", "--max-kl=-1"]);
    assert_eq!(far.status.code(), Some(1), "a limit that is passed fails the command");
    let before = lines(&metrics).len();
    let promoted = teacher(&["promote", "green"]);
    assert_eq!((promoted["epoch"].as_u64(), promoted["previous"].as_str()), (Some(2), Some("teacher")));
    wait_for("the second teacher's word", &mut up, || versions().contains("green#2").then_some(()));
    assert!(lines(&metrics).len() > before, "steps went on");
    let retired = teacher(&["retire", "teacher"]);
    assert!(["retiring", "retired"].contains(&retired["state"].as_str().unwrap()));
    let refused = run(&["teacher", "--set", &run_dir, "promote", "blue"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no model blue"));

    // It is held still: groups go on without its word, and say so.
    let process = pid("teacher", &folder).unwrap();
    signal("STOP", process);
    let began = Instant::now();
    let gap = wait_for("steps without a teacher", &mut up, || {
        assert!(began.elapsed() < STILL, "no step without a teacher");
        let steps = lines(&metrics);
        let untaught = steps.iter().filter(|step| step["untaught"].as_f64() > Some(0.0)).count();
        (untaught >= 2).then_some(steps.len())
    });
    signal("CONT", process);
    wait_for("the teacher's word again", &mut up, || {
        let again = |step: &Value| step["teachers"].get("green#2").is_some();
        lines(&metrics)[gap..].iter().any(again).then_some(())
    });
    // A store that never answers is waited for as long as was said, and no longer.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let source = format!("http://{}/model", silent.local_addr().unwrap());
    let late = run(&["teacher", "--set", &run_dir, "load", "late", &source, "--wait", "1"]);
    assert_eq!(late.status.code(), Some(1));
    let said = String::from_utf8_lossy(&late.stderr);
    assert!(said.contains("still being loaded after 1 s") && said.contains("hypereyes teacher list"), "{said}");
    assert!(run(&["teacher", "--set", &run_dir, "load", "later", &source, "--wait", "0"]).status.success(), "it is not waited for");
    signal("TERM", u64::from(up.id()));
    let output = up.wait_with_output().unwrap();
    assert!(!output.status.success(), "it was stopped in mid-run");
    let steps = lines(&metrics);
    for step in &steps {
        let teachers = step["teachers"].as_object().unwrap();
        assert!(teachers.values().all(|means| means["reverse_kl"].is_number() && means["top_overlap"].is_number()), "{step}");
    }
}
