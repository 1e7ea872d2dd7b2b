//! Other weights, pauses, aborts and fresh starts, in the middle of turns.

use std::time::Duration;

use hypereyes_domain::Sampling;
use hypereyes_domain::{Chunk, Generate, PolicyVersion, Sequence};
use hypereyes_policy::engine::{Engine, EngineConfig};
use hypereyes_standin::{Dialect, Lie, Options, Standin};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{CONTEXT, Client, Policy, Question, until};

/// Pauses in the way in which turns under way wait.
async fn pause(client: &Client) {
    match client.dialect {
        Dialect::Vllm => client.json("/pause?mode=keep", &json!({})).await,
        Dialect::Sglang => client.json("/pause_generation", &json!({"mode": "in_place"})).await,
    };
}

async fn resume(client: &Client) {
    let path = if client.dialect == Dialect::Vllm { "/resume" } else { "/continue_generation" };
    client.json(path, &json!({})).await;
}

async fn reload(client: &Client, folder: &std::path::Path, label: &str) -> (StatusCode, Value) {
    let (path, body) = match client.dialect {
        Dialect::Vllm => ("/collective_rpc", json!({"method": "reload_weights", "kwargs": {"weights_path": folder}})),
        Dialect::Sglang => ("/update_weights_from_disk", json!({"model_path": folder, "weight_version": label, "flush_cache": false})),
    };
    let response = client.post(path, &body).await.expect("an answer");
    let status = response.status();
    let reply = serde_json::from_str(&response.text().await.expect("a body")).expect("JSON");
    if client.dialect == Dialect::Vllm && status == StatusCode::OK {
        assert_eq!(client.post("/reset_encoder_cache", &json!({})).await.expect("an answer").status(), StatusCode::OK);
        client.json("/update_weight_version", &json!({"new_version": label})).await;
    }
    (status, reply)
}

async fn label(client: &Client) -> Value {
    let path = if client.dialect == Dialect::Vllm { "/weight_info" } else { "/model_info" };
    client.get(path).await["weight_version"].clone()
}

async fn serve(policy: &Policy, dialect: Dialect) -> (Standin, Client) {
    let standin = Standin::start(Options::new(policy.start(), dialect)).await.expect("starts");
    let client = Client::new(standin.url(), dialect);
    (standin, client)
}

/// A turn that takes a while.
fn long(policy: &Policy, seed: u64) -> Question {
    let mut question = Question::new(policy.prompt("Which one?", &[]), &[], seed);
    question.most = 600;
    question
}

fn body_of(question: &Question, dialect: Dialect, id: &str) -> (&'static str, Value) {
    let (path, mut body) = question.body(dialect);
    match dialect {
        Dialect::Vllm => {
            body["request_id"] = json!(id);
            body["sampling_params"]["ignore_eos"] = json!(true);
        }
        Dialect::Sglang => {
            body["rid"] = json!(id);
            body["sampling_params"]["ignore_eos"] = json!(true);
        }
    }
    (path, body)
}

/// Asks for a long turn beside this test.
fn begin(client: &Client, question: &Question, id: &str) -> tokio::task::JoinHandle<crate::support::Said> {
    let (client, (path, body)) = (client.clone(), body_of(question, client.dialect, id));
    tokio::spawn(async move { crate::support::said(&client.json(path, &body).await, client.dialect) })
}

#[tokio::test(flavor = "multi_thread")]
async fn other_weights_come_between_two_tokens_and_every_token_says_whose_it_is() {
    let policy = Policy::new();
    let (folder, weights) = policy.moved("next", 0.5);
    for dialect in [Dialect::Vllm, Dialect::Sglang] {
        let mut options = Options::new(policy.start(), dialect);
        options.max_model_len = 4096;
        let standin = Standin::start(options).await.expect("starts");
        let client = Client::new(standin.url(), dialect);
        let question = Question { most: 3000, ..long(&policy, 4) };
        let mut across = 0;
        // How far a turn is when others come is not in anybody's hand.
        for _ in 0..10 {
            let turn = begin(&client, &question, "long");
            tokio::time::sleep(Duration::from_millis(20)).await;
            pause(&client).await;
            assert_eq!(reload(&client, &folder, "v1-abc").await.0, StatusCode::OK);
            assert_eq!(label(&client).await, json!("v1-abc"));
            resume(&client).await;
            let said = turn.await.expect("an answer");
            assert_eq!(said.tokens.len(), 3000);
            let labels: Vec<&str> = said.versions.iter().map(|(label, ..)| label.as_str()).collect();
            if labels == ["default", "v1-abc"] {
                across += 1;
                break;
            }
            standin.restart().await;
        }
        assert_eq!(across, 1);
        // What comes afterwards is what an engine with those weights samples.
        let sizes = EngineConfig { end_tokens: vec![policy.chat.end_token()], max_context: CONTEXT, ..EngineConfig::default() };
        let engine = Engine::start_from(policy.model.clone(), &weights, sizes, PolicyVersion(1)).expect("starts");
        let chunk = Chunk { tokens: question.tokens.clone(), pictures: vec![] };
        let mut sequence = engine.start(chunk, vec![9], Sampling::of(1.0, 1.0)).await.expect("starts").remove(0);
        let here = sequence.advance(Chunk::default(), 12).await.expect("samples");
        let there = client.ask(&Question::new(question.tokens.clone(), &[], 9)).await;
        assert_eq!((there.tokens, there.versions), (here.tokens.clone(), vec![("v1-abc".to_owned(), 0, here.tokens.len())]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sampled_while_it_stands_still() {
    let policy = Policy::new();
    for dialect in [Dialect::Vllm, Dialect::Sglang] {
        let (_standin, client) = serve(&policy, dialect).await;
        let quick = Question { most: 2, ..Question::new(policy.prompt("Which one?", &[]), &[], 1) };
        pause(&client).await;
        let waits = begin(&client, &quick, "waits");
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!waits.is_finished());
        resume(&client).await;
        assert_eq!(waits.await.expect("an answer").tokens.len(), 2);
        // Aborted ones end as they are, and those that come later wait.
        pause(&client).await;
        let turn = begin(&client, &long(&policy, 2), "aborted");
        tokio::time::sleep(Duration::from_millis(100)).await;
        match dialect {
            Dialect::Vllm => client.json("/pause", &json!({})).await,
            Dialect::Sglang => client.json("/pause_generation", &json!({})).await,
        };
        let said = turn.await.expect("an answer");
        assert!(said.finish == "abort" && said.tokens.len() < 600 && said.tokens.len() == said.ids.len(), "{}", said.finish);
        let later = begin(&client, &quick, "later");
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!later.is_finished());
        resume(&client).await;
        assert_eq!(later.await.expect("an answer").finish, "length");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_can_be_aborted_by_its_name() {
    let policy = Policy::new();
    for dialect in [Dialect::Vllm, Dialect::Sglang] {
        let (_standin, client) = serve(&policy, dialect).await;
        pause(&client).await;
        let [one, other] = ["one", "other"].map(|id| begin(&client, &long(&policy, 3), id));
        tokio::time::sleep(Duration::from_millis(100)).await;
        match dialect {
            // Its requests are known by more than their names.
            Dialect::Vllm => drop(client.json("/abort_requests", &json!({"request_ids": ["one"]})).await),
            Dialect::Sglang => drop(client.post("/abort_request", &json!({"rid": "one"})).await.expect("an answer")),
        }
        assert_eq!(one.await.expect("an answer").finish, "abort");
        resume(&client).await;
        assert_eq!(other.await.expect("an answer").finish, "length");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_that_are_not_taken_leave_those_of_before() {
    let policy = Policy::new();
    let (folder, _) = policy.moved("next", 0.5);
    for dialect in [Dialect::Vllm, Dialect::Sglang] {
        let (standin, client) = serve(&policy, dialect).await;
        let question = Question::new(policy.prompt("Which one?", &[]), &[], 1);
        let before = client.ask(&question).await.tokens;
        let wrong = if dialect == Dialect::Vllm { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::BAD_REQUEST };
        let (status, reply) = reload(&client, &policy.folder.path().join("nowhere"), "v1").await;
        assert_eq!(status, wrong, "{reply}");
        standin.lie_next(Lie::ReloadFails);
        let (status, reply) = reload(&client, &folder, "v1").await;
        assert!(status == wrong && reply.to_string().contains("out of memory"), "{reply}");
        assert_eq!((client.ask(&question).await.tokens, label(&client).await), (before, json!("default")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn vllm_must_be_told_to_forget_pictures() {
    let policy = Policy::new();
    let (folder, _) = policy.moved("next", 0.5);
    let (_standin, client) = serve(&policy, Dialect::Vllm).await;
    let pictures = [policy.picture(1, 64, 64)];
    let question = Question::new(policy.compact(&policy.prompt("Which?", &pictures), &pictures), &pictures, 1);
    client.ask(&question).await;
    client.json("/collective_rpc", &json!({"method": "reload_weights", "kwargs": {"weights_path": folder}})).await;
    let (path, body) = question.body(Dialect::Vllm);
    let failed = client.post(path, &body).await.expect("an answer");
    assert_eq!(failed.status(), StatusCode::INTERNAL_SERVER_ERROR);
    client.post("/reset_encoder_cache", &json!({})).await.expect("an answer");
    client.ask(&question).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_start_ends_every_connection_and_forgets_everything() {
    let policy = Policy::new();
    let (folder, _) = policy.moved("next", 0.5);
    for dialect in [Dialect::Vllm, Dialect::Sglang] {
        let (standin, client) = serve(&policy, dialect).await;
        let question = Question::new(policy.prompt("Which one?", &[]), &[], 1);
        let before = client.ask(&question).await.tokens;
        assert_eq!(reload(&client, &folder, "v1").await.0, StatusCode::OK);
        pause(&client).await;
        let (path, body) = body_of(&long(&policy, 2), dialect, "cut");
        let cut = {
            let client = client.clone();
            tokio::spawn(async move { client.post(path, &body).await.is_err() })
        };
        tokio::time::sleep(Duration::from_millis(100)).await;
        standin.restart().await;
        assert!(cut.await.expect("ends"), "the turn under way ends with its connection");
        until("it answers", async || client.post("/v1/chat/completions", &json!({})).await.is_ok()).await;
        let after = client.ask(&question).await;
        assert_eq!((after.tokens, after.versions[0].0.as_str()), (before, "default"));
    }
}
