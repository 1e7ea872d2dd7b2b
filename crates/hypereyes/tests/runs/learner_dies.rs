//! The learner killed in the middle of whole runs: a deterministic run ends with the same bits as if nothing had happened,
//! and a job of several ranks goes on without a human. Every process here is the real binary.

use crate::Machine;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(600);

/// How often the run is killed and compared, and its steps. The long version, of runs of a minute:
/// `HYPEREYES_KILLS=20 HYPEREYES_STEPS=80 cargo test --release -p hypereyes --test runs learner_dies`. `HYPEREYES_PROGRAM` names another
/// binary than the one just built.
fn scale() -> (u64, u64) {
    let number = |name, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    (number("HYPEREYES_KILLS", 2), number("HYPEREYES_STEPS", 8))
}

fn up(folder: &Path, sets: &[&str]) -> Child {
    let common = [
        "synth.tasks=10",
        "synth.held_out=4",
        "learner.steps=8",
        "learner.groups_per_step=3",
        "learner.group_size=4",
        "learner.lease_s=5",
        "learner.checkpoint_every=2",
    ];
    let run_dir = format!("run_dir={}", folder.display());
    let sets = common.iter().chain(sets).chain([&run_dir.as_str()]).flat_map(|set| ["--set", set]).collect::<Vec<_>>();
    Command::new(std::env::var("HYPEREYES_PROGRAM").unwrap_or_else(|_| env!("CARGO_BIN_EXE_hypereyes").into()))
        .args(["up", "--json"])
        .args(sets)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn finish(up: Child, folder: &Path) -> Value {
    let output = up.wait_with_output().unwrap();
    let log = || std::fs::read_to_string(folder.join("logs/learner.log")).unwrap_or_default();
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), log());
    serde_json::from_slice(&std::fs::read(folder.join("result.json")).unwrap()).unwrap()
}

fn policy(folder: &Path) -> String {
    let file: PathBuf = folder.join("learner/policy/model.safetensors");
    blake3::hash(&std::fs::read(file).unwrap()).to_hex().to_string()
}

/// The process of a service, found by its settings file.
fn pid_of(folder: &Path, service: &str) -> Option<u32> {
    let settings = folder.join("services").join(format!("{service}.toml"));
    let found = Command::new("pgrep").args(["-f", &format!("service learner --leash --config {}", settings.display())]).output().unwrap();
    String::from_utf8_lossy(&found.stdout).lines().next()?.parse().ok()
}

fn wait_for<T>(what: &str, up: &mut Child, mut find: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(up.try_wait().unwrap().is_none(), "the run ended before {what}");
        assert!(began.elapsed() < DEADLINE, "no {what} in time");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn kill_9(pid: u32) {
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
}

#[test]
fn a_deterministic_run_ends_with_the_same_bits_however_often_the_learner_is_killed() {
    let _machine = Machine::alone();
    let scratch = tempfile::tempdir().unwrap();
    let (kills, steps) = scale();
    let steps = format!("learner.steps={steps}");
    let sets = ["learner.deterministic=true", steps.as_str()];
    let plain = scratch.path().join("plain");
    finish(up(&plain, &sets), &plain);
    let expected = policy(&plain);
    // How long training took, to spread the kills over it.
    let seconds = |folder: &Path| -> f64 {
        let lines = std::fs::read_to_string(folder.join("learner/metrics.jsonl")).unwrap();
        serde_json::from_str::<Value>(lines.lines().last().unwrap()).unwrap()["seconds"].as_f64().unwrap()
    };
    let whole = seconds(&plain);
    for number in 0..kills {
        let folder = scratch.path().join(format!("killed-{number}"));
        let mut run = up(&folder, &sets);
        let pid = wait_for("learner", &mut run, || pid_of(&folder, "learner"));
        // Golden-ratio steps: spread evenly over the run, from before the first step to after the last.
        let share = (0.17 + number as f64 * 0.618_034).fract();
        std::thread::sleep(Duration::from_secs_f64(share * (whole + 0.5)));
        // It may have ended before its share of a run that went faster than the one that was measured.
        let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        let result = finish(run, &folder);
        println!("killed at {:.0} % of {whole:.1} s: {}", share * 100.0, result["details"]["restarts"]);
        assert_eq!(policy(&folder), expected, "killed at {:.0} % of the run", share * 100.0);
    }
}

#[test]
fn ranks_that_lose_one_of_them_meet_again_and_finish() {
    let _machine = Machine::alone();
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("run");
    let mut run = up(&folder, &["up.ranks=2", "learner.ranks.timeout_s=8", "learner.steps=12"]);
    let metrics = folder.join("learner/metrics.jsonl");
    let steps = |path: &Path| std::fs::read_to_string(path).unwrap_or_default().lines().count();
    wait_for("step 2", &mut run, || (steps(&metrics) >= 2).then_some(()));
    let rank = wait_for("rank 1", &mut run, || pid_of(&folder, "rank-1"));
    kill_9(rank);
    let result = finish(run, &folder);
    let restarts = &result["details"]["restarts"];
    assert!(restarts["rank-1"].as_u64() >= Some(1) && restarts["learner"].as_u64() >= Some(1), "{restarts}");
    let said = std::fs::read_to_string(folder.join("logs/learner.log")).unwrap();
    assert!(said.contains("rank 1 "), "rank 0 does not name who was lost: {said}");
}
