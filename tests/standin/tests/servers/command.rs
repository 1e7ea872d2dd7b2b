//! `engine.command` with this very server: it is up when it says so, is back when it is killed, and is gone when it is stopped.

use std::path::PathBuf;
use std::time::Duration;

use hypereyes_engines::command::EngineCommand;
use hypereyes_standin::Dialect;
use serde_json::json;

use crate::support::{Client, PATIENCE, Policy, Question, has, until};

const STANDIN: &str = env!("CARGO_BIN_EXE_hypereyes-standin");

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Process ids of those that were started by `parent`.
fn children(parent: u32) -> Vec<u32> {
    let text = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    text.split_whitespace().map(|id| id.parse().expect("a number")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_kept_until_it_is_stopped() {
    let policy = Policy::new();
    let log = policy.folder.path().join("engine.log");
    let command = words(&[STANDIN, "--model", "{model}", "--port", "{port}", "--load-s", "0.2"]);
    let server = EngineCommand::new(&command, &policy.start(), &log).expect("a free port").held_by(STANDIN).start();
    let url = server.url().to_owned();
    server.ready(PATIENCE).await.expect("comes up");
    assert!(has(&log, &format!("listening at {url}")));
    let client = Client::new(&url, Dialect::Vllm);
    let question = Question::new(policy.prompt("Which one?", &[]), &[], 1);
    let before = client.ask(&question).await.tokens;
    client.json("/update_weight_version", &json!({"new_version": "v7"})).await;

    let held = children(server.process().expect("it runs"));
    std::process::Command::new("kill").args(["-9", &held[0].to_string()]).status().expect("kill runs");
    until("it is started again", async || server.restarts() == 1).await;
    let health = async || reqwest::get(format!("{url}/health")).await.is_ok();
    until("it is back where it was", health).await;
    assert_eq!(client.get("/weight_info").await["weight_version"], json!("default"), "it knows nothing of before");
    assert_eq!(client.ask(&question).await.tokens, before);

    let held = children(server.process().expect("it runs"));
    tokio::time::timeout(PATIENCE, server.stop()).await.expect("it stops");
    assert!(reqwest::get(format!("{url}/health")).await.is_err());
    assert!(!PathBuf::from(format!("/proc/{}", held[0])).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_run_says_so_with_its_last_words() {
    let policy = Policy::new();
    let log = policy.folder.path().join("engine.log");
    for (command, want) in [
        (words(&[STANDIN, "--model", "/nowhere", "--port", "{port}"]), "cannot serve /nowhere"),
        (words(&["/no/such/server", "{port}"]), "cannot start /no/such/server"),
        (words(&[STANDIN, "--modell", "{model}", "--port", "{port}"]), "--modell"),
    ] {
        let server = EngineCommand::new(&command, &policy.start(), &log).expect("a free port").held_by(STANDIN).start();
        let error = server.ready(PATIENCE).await.expect_err(want);
        assert!(error.starts_with("engine.command did not come up") && error.contains("engine.log"), "{error}");
        assert!(has(&log, want), "{error}");
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_loads_for_too_long_is_named() {
    let policy = Policy::new();
    let log = policy.folder.path().join("engine.log");
    let command = words(&[STANDIN, "--model", "{model}", "--port", "{port}", "--load-s", "1000"]);
    let server = EngineCommand::new(&command, &policy.start(), &log).expect("a free port").held_by(STANDIN).start();
    let error = server.ready(Duration::from_millis(300)).await.expect_err("it still loads");
    assert!(error.contains("start_timeout_s"), "{error}");
}
