//! Whole runs that are measured while they train: the curve is whole, the best version is kept and is what it is said to be, and training
//! ends with the same bits as if nobody had looked. Every process here is the real binary.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Output};

use hypereyes_policy::checkpoint;
use serde_json::Value;

use crate::Machine;
use crate::support::{hypereyes, kill_9, lines, run, wait_for};

/// A run of two actors whose end is a function of its settings.
const RUN: [&str; 9] = [
    "learner.steps=12",
    "learner.groups_per_step=3",
    "learner.group_size=4",
    "learner.deterministic=true",
    "learner.checkpoint_every=4",
    "synth.tasks=12",
    "synth.held_out=8",
    "up.grace_s=3",
    "actor.grace_ms=1000",
];

fn up(folder: &Path, sets: &[&str]) -> Child {
    let run_dir = format!("run_dir={}", folder.display());
    let sets: Vec<&str> = RUN.iter().chain(sets).chain([&run_dir.as_str()]).flat_map(|set| ["--set", set]).collect();
    hypereyes(&[&["up", "--json"], &sets[..]].concat()).spawn().unwrap()
}

fn finish(child: Child, folder: &Path) -> Value {
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    let result = json(&folder.join("result.json"));
    assert_eq!(result["best"], summary["best"]);
    result
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))).unwrap()
}

fn policy(folder: &Path) -> String {
    checkpoint::digest(&folder.join("learner/policy")).unwrap()
}

/// The curve, by step.
fn curve(folder: &Path) -> BTreeMap<u64, Value> {
    let lines = lines(&folder.join("evaluations.jsonl"));
    let by_step: BTreeMap<u64, Value> = lines.iter().map(|line| (line["step"].as_u64().unwrap(), line.clone())).collect();
    assert_eq!(by_step.len(), lines.len(), "no step is measured twice: {lines:?}");
    by_step
}

fn measured(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_run_that_is_measured_on_the_way_has_its_curve_its_best_and_the_same_bits() {
    let _machine = Machine::alone();
    let scratch = tempfile::tempdir().unwrap();
    let (plain, watched) = (scratch.path().join("plain"), scratch.path().join("watched"));
    let unmeasured = finish(up(&plain, &[]), &plain);
    assert!(unmeasured["best"].is_null() && !plain.join("evaluations.jsonl").exists() && !plain.join("best").exists());

    let mut child = up(&watched, &["eval.every=2"]);
    wait_for("a measurement on the way", &mut child, || (curve(&watched).len() > 1).then_some(()));
    kill_9("evaluator", &watched, &mut child);
    let result = finish(child, &watched);
    assert_eq!(policy(&watched), policy(&plain), "training is the same, whoever looks");
    assert_eq!(result["details"]["restarts"]["evaluator"], 1);
    assert_eq!(result["after"], unmeasured["after"]);

    // Both ends are those of the table, and every step between that was due was measured, stood in for, or overtaken.
    let curve = curve(&watched);
    let (first, last) = (&curve[&0], &curve[&12]);
    for (line, name) in [(first, "before"), (last, "after")] {
        for key in ["tasks", "accuracy", "rounds", "searches", "kilotokens", "cas"] {
            assert_eq!(line[key], result[name][key], "{name}: {key}");
        }
    }
    let between: Vec<(u64, u64)> = curve.iter().map(|(step, line)| (*step, line["due"].as_u64().unwrap())).collect();
    println!("measured (step, due): {between:?}");
    assert!(between.len() >= 4 && between.iter().all(|(step, due)| due % 2 == 0 && due <= step && *step < due + 2), "{between:?}");
    assert_eq!(last["digest"].as_str(), json(&watched.join("learner/policy.json"))["digest"].as_str());

    // The best is the best of the curve, its policy is what was measured, and measured again it is as good.
    let key = |line: &Value| [line["accuracy"].as_f64().unwrap(), line["cas"].as_f64().unwrap()];
    let best = curve.values().reduce(|best, line| if key(line) > key(best) { line } else { best }).unwrap();
    assert_eq!(&json(&watched.join("best.json")), best);
    for key in ["step", "version", "digest", "accuracy", "rounds", "cas", "accuracy_interval"] {
        assert_eq!(result["best"][key], best[key], "{key}");
    }
    assert_eq!(checkpoint::digest(&watched.join("best")).unwrap(), best["digest"].as_str().unwrap());
    let [model, tasks] = [watched.join("best"), watched.join("tasks/held_out")].map(|path| path.display().to_string());
    let again = measured(&run(&["eval", "--json", "--model", &model, "--tasks", &tasks]));
    for key in ["accuracy", "rounds", "searches", "kilotokens", "cas"] {
        assert_eq!(again[key], best[key], "{key}");
    }

    let page = std::fs::read_to_string(watched.join("report.html")).unwrap();
    let step = best["step"].as_u64().unwrap();
    assert!(page.contains("Held-out accuracy, %") && page.contains("class=\"band s0\"") && page.contains(&format!("step {step} of ")));
    let status = measured(&run(&["status", &watched.display().to_string(), "--json"]));
    assert_eq!((&status["evaluation"], &status["best"]), (last, best));
}

#[test]
fn a_curve_on_fewer_tasks_has_its_ends_on_the_same() {
    let _machine = Machine::alone();
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("run");
    let result =
        finish(up(&folder, &["learner.steps=4", "eval.every=1", "eval.every_tasks=3", "eval.samples=2", "eval.best=cas"]), &folder);
    let curve = curve(&folder);
    assert!(curve.values().all(|line| (line["tasks"].as_u64(), line["rollouts"].as_u64()) == (Some(3), Some(6))), "{curve:?}");
    assert_eq!((result["before"]["tasks"].as_u64(), curve.contains_key(&0), curve.contains_key(&4)), (Some(8), true, true));
    let best = curve.values().map(|line| line["cas"].as_f64().unwrap()).fold(f64::NEG_INFINITY, f64::max);
    assert_eq!(result["best"]["cas"].as_f64(), Some(best));
    // A start policy that is measured again on those tasks is what the curve begins with.
    let tasks = std::fs::read_to_string(folder.join("tasks/held_out/tasks.jsonl")).unwrap();
    let fewer = scratch.path().join("fewer");
    assert!(std::process::Command::new("cp").arg("-r").arg(folder.join("tasks/held_out")).arg(&fewer).status().unwrap().success());
    std::fs::write(fewer.join("tasks.jsonl"), tasks.lines().take(3).map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    let [model, fewer] = [folder.join("models/policy"), fewer].map(|path| path.display().to_string());
    let again = measured(&run(&["eval", "--json", "--model", &model, "--tasks", &fewer, "--set", "eval.samples=2"]));
    for key in ["accuracy", "rounds", "searches", "kilotokens", "cas"] {
        assert_eq!(again[key], curve[&0][key], "{key}");
    }
}
