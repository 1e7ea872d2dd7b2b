//! Whole runs that search elsewhere: through a server of their world, recorded and replayed, and with one cache and one budget for all
//! processes. Every process here is the real binary; a deterministic run is told from another by the bits of its policy.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::Machine;
use crate::support::{hypereyes, run, signal};

const KEY: &str = "PLANTED-run-k3y";

/// A server; a test that fails leaves none.
struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server of the embedded world, and where it is.
fn served() -> (Served, String) {
    let mut server = Served(hypereyes(&["index", "serve", "--world", "--listen", "127.0.0.1:0", "--json"]).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(server.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let url = serde_json::from_str::<Value>(&line).unwrap()["url"].as_str().unwrap().to_owned();
    (server, url)
}

/// A short run of two actors whose end is a function of its settings.
fn up(folder: &Path, sets: &[String]) -> Output {
    let common = [
        "synth.tasks=4",
        "synth.held_out=3",
        "learner.steps=2",
        "learner.groups_per_step=2",
        "learner.group_size=3",
        "learner.deterministic=true",
        "up.distill=false",
    ];
    let run_dir = format!("run_dir={}", folder.display());
    let sets = common.iter().copied().chain([run_dir.as_str()]).chain(sets.iter().map(String::as_str)).flat_map(|set| ["--set", set]);
    Command::new(env!("CARGO_BIN_EXE_hypereyes"))
        .args(["up", "--json"])
        .args(sets)
        .env("SERPAPI_API_KEY", KEY)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// The bits of the trained policy.
fn finished(folder: &Path, output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    policy(folder)
}

fn policy(folder: &Path) -> String {
    blake3::hash(&std::fs::read(folder.join("learner/policy/model.safetensors")).unwrap()).to_hex().to_string()
}

/// What was found in the trajectories of a run, in an order of its own: who found it, and when, is another matter.
fn trajectories(folder: &Path) -> Vec<String> {
    let mut all: Vec<String> = std::fs::read_to_string(folder.join("learner/trajectories.jsonl")).unwrap().lines().map(rounds).collect();
    all.sort();
    all
}

/// The rounds of one line, as they are told.
fn rounds(line: &str) -> String {
    let told: Value = serde_json::from_str(line).unwrap();
    serde_json::json!([told["step"], told["task"], told["group"]["scored"]["group"]["rollouts"]]).to_string()
}

fn both(backend: &str, url: &str) -> Vec<String> {
    ["text", "image"]
        .into_iter()
        .flat_map(|side| [format!("search.{side}.backend={backend}"), format!("search.{side}.url={url}")])
        .collect()
}

#[test]
fn a_run_through_a_server_of_its_world_recorded_and_replayed_ends_with_the_same_bits() {
    let _machine = Machine::alone();
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    let (mut server, url) = served();
    let done = |name: &str, sets: &[String]| finished(&at(name), &up(&at(name), sets));

    let plain = done("plain", &[]);
    assert_eq!(done("served", &both("http", &url)), plain);
    let recorded = [both("http", &url), vec![format!("search.cache.path={}", at("record.redb").display())]].concat();
    assert_eq!(done("recorded", &[recorded.clone(), vec!["search.mode=record".into()]].concat()), plain);
    // One layer has a path of its own, where Search-R1's shape knows of none; pictures are searched in process. Held-out tasks have
    // another layer, so that a run has two, and an evaluation one.
    let layer = done("layer", &["synth.layers={first=5,count=1}".to_owned()]);
    assert_ne!(layer, plain);
    let tasks = at("layer").join("tasks/train").display().to_string();
    let rollouts = |name: &str, sets: &[&str]| {
        let file = at(name).display().to_string();
        let sets = sets.iter().flat_map(|set| ["--set", *set]);
        let evaluated = run(&["eval", "--tasks", &tasks, "--rollouts", &file].into_iter().chain(sets).collect::<Vec<_>>());
        assert!(evaluated.status.success(), "{}", String::from_utf8_lossy(&evaluated.stderr));
        std::fs::read_to_string(file).unwrap()
    };
    let here = rollouts("here.jsonl", &[]);
    assert!(here.lines().count() == 4 && here.contains("text_search"), "{here}");
    let there = format!("search.text.url={url}/layers/5");
    assert_eq!(rollouts("there.jsonl", &["search.text.backend=retriever", &there]), here);
    let by_mcp = format!("{there}/mcp");
    assert_eq!(rollouts("by_mcp.jsonl", &["search.text.backend=mcp", &by_mcp]), here);
    signal("TERM", server.0.id().into());
    assert!(server.0.wait().unwrap().success());

    // Nobody listens any more.
    let replayed = [recorded, vec!["search.mode=replay".into()]].concat();
    assert_eq!(done("replayed", &replayed), plain);
    assert_eq!(trajectories(&at("replayed")), trajectories(&at("recorded")));
    let sets: Vec<&str> = replayed.iter().flat_map(|set| ["--set", set.as_str()]).collect();
    let miss = run(&[&["search", "never asked", "--json"], &sets[..]].concat());
    let told: Value = serde_json::from_slice(&miss.stdout).unwrap();
    assert!(told["failure"] == "miss" && told["message"].as_str().unwrap().contains("never asked"), "{told}");
}

#[test]
fn one_budget_stops_a_run_one_cache_serves_two_and_the_key_stands_nowhere() {
    let _machine = Machine::alone();
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    let (_server, url) = served();
    let cache = format!("search.cache.path={}", at("search.redb").display());
    let sets = |more: &[&str]| {
        let own = [
            "search.text.api_key_env=SERPAPI_API_KEY".to_owned(),
            "search.text.usd_per_request=0.01".into(),
            cache.clone(),
            format!("actor.process.telemetry.otlp_file={}", at("spans.jsonl").display()),
            "actor.process.telemetry.filter=debug".into(),
        ];
        [both("http", &url), own.into_iter().chain(more.iter().map(|set| (*set).to_owned())).collect()].concat()
    };
    let spent = || {
        let stats = run(&["search", "cache", "stats", "--json", "--set", &cache]);
        serde_json::from_slice::<Value>(&stats.stdout).unwrap()["spent"]["requests"].as_u64().unwrap()
    };
    let first = up(&at("first"), &sets(&["search.budget.requests=3"]));
    let said = String::from_utf8_lossy(&first.stderr).into_owned();
    assert_eq!(first.status.code(), Some(1), "{said}");
    let line = said.lines().last().unwrap();
    assert!(line.contains("search.budget.requests is 3 and used up; raise it") && line.contains("hypereyes up --resume"), "{said}");
    assert_eq!(spent(), 3, "not one more");

    let run_dir = format!("run_dir={}", at("first").display());
    let resumed = hypereyes(&["up", "--json", "--resume", "--set", &run_dir, "--set", "search.budget.requests=100000"])
        .env("SERPAPI_API_KEY", KEY)
        .output()
        .unwrap();
    let policy = finished(&at("first"), &resumed);
    let once = spent();
    assert!(once > 3);
    let second = up(&at("second"), &sets(&["search.budget.requests=100000"]));
    assert_eq!(finished(&at("second"), &second), policy);
    assert_eq!(spent(), once, "the second run spends nothing");

    let export = at("shared.jsonl");
    assert!(run(&["search", "cache", "export", export.to_str().unwrap(), "--set", &cache]).status.success());
    let (mut files, mut bytes) = (0, 0);
    for path in below(scratch.path()) {
        let content = std::fs::read(&path).unwrap();
        assert!(!content.windows(KEY.len()).any(|some| some == KEY.as_bytes()), "{}", path.display());
        (files, bytes) = (files + 1, bytes + content.len());
    }
    println!("{once} requests; {files} files, {bytes} bytes");
    for wanted in ["first/report.html", "first/logs/search.log", "first/logs/actor-0.log", "first/rooms/search.toml", "spans.jsonl"] {
        assert!(at(wanted).exists(), "{wanted}");
    }
    for output in [&first, &resumed, &second] {
        assert!(!String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).contains(KEY));
    }
}

fn below(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { below(&path) } else { vec![path] }).collect()
}
