//! The model that judges, against a real HTTP server that is slow, busy, broken or talks nonsense.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hypereyes_domain::{Accuracy, Ending, Failure, RolloutSummary, Round, Task, TaskKind};
use hypereyes_judge::{ModelConfig, ModelJudge, accuracies};
use hypereyes_scoring::Tally;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// What the server does with request number `n`, counted from 0, whose body is given.
type Behaviour = dyn Fn(usize, &str) -> Reply + Send + Sync;

enum Reply {
    Say(&'static str),
    Status(u16),
    Raw(&'static [u8]),
    Slow(Duration, &'static str),
}

struct Server {
    address: String,
    requests: Arc<AtomicUsize>,
    at_once: Arc<AtomicUsize>,
}

impl Server {
    async fn start(behaviour: Box<Behaviour>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/v1", listener.local_addr().unwrap());
        let (requests, at_once) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (behaviour, count, most) = (Arc::new(behaviour), requests.clone(), at_once.clone());
        tokio::spawn(async move {
            let open = Arc::new(AtomicUsize::new(0));
            while let Ok((mut stream, _)) = listener.accept().await {
                let (behaviour, count, most, open) = (behaviour.clone(), count.clone(), most.clone(), open.clone());
                tokio::spawn(async move {
                    let mut text = Vec::new();
                    let body = loop {
                        let mut part = [0; 4096];
                        let read = stream.read(&mut part).await.unwrap_or(0);
                        if read == 0 {
                            return;
                        }
                        text.extend_from_slice(&part[..read]);
                        let whole = String::from_utf8_lossy(&text).into_owned();
                        let Some((head, body)) = whole.split_once("\r\n\r\n") else { continue };
                        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
                        if body.len() >= length.unwrap_or(0) {
                            break format!("{}\n{body}", head.lines().next().unwrap_or_default());
                        }
                    };
                    most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    let reply = behaviour(count.fetch_add(1, Ordering::SeqCst), &body);
                    let say = |words: &str| {
                        let body = serde_json::json!({"choices": [{"message": {"content": words}}]}).to_string();
                        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len()).into_bytes()
                    };
                    let bytes = match reply {
                        Reply::Say(words) => say(words),
                        Reply::Status(code) => format!("HTTP/1.1 {code} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").into_bytes(),
                        Reply::Raw(bytes) => bytes.to_vec(),
                        Reply::Slow(wait, words) => {
                            tokio::time::sleep(wait).await;
                            say(words)
                        }
                    };
                    open.fetch_sub(1, Ordering::SeqCst);
                    let _ = stream.write_all(&bytes).await;
                });
            }
        });
        Self { address, requests, at_once }
    }

    fn config(&self) -> ModelConfig {
        ModelConfig {
            url: self.address.clone(),
            model: "judge".into(),
            attempt_timeout_ms: 10_000,
            deadline_ms: 30_000,
            ..ModelConfig::default()
        }
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
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
    let server = Server::start(Box::new(|_, body| {
        for part in ["POST /v1/chat/completions", "\"model\":\"judge\"", "\"temperature\":0.25", "\"max_tokens\":7", "Which city?"] {
            assert!(body.contains(part), "{part} is not in {body}");
        }
        Reply::Say(if body.contains("in the city of Paris") { "Correct" } else { "Incorrect." })
    }))
    .await;
    let judge = ModelJudge::new(&ModelConfig { temperature: 0.25, max_tokens: 7, ..server.config() }).unwrap();
    let answers = ["in the city of Paris", "Rome", "in the city of Paris", "Rome", "Rome"];
    let want = [Accuracy::Correct, Accuracy::Wrong, Accuracy::Correct, Accuracy::Wrong, Accuracy::Wrong];
    assert_eq!(accuracies(&judge, &task(), &Tally::of(&group(&answers))).await[..], want);
    assert_eq!(accuracies(&judge, &task(), &Tally::of(&group(&answers))).await[..], want);
    assert_eq!(server.requests(), 2);
    let elsewhere = Task { answers: vec!["Rome".into()], ..task() };
    accuracies(&judge, &elsewhere, &Tally::of(&group(&["Rome"]))).await;
    assert_eq!(server.requests(), 3, "another right answer is another question");
}

#[tokio::test]
async fn busy_broken_and_senseless_replies_are_asked_again() {
    for bad in [
        Reply::Status(429),
        Reply::Status(503),
        Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{]x"),
        Reply::Raw(b""),
        Reply::Say("Hm."),
    ] {
        let bad = std::sync::Mutex::new(Some(bad));
        let server = Server::start(Box::new(move |_, _| bad.lock().unwrap().take().unwrap_or(Reply::Say("correct")))).await;
        assert_eq!(judged(&server.config(), &["Paris"]).await, [Accuracy::Correct]);
        assert_eq!(server.requests(), 2);
    }
}

#[tokio::test]
async fn a_judge_that_fails_masks_the_rollout_and_never_calls_it_wrong() {
    let server = Server::start(Box::new(|_, _| Reply::Status(500))).await;
    assert_eq!(judged(&server.config(), &["Paris"]).await, [FAILED]);
    assert_eq!(server.requests(), 3, "as many attempts as are allowed");

    let server = Server::start(Box::new(|_, _| Reply::Status(401))).await;
    assert_eq!(judged(&server.config(), &["Paris"]).await, [FAILED]);
    assert_eq!(server.requests(), 1, "what no attempt can mend is not tried again");

    let server = Server::start(Box::new(|_, _| Reply::Slow(Duration::from_secs(30), "correct"))).await;
    let began = Instant::now();
    assert_eq!(judged(&ModelConfig { attempt_timeout_ms: 300, deadline_ms: 700, ..server.config() }, &["Paris"]).await, [FAILED]);
    assert!(began.elapsed() < Duration::from_secs(20), "the deadline holds for all attempts together");

    let nobody = ModelConfig { url: "http://127.0.0.1:1/v1".into(), model: "judge".into(), deadline_ms: 5000, ..ModelConfig::default() };
    assert_eq!(judged(&nobody, &["Paris", "Paris"]).await, [FAILED, FAILED]);

    let endless: &'static [u8] =
        Box::leak([b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n".as_slice(), &[b'x'; 300 << 10]].concat().into_boxed_slice());
    let server = Server::start(Box::new(move |_, _| Reply::Raw(endless))).await;
    assert_eq!(judged(&server.config(), &["Paris"]).await, [FAILED]);
}

#[tokio::test]
async fn no_more_requests_are_open_than_allowed() {
    let server = Server::start(Box::new(|_, _| Reply::Slow(Duration::from_millis(30), "incorrect"))).await;
    let config = ModelConfig { concurrency: 3, ..server.config() };
    let answers: Vec<String> = (0..12).map(|at| format!("city {at}")).collect();
    let answers: Vec<&str> = answers.iter().map(String::as_str).collect();
    assert_eq!(judged(&config, &answers).await, vec![Accuracy::Wrong; 12]);
    assert_eq!((server.requests(), server.at_once.load(Ordering::SeqCst)), (12, 3));
}
