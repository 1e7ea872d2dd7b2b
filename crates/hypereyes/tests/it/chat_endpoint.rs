//! A policy behind a chat endpoint, as users reach it: `eval`, `ask` and `synth --need-search` with `--engine openai`.

#[path = "../../../openai/tests/support/mod.rs"]
pub(crate) mod server;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Output;

use hypereyes_pictures::RgbImage;
use serde_json::{Value, json};

use self::server::{Asked, Reply, Server};
use crate::support::{self, lines};

/// Settings with which a dialogue of a large model fits in.
const LARGE: [&str; 4] = ["--set", "rollout.max_context_tokens=38000", "--set", "rollout.max_turn_tokens=1524"];
const KEY: &str = "sk-very-secret";

/// Runs the program beside the server.
async fn run(arguments: &[&str]) -> Output {
    let mut command = support::hypereyes(arguments);
    command.env("OPENAI_API_KEY", KEY);
    tokio::task::spawn_blocking(move || command.output().expect("it starts")).await.expect("it ends")
}

fn said(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("secret") && !String::from_utf8_lossy(&output.stdout).contains("secret"), "{said}");
    said
}

#[track_caller]
pub(crate) fn refused(output: &Output, mentions: &[&str]) {
    let said = said(output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    let line = said.lines().last().unwrap_or_default();
    for word in mentions {
        assert!(line.contains(word), "{line:?} does not mention {word:?}");
    }
}

/// Whatever stands in the messages as text.
pub(crate) fn told(asked: &Asked) -> String {
    let text = |message: &Value| match &message["content"] {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        _ => String::new(),
    };
    asked.body["messages"].as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join("\n")
}

/// A model that searches once and then says what `answers` has for the question; without tools it knows nothing.
pub(crate) fn knowing(answers: BTreeMap<String, String>) -> impl Fn(&Asked) -> Reply + Send + Sync + 'static {
    move |asked| match &asked.body {
        Value::Null => Reply::Json(json!({"object": "list", "data": [{"id": "the-model"}]})),
        body if body["tools"].is_null() => Reply::say("<answer>nobody knows</answer>"),
        body if body["messages"].as_array().is_some_and(|messages| messages.len() < 3) => {
            Reply::call(&[("text_search", json!({"input": ["currency of Mexico", "currency of Peru"]}))])
        }
        _ => {
            let told = told(asked);
            let answer = answers.iter().find(|(question, _)| told.contains(question.as_str())).map_or("none", |(_, answer)| answer);
            Reply::say(&format!("<answer>{answer}</answer>"))
        }
    }
}

pub(crate) fn tasks(folder: &Path) -> BTreeMap<String, String> {
    let pair = |task: Value| (task["question"].as_str().expect("a question").into(), task["answers"][0].as_str().expect("one").into());
    lines(&folder.join("tasks.jsonl")).into_iter().map(pair).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_behind_an_endpoint_is_measured_like_any_other() {
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let (set, rollouts) = (scratch.path().join("set"), scratch.path().join("rollouts.jsonl"));
    let (set_path, rollouts_path) = (set.to_str().expect("plain"), rollouts.to_str().expect("plain"));
    let made = run(&["synth", "--held-out", "--out", set_path, "--set", "synth.held_out=4"]).await;
    assert!(made.status.success(), "{}", said(&made));
    let answers = tasks(&set);
    let server = Server::start(knowing(answers.clone())).await;
    let command = ["eval", "--engine", "openai", "--url", &server.url, "--tasks", set_path, "--rollouts", rollouts_path, "--json"];
    let output = run(&[&command[..], &LARGE].concat()).await;
    assert!(output.status.success(), "{}", said(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!((&report["tasks"], &report["accuracy"], &report["closed_book_accuracy"]), (&json!(4), &json!(1.0), &json!(0.0)));
    assert_eq!((&report["rounds"], &report["searches"], &report["kilotokens"]), (&json!(1.0), &json!(2.0), &json!(0.12)));
    assert!((report["cas"].as_f64().expect("a number") - 100.0 / (0.12 + 2.0 + 1.0)).abs() < 1e-9, "{report}");
    assert_eq!(report["model"], format!("the-model at {}", server.url));
    let played = lines(&rollouts);
    assert_eq!(played.len(), 4);
    assert_eq!(played[0]["trajectory"]["spoken"]["turns"].as_array().map(Vec::len), Some(2));
    assert_eq!(played[0]["trajectory"]["response"], json!([]));
    let asked = server.asked();
    assert!(asked[0].line.starts_with("GET /v1/models") && asked.len() == 1 + 3 * 4, "{}", asked.len());
    assert!(asked.iter().all(|one| one.head.contains(KEY)) && asked[1].body["model"] == "the-model");

    // Nothing of it is training: what fails is left out, and nothing measured is no accuracy of zero.
    let broken = Server::script(vec![Reply::Json(json!({"data": [{"id": "m"}]})), Reply::refuse(400, "no")]).await;
    let output = run(&["eval", "--engine", "openai", "--url", &broken.url, "--tasks", set_path]).await;
    let line = said(&output);
    assert!(output.status.code() == Some(1) && line.contains("no rollout was measured"), "{line}");
    // The defaults are a small policy's: a prompt that does not fit says which key.
    let output =
        run(&["eval", "--engine", "openai", "--url", &server.url, "--tasks", set_path, "--set", "rollout.max_context_tokens=90"]).await;
    let line = said(&output);
    assert!(output.status.code() == Some(1) && line.contains("rollout.max_context_tokens is 90"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_is_asked_and_every_round_is_shown() {
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let picture = scratch.path().join("photo.png");
    RgbImage::new(300, 100).save(&picture).expect("written");
    let picture = picture.to_str().expect("plain");
    let server = Server::start(knowing([("Which one?".to_owned(), "Peru".to_owned())].into())).await;
    let command = ["ask", picture, "Which one?", "--engine", "openai", "--url", &server.url];
    let output = run(&[&command[..], &LARGE, &["--json"]].concat()).await;
    assert!(output.status.success(), "{}", said(&output));
    let answer: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!(
        (&answer["answer"], &answer["rounds"], &answer["searches"], &answer["tokens"]),
        (&json!("Peru"), &json!(1), &json!(2), &json!(120))
    );
    assert_eq!(answer["steps"][0]["call"]["tool"], "text_search");
    assert_eq!(answer["steps"][0]["found"].as_array().map(Vec::len), Some(2));
    let output = run(&[&command[..], &LARGE].concat()).await;
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    for line in [&format!("policy the-model at {}, layer 0", server.url), "round 1  text_search of 2 queries, at once", "answer   Peru"] {
        assert!(shown.contains(line), "{line:?} is not in {shown}");
    }
    // The picture is the user's, not of the size that a small policy was trained on.
    let question = &server.asked()[1].body["messages"][1]["content"];
    let url = question[0]["image_url"]["url"].as_str().expect("a data URI");
    assert!(url.starts_with("data:image/png;base64,"));
    assert_eq!(question[1]["text"], "Which one?");

    let model = scratch.path().to_str().expect("plain");
    refused(&run(&[&command[..], &["--model", model]].concat()).await, &["--model", "engine.kind is openai", "engine.model"]);
    refused(&run(&["ask", picture, "q", "--engine", "openai"]).await, &["engine.url is empty"]);
    refused(&run(&["ask", picture, "q", "--url", &server.url]).await, &["engine.url is set, but kind is \"local\""]);
    refused(&run(&["ask", picture, "q", "--engine", "openai", "--url", "http://127.0.0.1:1/v1"]).await, &["engine.url", "127.0.0.1:1"]);
    // Nobody starts a chat endpoint here.
    let own = ["--engine", "openai", "--set", "engine.command=[\"serve\", \"{port}\"]"];
    for of in [&["ask", picture, "q"][..], &["eval"], &["synth", "--out", model, "--need-search"]] {
        refused(&run(&[of, &own].concat()).await, &["engine.command is set, but kind is \"openai\""]);
    }
    let wrong = Server::script(vec![Reply::refuse(401, &format!("wrong key {KEY}"))]).await;
    refused(
        &run(&["ask", picture, "q", "--engine", "openai", "--url", &wrong.url]).await,
        &["engine.url", "with the key in OPENAI_API_KEY"],
    );
    let many = Server::script(vec![Reply::Json(json!({"data": [{"id": "a"}, {"id": "b"}]}))]).await;
    refused(&run(&["ask", picture, "q", "--engine", "openai", "--url", &many.url]).await, &["engine.model is empty", "such as a, b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_that_the_model_knows_are_left_out() {
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let out = scratch.path().join("set");
    let out = out.to_str().expect("plain");
    let server = Server::start(knowing(BTreeMap::new())).await;
    let command = ["synth", "--out", out, "--engine", "openai", "--url", &server.url, "--set", "synth.tasks=3", "--need-search"];
    let output = run(&command).await;
    assert!(output.status.success(), "{}", said(&output));
    let asked = server.asked();
    assert!(asked.len() > 4 * 3 && told(&asked[1]).contains("There are no tools"), "{}", asked.len());
    refused(&run(&["synth", "--out", out, "--need-search"]).await, &["--need-search", "engine.kind is openai"]);
    refused(&run(&[&command[..], &["some/policy"]].concat()).await, &["--need-search names some/policy", "engine.kind is openai"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_trained_on_text() {
    let sets = ["--set", "engine.kind=openai", "--set", "engine.url=http://127.0.0.1:1/v1"];
    refused(&run(&[&["up", "--dry-run"][..], &sets].concat()).await, &["engine.kind is openai", "`up`"]);
    let sets = ["--set", "actor.engine.kind=openai", "--set", "actor.engine.url=http://127.0.0.1:1/v1"];
    refused(&run(&[&["up", "--dry-run"][..], &sets].concat()).await, &["actor.engine.kind", "`engine`"]);
    let sets = ["--set", "engine.kind=openai", "--set", "engine.url=http://127.0.0.1:1/v1"];
    let actor = run(&[&["service", "actor"][..], &sets].concat()).await;
    let line = said(&actor);
    assert!(actor.status.code() == Some(42) && line.contains("engine.kind is openai"), "{line}");
}
