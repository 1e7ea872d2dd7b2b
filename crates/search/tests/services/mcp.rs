//! MCP servers of the tests, of every revision, well and badly.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::Response;
use futures::StreamExt;
use hypereyes_environment::Fault;
use hypereyes_search::SearchConfig;
use serde_json::{Value, json};

use super::server::{Asked, Server, asking, find, open, reply, reply_with, texts};
use super::shapes::{KEY, with_key};

/// Every revision that begins with a handshake.
pub const HANDSHAKES: [&str; 3] = ["2025-11-25", "2025-06-18", "2025-03-26"];

fn method(asked: &Asked) -> &str {
    asked.body["method"].as_str().unwrap_or("none")
}

fn header<'a>(asked: &'a Asked, name: &str) -> Option<&'a str> {
    asked.headers.get(name).and_then(|value| value.to_str().ok())
}

/// An answer to a request.
fn answer(asked: &Asked, result: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": asked.body["id"], "result": result})
}

fn error(asked: &Asked, code: i64, said: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": asked.body["id"], "error": {"code": code, "message": said}})
}

fn tools() -> Value {
    let schema =
        json!({"type": "object", "properties": {"query": {"type": "string"}, "limit": {"type": "integer"}}, "required": ["query"]});
    json!({"tools": [{"name": "other", "inputSchema": {}}, {"name": "web_search", "inputSchema": schema}]})
}

/// What the tool of the tests finds: what it was asked for.
fn found(asked: &Asked) -> Value {
    let query = &asked.body["params"]["arguments"]["query"];
    json!({"structuredContent": {"results": [{"title": query, "url": "https://x"}]}, "content": [], "isError": false})
}

/// A message in a stream, after what else a stream has.
fn stream(message: &Value) -> Response {
    let before = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": "working"}});
    let other = json!({"jsonrpc": "2.0", "id": "theirs", "method": "ping"});
    let events =
        format!(": hello\r\n\r\nid: 1\r\ndata:\r\n\r\nevent: message\r\ndata: {before}\r\n\r\ndata: {other}\n\ndata: {message}\n\n");
    reply_with(200, "content-type", "text/event-stream; charset=utf-8", events)
}

/// A server of 2026.
fn stateless(asked: &Asked) -> Response {
    let meta = &asked.body["params"]["_meta"];
    assert_eq!((header(asked, "mcp-protocol-version"), header(asked, "mcp-method")), (Some("2026-07-28"), Some(method(asked))));
    assert_eq!(meta["io.modelcontextprotocol/protocolVersion"], "2026-07-28");
    assert!(meta["io.modelcontextprotocol/clientCapabilities"].is_object() && header(asked, "mcp-session-id").is_none());
    match method(asked) {
        "tools/list" => reply(200, answer(asked, tools())),
        "tools/call" => {
            assert_eq!(header(asked, "mcp-name"), Some("web_search"));
            let mut result = found(asked);
            result["resultType"] = "complete".into();
            stream(&answer(asked, result))
        }
        other => panic!("nobody asks {other}"),
    }
}

/// A server of an earlier year, whose session is of a number.
fn earlier(asked: &Asked, revision: &str, session: usize) -> Response {
    let id = format!("session-{session}");
    if method(asked) == "initialize" {
        assert!(header(asked, "mcp-session-id").is_none());
        let result = json!({"protocolVersion": revision, "capabilities": {"tools": {}}, "serverInfo": {"name": "x", "version": "1"}});
        return reply_with(200, "mcp-session-id", &id, answer(asked, result).to_string());
    }
    match header(asked, "mcp-session-id") {
        None => {
            return reply(400, json!({"jsonrpc": "2.0", "id": "server-error", "error": {"code": -32600, "message": "Missing session ID"}}));
        }
        Some(said) if said != id => return reply(404, json!({"jsonrpc": "2.0", "id": "x", "error": {"code": -32600, "message": "gone"}})),
        Some(_) => {}
    }
    assert_eq!(header(asked, "mcp-protocol-version"), (revision != HANDSHAKES[2]).then_some(revision));
    match method(asked) {
        "notifications/initialized" => reply(202, ""),
        "tools/list" if asked.body["params"]["cursor"] == "2" => reply(200, answer(asked, tools())),
        "tools/list" => reply(200, answer(asked, json!({"tools": [{"name": "first", "inputSchema": {}}], "nextCursor": "2"}))),
        "tools/call" => stream(&answer(asked, found(asked))),
        "none" => reply(204, ""),
        other => panic!("nobody asks {other}"),
    }
}

fn methods(server: &Server) -> Vec<String> {
    server.asked().iter().map(|asked| method(asked).to_owned()).collect()
}

/// Waits for what comes soon.
async fn soon(is: impl Fn() -> bool) {
    for _ in 0..200 {
        if is() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it does not come");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_revision_without_sessions_is_spoken_as_it_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(|asked, _| stateless(asked)).await;
    let search = open(&with_key(asking("mcp", &server.url), folder.path()));
    for outcome in search.search(0, &texts(&["Lima", "Per\u{fa}", "a\nb"])).await {
        assert_eq!(outcome.expect("hits").len(), 1);
    }
    assert_eq!(find(&search, "once more").await.expect("hits")[0].title, "once more");
    assert_eq!(methods(&server).iter().filter(|method| *method == "tools/list").count(), 1, "asked once, however many wait");
    let call = server.asked().pop().expect("asked");
    assert_eq!(call.body["params"]["arguments"], json!({"limit": 10, "query": "once more"}));
    assert_eq!(
        (header(&call, "authorization"), header(&call, "accept")),
        (Some(&*format!("Bearer {KEY}")), Some("application/json, text/event-stream"))
    );
    assert_eq!(call.path, "/");
}

#[tokio::test(flavor = "multi_thread")]
async fn earlier_revisions_are_spoken_in_a_session_that_is_ended() {
    for revision in HANDSHAKES {
        let server = Server::start(move |asked, _| earlier(asked, revision, 1)).await;
        let mut config = asking("mcp", &format!("{}/mcp/", server.url));
        let search = open(&config);
        assert_eq!(find(&search, "Lima").await.expect("hits")[0].title, "Lima");
        assert_eq!(find(&search, "Cusco").await.expect("hits")[0].title, "Cusco");
        let handshake = ["initialize", "notifications/initialized", "tools/list", "tools/list", "tools/call", "tools/call"];
        let asked = methods(&server);
        assert_eq!((asked[0].as_str(), &asked[1..]), ("tools/list", &handshake.map(str::to_owned)[..]), "{revision}: 2026 first");
        assert!(server.asked().iter().all(|asked| asked.path == "/mcp/"), "the last slash is the server's");
        drop(search);
        soon(|| methods(&server).last().is_some_and(|method| method == "none")).await;
        assert_eq!(header(server.asked().last().expect("ended"), "mcp-session-id"), Some("session-1"));
        // Told which revision it is, nothing is tried.
        config.text.parameters = vec![format!("revision={revision}")];
        let before = server.asked().len();
        assert_eq!(find(&open(&config), "Lima").await.expect("hits").len(), 1);
        assert_eq!(methods(&server)[before], "initialize");
    }
    // A server that has another revision than the one that is offered, and says which.
    let server = Server::start(|asked, _| match asked.body["params"]["protocolVersion"].as_str() {
        Some("2025-11-25") => {
            let mut said = error(asked, -32602, "Unsupported protocol version");
            said["error"]["data"] = json!({"supported": ["2024-11-05", "2025-06-18"], "requested": "2025-11-25"});
            reply(400, said)
        }
        _ => earlier(asked, "2025-06-18", 1),
    })
    .await;
    assert_eq!(find(&open(&asking("mcp", &server.url)), "Lima").await.expect("hits").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_lost_is_begun_again_by_one_for_all() {
    let (number, begun) = (Arc::new(AtomicUsize::new(1)), Arc::new(AtomicUsize::new(0)));
    let (now, counted) = (number.clone(), begun.clone());
    let server = Server::start(move |asked, _| {
        counted.fetch_add(usize::from(method(asked) == "initialize"), Ordering::SeqCst);
        earlier(asked, HANDSHAKES[0], now.load(Ordering::SeqCst))
    })
    .await;
    let mut config = asking("mcp", &server.url);
    config.text.attempts = 1;
    let search = open(&config);
    assert!(find(&search, "before").await.is_ok());
    number.store(2, Ordering::SeqCst);
    let queries = texts(&["a", "b", "c", "d", "e"]);
    let outcomes = search.search(0, &queries).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(begun.load(Ordering::SeqCst), 2);
    // One that loses every session at once is given up.
    let server =
        Server::start(|asked, number| earlier(asked, HANDSHAKES[0], if method(asked) == "tools/call" { 1000 + number } else { 1 })).await;
    let error = find(&open(&config_of(&server.url)), "Lima").await.expect_err("lost again");
    assert!(error.fault == Fault::Refused && error.reason.contains("HTTP 404"), "{error}");
    assert_eq!(methods(&server).iter().filter(|method| *method == "initialize").count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_no_use_is_ended_and_not_begun_by_everybody() {
    let server = Server::start(|asked, _| match (method(asked), header(asked, "mcp-session-id")) {
        ("tools/list", Some(_)) => reply(200, answer(asked, json!({"tools": []}))),
        _ => earlier(asked, HANDSHAKES[0], 1),
    })
    .await;
    let search = open(&config_of(&server.url));
    for text in ["a", "b"] {
        let error = find(&search, text).await.expect_err("no tool");
        assert!(error.fault == Fault::Refused && error.reason.contains("it has none"), "{error}");
    }
    soon(|| methods(&server).iter().any(|method| method == "none")).await;
    assert_eq!(methods(&server).iter().filter(|method| *method == "initialize").count(), 1);
}

fn config_of(url: &str) -> SearchConfig {
    let mut config = asking("mcp", url);
    config.text.attempts = 1;
    config.text.attempt_s = 1.0;
    config
}

/// What becomes of one query at a server.
async fn failure(answers: impl Fn(&Asked) -> Response + Send + Sync + 'static) -> (Fault, String) {
    let server = Server::start(move |asked, _| answers(asked)).await;
    let error = find(&open(&config_of(&server.url)), "Lima").await.expect_err("a failure");
    (error.fault, error.reason)
}

/// What becomes of one query whose call is answered so, at a server of 2026 and at one of before.
async fn call_fails(fault: Fault, why: &str, answers: impl Fn(&Asked) -> Response + Clone + Send + Sync + 'static) {
    let other = answers.clone();
    let now = failure(move |asked| if method(asked) == "tools/call" { answers(asked) } else { stateless(asked) }).await;
    let before = failure(move |asked| {
        // What is asked of a session, and not to find out whether there is one.
        if method(asked) == "tools/call" { other(asked) } else { earlier(asked, HANDSHAKES[0], 1) }
    })
    .await;
    for (said, reason) in [now, before] {
        assert!(said == fault && reason.contains(why), "{why}: {}: {reason}", said.label());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_fail_are_told_apart() {
    let failed = |said: &'static str| {
        move |asked: &Asked| reply(200, answer(asked, json!({"isError": true, "content": [{"type": "text", "text": said}]})))
    };
    call_fails(Fault::Quota, "its tool failed: Not enough credits", failed("Not enough credits")).await;
    call_fails(Fault::Unavailable, "its tool failed: boom", failed("boom")).await;
    call_fails(Fault::Refused, "Unknown tool", |asked| reply(200, error(asked, -32602, "Unknown tool"))).await;
    call_fails(Fault::Refused, "error -32602: no", |asked| reply(400, error(asked, -32602, "no"))).await;
    call_fails(Fault::Unavailable, "error -32603: oops", |asked| reply(200, error(asked, -32603, "oops"))).await;
    call_fails(Fault::RateLimited, "HTTP 429", |_| reply_with(429, "retry-after", "3000", "")).await;
    call_fails(Fault::Refused, "HTTP 401", |_| reply(401, json!({"error": "invalid_token"}))).await;
    call_fails(Fault::Unavailable, "HTTP 503", |_| reply(503, "starting")).await;
    call_fails(Fault::Refused, "asks back", |asked| {
        reply(200, answer(asked, json!({"resultType": "input_required", "inputRequests": {}})))
    })
    .await;
    call_fails(Fault::Unavailable, "hits_at", |asked| reply(200, answer(asked, json!({"structuredContent": {"x": 1}})))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_answers_are_one_typed_failure_each() {
    let wrong = |asked: &Asked| json!({"jsonrpc": "2.0", "id": 77, "result": found(asked)});
    call_fails(Fault::Unavailable, "no answer to what was asked", move |asked| reply(200, wrong(asked))).await;
    call_fails(Fault::Unavailable, "ends without an answer", move |asked| stream(&wrong(asked))).await;
    call_fails(Fault::Unavailable, "no answer to what was asked", |_| reply(200, "[1]")).await;
    call_fails(Fault::Unavailable, "no JSON", |_| reply(200, "<html>")).await;
    call_fails(Fault::Unavailable, "compressed", |_| reply_with(200, "content-encoding", "gzip", vec![0x1f, 0x8b, 8, 0])).await;
    let endless = |piece: &str| {
        let piece = Bytes::from(piece.to_owned());
        move |kind: &'static str, pause: u64| {
            let piece = piece.clone();
            let drops = futures::stream::repeat(piece).then(move |piece| async move {
                tokio::time::sleep(Duration::from_millis(pause)).await;
                Ok::<_, std::io::Error>(piece)
            });
            reply_with(200, "content-type", kind, Body::from_stream(drops))
        }
    };
    let (comments, spaces) = (endless(": still there\n\n"), endless(&" ".repeat(65536)));
    let in_stream = spaces.clone();
    call_fails(Fault::Timeout, "no reply within 1.0 s", move |_| comments("text/event-stream", 50)).await;
    call_fails(Fault::Unavailable, "more than 8388608 bytes", move |_| spaces("application/json", 0)).await;
    call_fails(Fault::Unavailable, "more than 8388608 bytes", move |_| in_stream("text/event-stream", 0)).await;
    let elsewhere = Server::start(|_, _| reply(200, "{}")).await;
    let to = elsewhere.url.clone();
    call_fails(Fault::Unavailable, "the last slash", move |_| reply_with(307, "location", &to, "")).await;
    assert!(elsewhere.asked().is_empty(), "nobody is sent elsewhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_cannot_be_spoken_to_say_why_at_the_first_search() {
    let unsupported = |supported: Value| {
        move |asked: &Asked| {
            let mut said = error(asked, -32022, "Unsupported protocol version");
            said["error"]["data"] = json!({"supported": supported, "requested": "2026-07-28"});
            reply(400, said)
        }
    };
    let (fault, why) = failure(unsupported(json!(["2028-01-01"]))).await;
    assert!(fault == Fault::Refused && why.contains("Unsupported protocol version"), "{why}");
    let of_2024 = |asked: &Asked| earlier(asked, "2024-11-05", 1);
    let (fault, why) = failure(of_2024).await;
    assert!(fault == Fault::Refused && why.contains("it speaks MCP \"2024-11-05\", and we 2026-07-28"), "{why}");
    let (fault, why) = failure(|_| reply(404, "Not Found")).await;
    assert!(fault == Fault::Refused && why.contains("no server of MCP"), "{why}");
    let (fault, why) = failure(|asked| reply(200, answer(asked, json!({"tools": "none"})))).await;
    assert!(fault == Fault::Unavailable && why.contains("list of tools"), "{why}");
    let (fault, why) = failure(|asked| reply(200, answer(asked, json!({"tools": []})))).await;
    assert!(fault == Fault::Refused && why.contains("it has none"), "{why}");
    let odd = |asked: &Asked| match method(asked) {
        "initialize" => reply_with(200, "mcp-session-id", "a b", answer(asked, json!({"protocolVersion": HANDSHAKES[0]})).to_string()),
        _ => reply(400, ""),
    };
    let (fault, why) = failure(odd).await;
    assert!(fault == Fault::Unavailable && why.contains("no id that can be said back"), "{why}");
    // A server that is busy, away, or wants a key is not taken for one of another year.
    for status in [401, 403, 429, 500, 503] {
        let server = Server::start(move |_, _| reply(status, "{}")).await;
        let mut config = config_of(&server.url);
        config.deadline_s = 0.2;
        find(&open(&config), "Lima").await.expect_err("refused");
        assert!(!methods(&server).contains(&"initialize".to_owned()), "{status}");
    }
    // The key that a server says back is in no error.
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(|asked, _| match method(asked) {
        "tools/call" => stream(&error(asked, -32000, &format!("invalid key {KEY}"))),
        _ => stateless(asked),
    })
    .await;
    let said = find(&open(&with_key(config_of(&server.url), folder.path())), "Lima").await.expect_err("refused");
    assert!(said.reason.contains("invalid key") && !said.reason.contains(KEY), "{said}");
}

/// What passes is asked again, what is kept is not, and a server that lost its tool's argument is looked at once more.
#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_around_services_is_around_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let calls = AtomicUsize::new(0);
    let server = Server::start(move |asked, _| match method(asked) {
        "tools/call" => match calls.fetch_add(1, Ordering::SeqCst) {
            0 => reply(503, "{}"),
            1 => reply(400, error(asked, -32020, "Header mismatch")),
            _ => stateless(asked),
        },
        _ => stateless(asked),
    })
    .await;
    let mut config = asking("mcp", &server.url);
    config.cache.path = Some(folder.path().join("cache.redb"));
    config.budget.requests = 3;
    let search = open(&config);
    assert_eq!(find(&search, "Lima").await.expect("hits").len(), 1);
    assert_eq!(methods(&server), ["tools/list", "tools/call", "tools/call", "tools/list", "tools/call"]);
    assert_eq!(find(&search, "Lima").await.expect("kept").len(), 1);
    assert_eq!(server.asked().len(), 5);
    // Two requests are spent: what it takes to be understood is none.
    assert!(find(&search, "Cusco").await.is_ok());
    assert_eq!(find(&search, "Puno").await.expect_err("spent").fault, Fault::Quota);
}
