//! `eval --out` and `compare` as a person uses them: an evaluation that is killed and goes on, folders of other settings, two evaluations
//! compared, several in one table. What was asked is what the server says that it was asked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::chat_endpoint::server::{Asked, Reply, Server};
use crate::chat_endpoint::{knowing, tasks, told};
use crate::support::{self, lines};

const TASKS: usize = 12;
const LARGE: [&str; 8] = [
    "--set",
    "rollout.max_context_tokens=38000",
    "--set",
    "rollout.max_turn_tokens=1524",
    "--set",
    "rollout.max_closed_book_tokens=1524",
    "--set",
    "eval.concurrency=2",
];

async fn run(arguments: &[&str]) -> Output {
    let mut command = support::hypereyes(arguments);
    tokio::task::spawn_blocking(move || command.output().expect("it starts")).await.expect("it ends")
}

#[track_caller]
fn json_of(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

#[track_caller]
fn refused(output: &Output, mentions: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    let line = said.lines().last().unwrap_or_default();
    for word in mentions {
        assert!(line.contains(word), "{line:?} does not mention {word:?}");
    }
}

async fn made(folder: &Path) -> BTreeMap<String, String> {
    let output = run(&["synth", "--held-out", "--out", folder.to_str().expect("plain"), "--set", &format!("synth.held_out={TASKS}")]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    tasks(folder)
}

/// Which rollout a request is of: its question, and whether it is without tools.
fn of(asked: &Asked, questions: &BTreeMap<String, String>) -> Option<(String, bool)> {
    let (told, alone) = (told(asked), asked.body["tools"].is_null());
    questions.keys().find(|question| told.contains(question.as_str())).map(|question| (question.clone(), alone))
}

fn finished(folder: &Path) -> BTreeSet<(String, bool)> {
    let key = |item: Value| (item["question"].as_str().expect("a question").to_owned(), item["closed_book"] == true);
    lines(&folder.join("items.jsonl")).into_iter().map(key).collect()
}

/// Items in an order of their own, without what a clock says.
fn items(folder: &Path) -> Vec<Value> {
    let mut all = lines(&folder.join("items.jsonl"));
    all.iter_mut().for_each(|item| drop(item.as_object_mut().expect("an object").remove("seconds")));
    all.sort_by_key(|item| (item["closed_book"] == true, item["task"].to_string(), item["sample"].as_u64()));
    all
}

/// A report without what a clock says and where it lies.
fn timeless(mut report: Value) -> Value {
    fn forget(value: &mut Value) {
        match value {
            Value::Object(map) => {
                ["seconds", "seconds_interval", "out", "noted"].iter().for_each(|key| drop(map.remove(*key)));
                map.values_mut().for_each(forget);
            }
            Value::Array(all) => all.iter_mut().for_each(forget),
            _ => {}
        }
    }
    forget(&mut report);
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn an_evaluation_that_is_killed_goes_on_and_asks_nothing_twice() {
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| scratch.path().join(name).to_str().expect("plain").to_owned();
    let questions = made(Path::new(&at("set"))).await;
    let knows = knowing(questions.clone());
    let server = Server::start(move |asked| match &asked.body {
        Value::Null => knows(asked),
        _ => Reply::Slow(Duration::from_millis(40), Box::new(knows(asked))),
    })
    .await;
    let command = |out: &str, more: &[&str]| -> Vec<String> {
        let words = ["eval", "--engine", "openai", "--url", &server.url, "--tasks", &at("set"), "--out", out, "--json"];
        [&words[..], &LARGE, more].concat().into_iter().map(str::to_owned).collect()
    };
    let asked = |words: Vec<String>| async move { run(&words.iter().map(String::as_str).collect::<Vec<_>>()).await };
    let whole = json_of(&asked(command(&at("whole"), &["--rollouts", &at("copy.jsonl")])).await);
    assert_eq!((&whole["tasks"], &whole["accuracy"], &whole["closed_book_accuracy"]), (&json!(TASKS), &json!(1.0), &json!(0.0)));

    let out = at("killed");
    let path = Path::new(&out).join("items.jsonl");
    for least in [3, TASKS - 1, TASKS + 4] {
        let (before, mark) = (finished(Path::new(&out)), server.count());
        let words = command(&out, &[]);
        let mut child = support::hypereyes(&words.iter().map(String::as_str).collect::<Vec<_>>());
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        let began = Instant::now();
        while lines(&path).len() < least {
            assert!(child.try_wait().expect("ours").is_none() && began.elapsed() < support::DEADLINE, "it ended before it was killed");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        child.kill().expect("SIGKILL");
        child.wait().expect("ours");
        nothing_twice(&server, mark, &questions, &before);
    }
    // What a crash leaves behind half written.
    let torn = std::fs::read(&path).expect("there");
    std::fs::write(&path, &torn[..torn.len() - 9]).expect("written");
    let (before, mark) = (finished(Path::new(&out)), server.count());
    let last = asked(command(&out, &[])).await;
    assert!(String::from_utf8_lossy(&last.stderr).contains("items.jsonl: the last line was cut short and is dropped"), "it is said");
    nothing_twice(&server, mark, &questions, &before);
    let killed = json_of(&last);
    assert_eq!(timeless(killed.clone()), timeless(whole));
    assert_eq!(items(Path::new(&out)), items(Path::new(&at("whole"))));
    assert_eq!(items(Path::new(&out)).len(), 2 * TASKS, "one line for each rollout");
    let rollouts = |folder: &str| std::fs::read_to_string(Path::new(folder).join("rollouts.jsonl")).expect("there");
    assert_eq!(rollouts(&out), rollouts(&at("whole")));
    assert_eq!(std::fs::read_to_string(at("copy.jsonl")).expect("there"), rollouts(&out), "--rollouts writes the same beside --out");
    for name in ["settings.json", "report.json", "report.md", "report.csv"] {
        assert!(Path::new(&out).join(name).exists(), "{name}");
    }

    // Once it is finished nobody is asked but for the list of models.
    let mark = server.count();
    assert_eq!(timeless(json_of(&asked(command(&out, &[])).await)), timeless(killed));
    assert!(server.asked()[mark..].iter().all(|one| one.body.is_null()));
    refused(&asked(command(&out, &["--set", "eval.seed=3"])).await, &["killed", "seed = 0, and this one has 3", "--out"]);
    refused(&asked(command(&out, &["--set", "rollout.env.text_hits=2"])).await, &["rollout.env.text_hits = 1"]);
    refused(&asked(command(&at("set"), &[])).await, &["is not empty and holds no evaluation"]);
}

fn nothing_twice(server: &Server, mark: usize, questions: &BTreeMap<String, String>, before: &BTreeSet<(String, bool)>) {
    let again: Vec<_> = server.asked()[mark..].iter().filter_map(|one| of(one, questions)).filter(|one| before.contains(one)).collect();
    assert!(again.is_empty(), "asked again: {again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_that_failed_is_asked_again_and_one_without_a_verdict_is_judged_again() {
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| scratch.path().join(name).to_str().expect("plain").to_owned();
    let questions = made(Path::new(&at("set"))).await;
    let sick = questions.keys().next().expect("some").clone();
    let is_well = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (knows, well, of_sick) = (knowing(questions.clone()), is_well.clone(), sick.clone());
    let server = Server::start(move |asked| {
        let fails = !well.load(std::sync::atomic::Ordering::SeqCst) && told(asked).contains(&of_sick);
        if fails { Reply::refuse(400, "this one makes me sick") } else { knows(asked) }
    })
    .await;
    // The judge is another model, which at first answers only what it is asked before anything else.
    let judge_is_there = is_well.clone();
    let judge = Server::start(move |asked| {
        let answers = judge_is_there.load(std::sync::atomic::Ordering::SeqCst) || told(asked).contains("France");
        if answers { Reply::say("CORRECT") } else { Reply::refuse(400, "busy") }
    })
    .await;
    let judged = ["reward_service.judge=model", "reward_service.judge_model.model=j", "reward_service.judge_model.attempts=1"];
    let judge_url = format!("reward_service.judge_model.url={}", judge.url);
    let sets: Vec<&str> = judged.into_iter().chain([judge_url.as_str()]).flat_map(|set| ["--set", set]).collect();
    let (set, out) = (at("set"), at("out"));
    let words =
        [&["eval", "--engine", "openai", "--url", &server.url, "--tasks", &set, "--out", &out, "--json"][..], &LARGE, &sets].concat();
    let first = run(&words).await;
    // Nothing has a verdict: no accuracy of zero, and the folder goes on.
    assert_eq!(first.status.code(), Some(1), "{}", String::from_utf8_lossy(&first.stderr));
    assert_eq!(lines(Path::new(&out).join("items.jsonl").as_path()).len(), 2 * TASKS);
    is_well.store(true, std::sync::atomic::Ordering::SeqCst);
    let mark = server.count();
    let report = json_of(&run(&words).await);
    assert_eq!((&report["rollouts"], &report["invalid"], &report["unjudged"]), (&json!(TASKS), &json!(0), &json!(0)));
    assert_eq!(report["cost"]["asked_again"], 2, "with tools and without");
    let again: BTreeSet<String> =
        server.asked()[mark..].iter().filter_map(|one| of(one, &questions)).map(|(question, _)| question).collect();
    assert_eq!(again, BTreeSet::from([sick]), "the others were judged from what they had answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn evaluations_are_compared_item_by_item_and_stand_in_one_table() {
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| scratch.path().join(name).to_str().expect("plain").to_owned();
    let questions = made(Path::new(&at("set"))).await;
    let half: BTreeMap<String, String> = questions.clone().into_iter().step_by(2).collect();
    let (whole, half) = (Server::start(knowing(questions.clone())).await, Server::start(knowing(half)).await);
    for (name, server) in [("half", &half), ("whole", &whole)] {
        let (set, out) = (at("set"), at(name));
        let words = ["eval", "--engine", "openai", "--url", &server.url, "--tasks", &set, "--out", &out, "--json"];
        json_of(&run(&[&words[..], &LARGE].concat()).await);
    }
    let compared = json_of(&run(&["compare", &at("half"), &at("whole"), "--json"]).await);
    assert_eq!((&compared["items"], &compared["difference"]), (&json!(TASKS), &json!(0.5)));
    assert_eq!((&compared["flipped"]["gained"], &compared["flipped"]["lost"]), (&json!(TASKS / 2), &json!(0)));
    assert_eq!(compared["flipped"]["gained_ids"].as_array().map(Vec::len), Some(TASKS / 2));
    // 2 / 2^6.
    assert_eq!(compared["p"], 0.03125);
    let [low, high] = [0, 1].map(|end| compared["interval"][end].as_f64().expect("a number"));
    assert!(0.0 < low && low < 0.5 && 0.5 < high && high < 1.0, "{compared}");
    assert_eq!((&compared["differences"]["rounds"]["difference"], &compared["warnings"]), (&json!(0.0), &json!([])));
    let shown = run(&["compare", &at("half"), &at("whole")]).await;
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(text.contains("50.0") && text.contains("100.0") && text.contains("6 gained, 0 lost; p = 0.0312 (McNemar, exact)"), "{text}");

    let table = run(&["compare", "--table", &format!("Half={}", at("half")), &format!("Whole={}", at("whole"))]).await;
    let text = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(text.contains("| Half | 50.0 / 1.0 |") && text.contains("| Whole, without tools | 0.0 |"), "{text}");
    let plain = run(&["compare", "--table", "--csv", &format!("Half={}", at("half")), &format!("Whole={}", at("whole"))]).await;
    let text = String::from_utf8_lossy(&plain.stdout).into_owned();
    assert!(text.contains("\nHalf,50.0 / 1.0\n") && text.contains("\n\"Whole, without tools\",0.0\n"), "{text}");
    refused(&run(&["compare", "--csv", &at("half"), &at("whole")]).await, &[]);
    // A line that is being written, or that a kill cut short, is none: what is there is compared.
    let mut torn = std::fs::OpenOptions::new().append(true).open(Path::new(&at("half")).join("items.jsonl")).expect("opens");
    std::io::Write::write_all(&mut torn, b"{\"task\":\"t").expect("written");
    assert_eq!(json_of(&run(&["compare", &at("half"), &at("whole"), "--json"]).await), compared);
    let machine = json_of(&run(&["compare", "--table", &at("half"), "--json"]).await);
    assert_eq!(machine["systems"].as_array().map(Vec::len), Some(2));
    refused(&run(&["compare", &at("half")]).await, &["give two to compare", "--table"]);
    refused(&run(&["compare", &at("half"), &at("set")]).await, &["holds no evaluation"]);

    // Other tasks are another benchmark.
    let (other, out) = (at("other"), at("of_other"));
    let made = run(&["synth", "--held-out", "--out", &other, "--set", "synth.held_out=4", "--set", "seed=5"]).await;
    assert!(made.status.success());
    let words = ["eval", "--engine", "openai", "--url", &whole.url, "--tasks", &other, "--out", &out, "--json"];
    json_of(&run(&[&words[..], &LARGE].concat()).await);
    refused(&run(&["compare", &at("half"), &out]).await, &["are not of the same tasks", "tasks.count is 12 and 4"]);
}
