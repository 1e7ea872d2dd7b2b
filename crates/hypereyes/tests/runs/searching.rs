//! Whole runs that search elsewhere: through a server of their world, recorded and replayed, and with one cache and one budget for all
//! processes. Every process here is the real binary; a deterministic run is told from another by the bits of its policy.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};

use crate::Machine;
use crate::support::service::{Service, serpapi};
use crate::support::{hypereyes, lines, run, signal};

const KEY: &str = "PLANTED-run-k3y";

/// A server; a test that fails leaves none.
struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A short run of two actors whose end is a function of its settings.
const SHORT: [&str; 7] = [
    "learner.steps=2",
    "learner.groups_per_step=2",
    "learner.group_size=3",
    "learner.deterministic=true",
    "up.distill=false",
    "up.grace_s=3",
    "actor.grace_ms=1000",
];
const TASKS: [&str; 2] = ["synth.tasks=4", "synth.held_out=3"];

fn started(folder: &Path, words: &[&str], sets: &[String]) -> Output {
    let run_dir = format!("run_dir={}", folder.display());
    let sets = SHORT.into_iter().chain([run_dir.as_str()]).chain(sets.iter().map(String::as_str)).flat_map(|set| ["--set", set]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_hypereyes"));
    command.args(["up", "--json"]).args(words).args(sets).env("SERPAPI_API_KEY", KEY).stdin(Stdio::null());
    command.output().unwrap()
}

/// A run from its tasks on.
fn up(folder: &Path, sets: &[String]) -> Output {
    started(folder, &[], &[TASKS.map(str::to_owned).to_vec(), sets.to_vec()].concat())
}

/// The bits of the trained policy.
fn finished(folder: &Path, output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    policy(folder)
}

fn policy(folder: &Path) -> String {
    blake3::hash(&std::fs::read(folder.join("learner/policy/model.safetensors")).unwrap()).to_hex().to_string()
}

/// The trajectories of a run, in an order of their own: who rolled them out, and when, is another matter.
fn trajectories(folder: &Path) -> Vec<String> {
    let told = |line: &Value| json!([line["step"], line["task"], line["group"]["scored"]["group"]["rollouts"]]).to_string();
    let mut all: Vec<String> = lines(&folder.join("learner/trajectories.jsonl")).iter().map(told).collect();
    all.sort();
    all
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
    let mut server = Served(hypereyes(&["index", "serve", "--world", "--listen", "127.0.0.1:0", "--json"]).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(server.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let url = serde_json::from_str::<Value>(&line).unwrap()["url"].as_str().unwrap().to_owned();
    let done = |name: &str, sets: &[String]| finished(&at(name), &up(&at(name), sets));

    let plain = done("plain", &[]);
    assert_eq!(done("served", &both("http", &url)), plain);
    let recorded = [both("http", &url), vec![format!("search.cache.path={}", at("record.redb").display())]].concat();
    assert_eq!(done("recorded", &[recorded.clone(), vec!["search.mode=record".into()]].concat()), plain);
    // One layer has a path of its own, where Search-R1's shape and MCP know of none; pictures are searched in process.
    // Tasks are made in process, whoever is searched.
    let of_one = |name: &str, sets: &[String]| done(name, &[&["synth.layers={first=5,count=1}".to_owned()], sets].concat());
    let of_layer = of_one("layer", &[]);
    let retriever = ["search.text.backend=retriever".to_owned(), format!("search.text.url={url}/layers/5")];
    assert_eq!(of_one("retrieved", &retriever), of_layer);
    let by_mcp = ["search.text.backend=mcp".to_owned(), format!("search.text.url={url}/layers/5/mcp")];
    assert_eq!(of_one("by_mcp", &by_mcp), of_layer);
    assert_ne!(of_layer, plain);
    signal("TERM", server.0.id().into());
    assert!(server.0.wait().unwrap().success());

    // Nobody listens any more.
    let replayed = [recorded, vec!["search.mode=replay".into()]].concat();
    assert_eq!(done("replayed", &replayed), plain);
    let (was, again) = (trajectories(&at("recorded")), trajectories(&at("replayed")));
    assert!(was.len() > 1 && was == again, "{} and {} groups", was.len(), again.len());
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
    // It says the key back where it refuses, and now and then it does.
    let service = Service::start(|first| match first.len() % 5 {
        0 => (400, json!({"error": format!("not so: {first}")})),
        _ => serpapi(first),
    });
    let sets = |more: &[&str]| {
        let own = [
            "search.text.backend=serpapi".to_owned(),
            format!("search.text.url={}", service.url),
            "search.text.usd_per_request=0.01".into(),
            "search.text.per_second=200".into(),
            "rollout.env.text_min_relevance=0".into(),
            format!("search.cache.path={}", at("search.redb").display()),
            format!("actor.process.telemetry.otlp_file={}", at("spans.jsonl").display()),
            "actor.process.telemetry.filter=debug".into(),
        ];
        own.into_iter().chain(more.iter().map(|set| (*set).to_owned())).collect::<Vec<_>>()
    };
    // While the start policy is measured, and in training.
    let first = up(&at("first"), &sets(&["search.budget.requests=3"]));
    stopped(&first, 3, &service);
    let again = started(&at("first"), &["--resume"], &["search.budget.requests=10".to_owned()]);
    stopped(&again, 10, &service);
    assert!(at("first/before.json").exists());
    let resumed = started(&at("first"), &["--resume"], &["search.budget.requests=100000".to_owned()]);
    finished(&at("first"), &resumed);
    let asked = service.asked();
    assert!(asked.len() > 3 && asked.iter().all(|first| first.contains(KEY)), "the key goes in the address: {asked:?}");
    let stats = run(&["search", "cache", "stats", "--json", "--set", &format!("search.cache.path={}", at("search.redb").display())]);
    let spent: Value = serde_json::from_slice(&stats.stdout).unwrap();
    assert_eq!(spent["spent"]["requests"].as_u64(), Some(asked.len() as u64));

    // What was refused is not kept: only that is asked again.
    let second = up(&at("second"), &sets(&["search.budget.requests=100000"]));
    finished(&at("second"), &second);
    let refused = |first: &String| first.len().is_multiple_of(5);
    assert_eq!(service.asked()[asked.len()..].iter().filter(|first| !refused(first)).count(), 0, "the second run spends nothing");

    let export = at("shared.jsonl");
    let cache = format!("search.cache.path={}", at("search.redb").display());
    assert!(run(&["search", "cache", "export", export.to_str().unwrap(), "--set", &cache]).status.success());
    let (mut files, mut bytes) = (0, 0);
    for path in below(scratch.path()) {
        let content = std::fs::read(&path).unwrap();
        assert!(!content.windows(KEY.len()).any(|some| some == KEY.as_bytes()), "{}", path.display());
        (files, bytes) = (files + 1, bytes + content.len());
    }
    println!("{} requests; {files} files, {bytes} bytes", service.asked().len());
    for wanted in ["first/report.html", "first/logs/search.log", "first/logs/actor-0.log", "first/services/search.toml", "spans.jsonl"] {
        assert!(at(wanted).exists(), "{wanted}");
    }
    for output in [&first, &again, &resumed, &second] {
        assert!(!String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).contains(KEY));
    }
}

/// A run that its budget of so many requests has stopped, not one more, with a line that says how it goes on.
fn stopped(output: &Output, budget: usize, service: &Service) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let line = said.lines().last().unwrap();
    let why = format!("search.budget.requests is {budget} and used up; raise it");
    assert!(line.contains(&why) && line.contains("hypereyes up --resume"), "{said}");
    assert_eq!(service.asked().len(), budget);
}

fn below(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { below(&path) } else { vec![path] }).collect()
}
