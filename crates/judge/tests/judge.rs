//! The model that judges, against a real HTTP server that is slow, busy, broken or talks nonsense.

#[path = "../../openai/tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use hypereyes_domain::{Accuracy, Ending, Failure, RolloutSummary, Round, Task, TaskKind};
use hypereyes_judge::{ModelConfig, ModelJudge, accuracies};
use hypereyes_scoring::Tally;
use support::{Reply, Server};

fn config(server: &Server) -> ModelConfig {
    ModelConfig {
        url: server.url.clone(),
        model: "judge".into(),
        attempt_timeout_ms: 10_000,
        deadline_ms: 30_000,
        ..ModelConfig::default()
    }
}

fn task() -> Task {
    Task {
        id: "t".into(),
        kind: TaskKind::VISUAL_SELECT,
        question: "Which city?".into(),
        answers: vec!["Paris".into()],
        pictures: vec![],
        layer: None,
        metadata: Default::default(),
        shown: vec![],
        reference: None,
    }
}

fn group(answers: &[&str]) -> Vec<RolloutSummary> {
    let rounds = vec![Round::counted(1, 0)];
    let summary = |answer: &&str| RolloutSummary { rounds: rounds.clone(), ending: Ending::Answered, answer: Some((*answer).to_owned()) };
    answers.iter().map(summary).collect()
}

async fn judged(config: &ModelConfig, answers: &[&str]) -> Vec<Accuracy> {
    accuracies(&ModelJudge::new(config).unwrap(), &task(), &Tally::of(&group(answers))).await.into_vec()
}

const FAILED: Accuracy = Accuracy::Invalid(Failure::Judge);

#[tokio::test]
async fn equal_answers_are_judged_once_and_verdicts_are_remembered() {
    let server = Server::start(|asked| {
        let body = format!("{}\n{}", asked.line, asked.body);
        for part in ["POST /v1/chat/completions", "\"model\":\"judge\"", "\"temperature\":0.25", "\"max_tokens\":7", "Which city?"] {
            assert!(body.contains(part), "{part} is not in {body}");
        }
        Reply::say(if body.contains("in the city of Paris") { "Correct" } else { "Incorrect." })
    })
    .await;
    let judge = ModelJudge::new(&ModelConfig { temperature: 0.25, max_tokens: 7, ..config(&server) }).unwrap();
    let answers = ["in the city of Paris", "Rome", "in the city of Paris", "Rome", "Rome"];
    let want = [Accuracy::Correct, Accuracy::Wrong, Accuracy::Correct, Accuracy::Wrong, Accuracy::Wrong];
    assert_eq!(accuracies(&judge, &task(), &Tally::of(&group(&answers))).await[..], want);
    assert_eq!(accuracies(&judge, &task(), &Tally::of(&group(&answers))).await[..], want);
    assert_eq!(server.count(), 2);
    let elsewhere = Task { answers: vec!["Rome".into()], ..task() };
    accuracies(&judge, &elsewhere, &Tally::of(&group(&["Rome"]))).await;
    assert_eq!(server.count(), 3, "another right answer is another question");
}

#[tokio::test]
async fn busy_broken_and_senseless_replies_are_asked_again() {
    for bad in [
        Reply::refuse(429, ""),
        Reply::refuse(503, ""),
        Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{]x".to_vec()),
        Reply::Raw(vec![]),
        Reply::say("Hm."),
    ] {
        let server = Server::script(vec![bad, Reply::say("correct")]).await;
        assert_eq!(judged(&config(&server), &["Paris"]).await, [Accuracy::Correct]);
        assert_eq!(server.count(), 2);
    }
}

#[tokio::test]
async fn a_judge_that_fails_masks_the_rollout_and_never_calls_it_wrong() {
    let server = Server::script(vec![Reply::refuse(500, "")]).await;
    assert_eq!(judged(&config(&server), &["Paris"]).await, [FAILED]);
    assert_eq!(server.count(), 3, "as many attempts as are allowed");

    let server = Server::script(vec![Reply::refuse(401, "")]).await;
    assert_eq!(judged(&config(&server), &["Paris"]).await, [FAILED]);
    assert_eq!(server.count(), 1, "what no attempt can mend is not tried again");

    let server = Server::script(vec![Reply::Slow(Duration::from_secs(30), Box::new(Reply::say("correct")))]).await;
    let began = Instant::now();
    assert_eq!(judged(&ModelConfig { attempt_timeout_ms: 300, deadline_ms: 700, ..config(&server) }, &["Paris"]).await, [FAILED]);
    assert!(began.elapsed() < Duration::from_secs(20), "the deadline holds for all attempts together");

    let nobody = ModelConfig { url: "http://127.0.0.1:1/v1".into(), model: "judge".into(), deadline_ms: 5000, ..ModelConfig::default() };
    assert_eq!(judged(&nobody, &["Paris", "Paris"]).await, [FAILED, FAILED]);

    let endless = [b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n".as_slice(), &[b'x'; 300 << 10]].concat();
    let server = Server::script(vec![Reply::Raw(endless)]).await;
    assert_eq!(judged(&config(&server), &["Paris"]).await, [FAILED]);
}

#[tokio::test]
async fn no_more_requests_are_open_than_allowed() {
    let server = Server::script(vec![Reply::Slow(Duration::from_millis(30), Box::new(Reply::say("incorrect")))]).await;
    let config = ModelConfig { concurrency: 3, ..config(&server) };
    let answers: Vec<String> = (0..12).map(|at| format!("city {at}")).collect();
    let answers: Vec<&str> = answers.iter().map(String::as_str).collect();
    assert_eq!(judged(&config, &answers).await, vec![Accuracy::Wrong; 12]);
    assert_eq!((server.count(), server.at_once()), (12, 3));
}
