//! The client against a real HTTP server that is slow, busy, broken, choosy or talks nonsense.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hypereyes_chassis::backoff::BackoffConfig;
use hypereyes_openai::{Client, Complaint, Completion, Endpoint, Miss, Patience, Request};
use serde_json::{Value, json};
use support::{Reply, Server};

fn client(url: &str, key: &str) -> Client {
    Client::new(Endpoint { url, model: "m", api_key_env: key }, 3, 64 << 10, |_| {}).expect("sound")
}

fn patience(attempts: u32, attempt_ms: u64, deadline_ms: u64) -> Patience {
    Patience {
        attempts,
        attempt: Duration::from_millis(attempt_ms),
        deadline: tokio::time::Instant::now() + Duration::from_millis(deadline_ms),
        backoff: BackoffConfig { first_ms: 1, max_ms: 4, ..BackoffConfig::default() },
    }
}

async fn ask_with(client: &Client, patience: &Patience) -> Result<Completion, Miss> {
    let messages = [json!({"role": "user", "content": "hi"})];
    let tools = [json!({"type": "function", "function": {"name": "visit"}})];
    let request = Request { messages: &messages, tools: &tools, max_tokens: 7, temperature: 0.8, top_p: Some(0.7), seed: Some(5) };
    client.ask(&request, patience, Ok).await
}

async fn ask(client: &Client) -> Result<Completion, Miss> {
    ask_with(client, &patience(3, 20_000, 60_000)).await
}

#[tokio::test]
async fn a_request_says_what_is_meant_and_a_reply_is_read() {
    let server = Server::script(vec![Reply::say("hello")]).await;
    let said = ask(&client(&format!("{}/", server.url), "PATH")).await.expect("a completion");
    assert_eq!((said.text.as_deref(), said.usage.map(|usage| (usage.prompt, usage.completion))), (Some("hello"), Some((100, 10))));
    let asked = &server.asked()[0];
    assert_eq!(asked.line, "POST /v1/chat/completions HTTP/1.1");
    assert!(asked.head.to_lowercase().contains("authorization: bearer /"), "{}", asked.head);
    let want = json!({
        "model": "m", "messages": [{"role": "user", "content": "hi"}], "tools": [{"type": "function", "function": {"name": "visit"}}],
        "max_tokens": 7, "temperature": 0.8, "top_p": 0.7, "seed": 5
    });
    assert_eq!(asked.body, want);
}

#[tokio::test]
async fn who_is_busy_broken_or_senseless_is_asked_again() {
    for bad in [
        Reply::refuse(429, "slow down"),
        Reply::refuse(503, "starting"),
        Reply::refuse(408, ""),
        Reply::Raw(vec![]),
        Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{]x".to_vec()),
        Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 300\r\n\r\n{\"choices\"".to_vec()),
        Reply::Json(json!({"choices": []})),
    ] {
        let server = Server::script(vec![bad.clone(), Reply::say("hello")]).await;
        assert_eq!(ask(&client(&server.url, "")).await.expect("the second").text.as_deref(), Some("hello"), "{bad:?}");
        assert_eq!(server.count(), 2, "{bad:?}");
    }
}

#[tokio::test]
async fn attempts_deadlines_and_sizes_are_bounds() {
    static COUNTED: AtomicUsize = AtomicUsize::new(0);
    let server = Server::script(vec![Reply::refuse(500, "out of memory")]).await;
    let endpoint = Endpoint { url: &server.url, model: "m", api_key_env: "" };
    let count = |label| {
        COUNTED.fetch_add(usize::from(label == "server"), Ordering::SeqCst);
    };
    let counting = Client::new(endpoint, 1, 9999, count);
    let missed = ask(&counting.expect("sound")).await.expect_err("it fails");
    assert_eq!((missed.label, server.count(), COUNTED.load(Ordering::SeqCst)), ("server", 3, 3));
    assert!(missed.message.contains("500") && missed.message.contains("out of memory"), "{missed}");

    let slow = Server::script(vec![Reply::Slow(Duration::from_secs(30), Box::new(Reply::say("late")))]).await;
    let began = Instant::now();
    let missed = ask_with(&client(&slow.url, ""), &patience(2, 200, 60_000)).await.expect_err("it is slow");
    assert_eq!((missed.label, missed.is_late(), slow.count()), ("slow", true, 2));
    let missed = ask_with(&client(&slow.url, ""), &patience(9, 60_000, 300)).await.expect_err("it is slow");
    assert!(missed.label == "deadline" && began.elapsed() < Duration::from_secs(20));

    let long = Server::script(vec![Reply::say(&"x".repeat(65 << 10))]).await;
    assert_eq!(ask(&client(&long.url, "")).await.expect_err("too long").label, "too_long");
    assert_eq!(ask(&client("http://127.0.0.1:1/v1", "")).await.expect_err("nobody").label, "connect");
}

#[tokio::test]
async fn a_server_is_left_alone_for_as_long_as_it_asks_and_no_longer_than_one_waits() {
    let busy = |seconds: &str| Reply::Status(429, format!("retry-after: {seconds}\r\n"), String::new());
    let server = Server::script(vec![busy("0.3"), Reply::say("hello")]).await;
    let began = Instant::now();
    ask(&client(&server.url, "")).await.expect("the second");
    assert!(began.elapsed() >= Duration::from_millis(300));
    let server = Server::script(vec![busy("3600"), Reply::say("hello")]).await;
    let missed = ask_with(&client(&server.url, ""), &patience(3, 60_000, 60_000)).await.expect_err("an hour is too long");
    assert_eq!((missed.label, server.count()), ("busy", 1));
    assert!(began.elapsed() < Duration::from_secs(50), "nobody waits for what cannot come");
}

#[tokio::test]
async fn what_a_server_refuses_is_not_asked_again_and_no_key_is_told() {
    let home = std::env::var("PATH").expect("there is");
    for (status, says) in [(400, "400"), (401, "with the key in PATH"), (403, "with the key in PATH"), (404, "404"), (307, "307")] {
        let server = Server::script(vec![Reply::refuse(status, &format!("no such thing for {home}"))]).await;
        let missed = ask(&client(&server.url, "PATH")).await.expect_err("refused");
        assert_eq!((missed.label, server.count(), missed.status), ("refused", 1, Some(status)));
        assert!(missed.message.contains(says) && !missed.message.contains(&home), "{missed}");
    }
    let server = Server::script(vec![Reply::refuse(400, "this model does not support tools")]).await;
    assert_eq!(ask(&client(&server.url, "")).await.expect_err("refused").complaint, Some(Complaint::Tools));
    let server = Server::script(vec![Reply::refuse(401, "")]).await;
    assert!(ask(&client(&server.url, "")).await.expect_err("refused").message.contains("no key was sent"));
}

#[tokio::test]
async fn optional_words_that_a_server_refuses_are_said_otherwise_from_then_on() {
    let choosy = |asked: &support::Asked| match &asked.body {
        body if !body["max_tokens"].is_null() => {
            Reply::refuse(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        }
        body if !body["seed"].is_null() => Reply::refuse(422, "extra field: seed"),
        body if !body["temperature"].is_null() => Reply::refuse(400, "Unsupported value: 'temperature' does not support 0.8"),
        body => Reply::say(&body["max_completion_tokens"].to_string()),
    };
    let server = Server::start(choosy).await;
    let client = client(&server.url, "");
    for count in [4, 5] {
        assert_eq!(ask(&client).await.expect("in its words").text.as_deref(), Some("7"));
        assert_eq!(server.count(), count);
    }
    let stubborn = Server::script(vec![Reply::refuse(400, "seed is wrong, use max_completion_tokens")]).await;
    assert_eq!(ask(&self::client(&stubborn.url, "")).await.expect_err("refused").label, "refused");
    assert_eq!(stubborn.count(), 2, "each is tried once");
}

#[tokio::test]
async fn no_more_requests_are_open_than_allowed() {
    let server = Server::script(vec![Reply::Slow(Duration::from_millis(30), Box::new(Reply::say("hello")))]).await;
    let client = client(&server.url, "");
    let asked = futures::future::join_all((0..12).map(|_| ask(&client))).await;
    let said = asked.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!((said, server.count(), server.at_once()), (12, 12, 3));
}

#[tokio::test]
async fn models_are_listed_where_there_is_a_list() {
    let list = |reply: Reply| async move {
        let server = Server::script(vec![reply]).await;
        let listed = client(&server.url, "").models(Duration::from_secs(20)).await;
        assert_eq!(server.asked()[0].line, "GET /v1/models HTTP/1.1");
        listed.map_err(|missed| missed.label)
    };
    let two = json!({"object": "list", "data": [{"id": "a"}, {"id": "b"}, {"name": "c"}]});
    assert_eq!(list(Reply::Json(two)).await, Ok(vec!["a".to_owned(), "b".to_owned()]));
    for none in [Reply::refuse(404, ""), Reply::Json(Value::Null), Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{".to_vec())] {
        assert_eq!(list(none).await, Ok(vec![]));
    }
    assert_eq!(list(Reply::refuse(401, "")).await, Err("refused"));
    assert_eq!(client("http://127.0.0.1:1", "").models(Duration::from_secs(20)).await.expect_err("nobody").label, "connect");
}
