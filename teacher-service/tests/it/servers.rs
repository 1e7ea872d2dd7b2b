//! Teachers elsewhere: another teacher service, and real HTTP servers that speak SGLang's and vLLM's protocols: well, slowly, in
//! pieces, wrongly, and not at all. A server's own numbers come from the tokens, so that what arrives can be told from what was made
//! up.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use crate::support::{PATIENCE, Running, model, parts, picture, plain};
use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hypereyes_domain::{ModelState, Question, ScoreSequence};
use hypereyes_teacher_service::Config;
use serde_json::{Value, json};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::Routes;
use tonic::transport::Server;

/// What a server does with request number `n`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    Well,
    Busy,
    Refusing,
    Slow,
    Cut,
    Short,
    OtherTokens,
    OtherPictures,
    Nulls,
}

/// The log-prob that a server gives a token.
fn word(token: u64) -> f64 {
    -0.01 * (token as f64 + 1.0)
}

/// The placeholder of pictures of the tiny models.
fn pad() -> u32 {
    static PAD: LazyLock<u32> = LazyLock::new(|| {
        let words = tempfile::tempdir().expect("a temporary folder");
        parts(words.path(), 1, &["Peru", "Lima"]).0.image_token_id
    });
    *PAD
}

/// Placeholders of a picture of 64 x 64.
const PADS: usize = 4;

/// The ids that a server reads: of each picture one placeholder comes, and it makes four of it.
fn expanded(ids: &Value) -> Vec<u64> {
    let ids = ids.as_array().expect("ids").iter().map(|id| id.as_u64().expect("a number"));
    ids.flat_map(|id| std::iter::repeat_n(id, if id == u64::from(pad()) { PADS } else { 1 })).collect()
}

fn sglang(body: &Value, mood: Mood) -> Value {
    let ids = expanded(&body["input_ids"]);
    let from = body["logprob_start_len"].as_u64().expect("a number") as usize;
    let mut own: Vec<Value> = ids[from..].iter().map(|id| json!([word(*id), id, null])).collect();
    own[0][0] = Value::Null;
    let top = body["top_logprobs_num"].as_u64().expect("a number");
    let tops: Vec<Value> = own.iter().map(|_| (0..top).map(|id| json!([word(id), id, null])).collect()).collect();
    match mood {
        Mood::Short => own.truncate(1),
        Mood::OtherTokens => own.iter_mut().for_each(|entry| entry[1] = json!(0)),
        Mood::Nulls => own.iter_mut().for_each(|entry| entry[0] = Value::Null),
        _ => {}
    }
    let prompt_tokens = ids.len() + usize::from(mood == Mood::OtherPictures);
    json!({"text": "", "meta_info": {"input_token_logprobs": own, "input_top_logprobs": tops, "prompt_tokens": prompt_tokens}})
}

fn vllm(body: &Value, mood: Mood) -> Value {
    let ids = expanded(&body["token_ids"]);
    let params = &body["sampling_params"];
    assert_eq!((body["model"].as_str(), params["max_tokens"].as_u64()), (Some("big"), Some(1)));
    let pictures = body["content_parts"].as_array().map_or(0, Vec::len);
    assert_eq!(pictures * PADS, ids.iter().filter(|id| **id == u64::from(pad())).count());
    let named = |id: &u64| match params["prompt_logprobs"].as_u64() {
        Some(0) => json!({id.to_string(): {"logprob": word(*id), "rank": 1}}),
        _ => json!({id.to_string(): {"logprob": word(*id), "rank": 1}, "999": {"logprob": -9.0}}),
    };
    let mut all: Vec<Value> = ids.iter().map(named).collect();
    all[0] = Value::Null;
    match mood {
        Mood::Short => all.truncate(1),
        Mood::OtherTokens => all.iter_mut().for_each(|entry| *entry = json!({"999": {"logprob": -9.0}})),
        Mood::Nulls => all.iter_mut().for_each(|entry| *entry = Value::Null),
        _ => {}
    }
    let read = if mood == Mood::OtherPictures { json!([1, 2]) } else { json!(ids) };
    json!({"choices": [], "prompt_logprobs": all, "prompt_token_ids": read})
}

/// A server whose mood depends on how many requests came before.
async fn serve(answer: fn(&Value, Mood) -> Value, mood: impl Fn(usize, &Value) -> Mood + Send + Sync + 'static) -> SocketAddr {
    let (count, mood) = (Arc::new(AtomicUsize::new(0)), Arc::new(mood));
    let handler = move |body: Bytes| {
        let (count, mood) = (count.clone(), mood.clone());
        async move {
            let body: Value = serde_json::from_slice(&body).expect("JSON comes");
            let mood = mood(count.fetch_add(1, Ordering::SeqCst), &body);
            let text = answer(&body, mood).to_string();
            let response: Response = match mood {
                Mood::Busy => StatusCode::SERVICE_UNAVAILABLE.into_response(),
                Mood::Refusing => StatusCode::BAD_REQUEST.into_response(),
                Mood::Cut => text[..text.len() / 2].to_owned().into_response(),
                Mood::Slow => {
                    tokio::time::sleep(Duration::from_secs(5)).await;
                    text.into_response()
                }
                _ => text.into_response(),
            };
            response
        }
    };
    let routes = Router::new().route("/generate", post(handler.clone())).route("/inference/v1/generate", post(handler));
    listen(routes).await
}

/// Serves `routes` over HTTP/1.1. With tonic's server: axum's own would need features that the product has not, and everything would be
/// built twice for them.
async fn listen(routes: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let server = Server::builder().accept_http1(true).add_routes(Routes::from(routes));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

/// The mood while golden prompts are asked, and then another.
fn after_golden(golden: usize, then: Mood) -> impl Fn(usize, &Value) -> Mood {
    move |number, _| if number < golden { Mood::Well } else { then }
}

fn expected(sequence: &ScoreSequence) -> Vec<f32> {
    let wanted = sequence.response.iter().zip(&sequence.mask).filter(|(_, wanted)| **wanted);
    wanted.map(|(token, _)| word(u64::from(*token)) as f32).collect()
}

fn source(running: &Running, kind: &str, address: SocketAddr) -> String {
    let tokenizer = running.folder.path().join("a").display().to_string();
    let more = if kind == "vllm" { "&model=big" } else { "" };
    format!("{kind}+http://{address}?tokenizer={tokenizer}{more}")
}

/// What a server answers.
type Answers = fn(&Value, Mood) -> Value;

/// Golden prompts of each kind of server.
const GOLDEN: [(&str, Answers, usize); 2] = [("sglang", sglang, 3), ("vllm", vllm, 3)];

#[tokio::test(flavor = "multi_thread")]
async fn servers_of_both_kinds_are_asked_with_token_ids() {
    let service = Running::start(Config::default()).await;
    let asked = [plain(0), plain(1)];
    for (kind, answer, _) in GOLDEN {
        let address = serve(answer, |_, _| Mood::Well).await;
        let info = service.load(kind, &source(&service, kind, address)).await.expect("loads");
        let card = info.card.expect("verified");
        // A server that answers from tokens alone does not see; ours says so.
        assert!(!card.sighted && card.bytes == 0, "{card:?}");
        let (version, answers) = service.score(&asked, Some(kind)).await.expect("answers");
        assert_eq!(version.id.as_str(), kind);
        assert_eq!(answers, [expected(&asked[0]), expected(&asked[1])]);
        let question = Question { teacher: Some(kind.into()), top: 1, ..Question::new("t@1".into(), asked.to_vec()) };
        let (_, named) = service.peer.ask(&question, PATIENCE).await.expect("answers");
        assert_eq!(named[0].top.len(), 2, "one at each of two tokens");
        let hot = Question { temperature: 2.0, ..question };
        assert!(service.peer.ask(&hot, PATIENCE).await.expect_err("not there").message.contains("temperature"));
    }
    // Pictures go as they are, in order, each with one placeholder.
    let picture = picture(1, 64, 64);
    service.put(std::slice::from_ref(&picture)).await;
    let prompt = [vec![1], vec![pad(); PADS], vec![2]].concat();
    let with = ScoreSequence { prompt, pictures: vec![picture.id.clone()], ..plain(0) };
    for (kind, answer, _) in GOLDEN {
        let seen = Arc::new(AtomicUsize::new(0));
        let count = seen.clone();
        let address = serve(answer, move |_, body| {
            let pictures = if body["image_data"].is_null() { &body["content_parts"] } else { &body["image_data"] };
            count.fetch_max(pictures.as_array().map_or(0, Vec::len), Ordering::SeqCst);
            Mood::Well
        })
        .await;
        let name = format!("{kind}-eyes");
        service.load(&name, &source(&service, kind, address)).await.expect("loads");
        let (_, scored) = service.score(std::slice::from_ref(&with), Some(&name)).await.expect("answers");
        assert_eq!((scored, seen.load(Ordering::SeqCst)), (vec![expected(&with)], 1));
        let bare = ScoreSequence { pictures: vec![], ..with.clone() };
        let refused = service.score(&[bare], Some(&name)).await.expect_err("a placeholder without a picture");
        assert!(refused.message().contains("has no picture"), "{refused}");
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_else_a_server_says_is_no_answer() {
    let service = Running::start(Config::default()).await;
    for (kind, answer, golden) in GOLDEN {
        for (mood, part) in [
            (Mood::Refusing, "400"),
            (Mood::Cut, "no JSON"),
            (Mood::Short, "entries"),
            (Mood::OtherTokens, if kind == "vllm" { "no log-prob" } else { "token 0" }),
            (Mood::OtherPictures, "expands pictures otherwise"),
            (Mood::Nulls, "no log-prob"),
            (Mood::Busy, "503"),
        ] {
            let name = format!("{kind}-{mood:?}");
            let address = serve(answer, after_golden(golden, mood)).await;
            service.load(&name, &source(&service, kind, address)).await.expect("golden prompts pass");
            let error = service.score(&[plain(0)], Some(&name)).await.expect_err(&name);
            assert!(error.message().contains(part), "{name}: {error}");
            // A server that is that way from the beginning is not let in.
            let address = serve(answer, move |_, _| mood).await;
            let error = service.load("never", &source(&service, kind, address)).await.expect_err(&name);
            assert!(error.message.contains("golden prompt"), "{name}: {error}");
            service.peer.retire(&name.as_str().into(), PATIENCE).await.expect("retires");
        }
        // One that is busy for a moment is asked again.
        let address = serve(answer, move |number, _| if number % 2 == 0 { Mood::Busy } else { Mood::Well }).await;
        service.load(kind, &source(&service, kind, address)).await.expect("loads");
        assert_eq!(service.score(&[plain(0)], Some(kind)).await.expect("answers").1, [expected(&plain(0))]);
        // One that is late is late.
        let address = serve(answer, after_golden(golden, Mood::Slow)).await;
        let slow = format!("{kind}-slow");
        service.load(&slow, &source(&service, kind, address)).await.expect("loads");
        let question = Question { teacher: Some(slow.as_str().into()), ..Question::new("t@1".into(), vec![plain(0)]) };
        let error = service.peer.ask(&question, Duration::from_millis(300)).await.expect_err("too late");
        assert!(!error.refused, "{error}");
        // And one that is gone is unreachable.
        let error = service.load("gone", &source(&service, kind, "127.0.0.1:1".parse().expect("an address"))).await.expect_err("nobody");
        assert!(error.message.contains("no answer"), "{error}");
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_registry_serves_models_of_other_services() {
    let (front, back) = (Running::start(Config::default()).await, Running::start(Config::default()).await);
    model(&back.folder.path().join("b"), 2, &["Peru", "Lima"]);
    back.load("b", "b").await.expect("loads");
    back.peer.promote(&"b".into(), PATIENCE).await.expect("promotes");
    let info = front.load("green", &format!("grpc://{}", back.address)).await.expect("reaches it");
    let card = info.card.expect("verified over there");
    assert!(card.sighted && card.bytes == 0 && card.digest.len() == 64, "{card:?}");
    front.peer.promote(&"green".into(), PATIENCE).await.expect("promotes");
    let picture = picture(1, 64, 64);
    let pads = hypereyes_chat::Chat::load(&front.folder.path().join("a")).expect("a folder");
    let patches = pads.processor().patches(&picture.image);
    let prompt = pads.prompt("", "What is it?", &[patches.grid]).expect("a prompt");
    let with = ScoreSequence { prompt, pictures: vec![picture.id.clone()], ..plain(0) };
    front.put(std::slice::from_ref(&picture)).await;
    let (version, answers) = front.score(std::slice::from_ref(&with), None).await.expect("the picture is handed on");
    assert_eq!((version.id.as_str(), version.revision), ("green", 2));
    back.put(std::slice::from_ref(&picture)).await;
    assert_eq!(answers, back.score(&[with], Some("b")).await.expect("scores").1);
    // A promotion over there does not change what the name stands for here.
    back.peer.promote(&"a".into(), PATIENCE).await.expect("promotes");
    let again = front.score(&[plain(1)], None).await.expect("scores");
    assert_eq!(again.1, back.score(&[plain(1)], Some("b")).await.expect("scores").1);
    back.stop().await;
    let error = front.score(&[plain(2)], None).await.expect_err("nobody is there");
    assert!(error.message().contains("no answer"), "{error}");
    front.peer.promote(&"a".into(), PATIENCE).await.expect("going back works without it");
    assert_eq!(front.ask(Question::new("t@9".into(), vec![plain(0)])).await.expect("scores").0.id.as_str(), "a");
    front.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn models_come_from_object_stores() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = folder.path().join("store");
    let service = Running::start(Config { store: Some(store), ..Config::default() }).await;
    let files = service.folder.path().join("a");
    let file = move |axum::extract::Path(name): axum::extract::Path<String>| {
        let files = files.clone();
        async move {
            match std::fs::read(files.join(name)) {
                Ok(bytes) => ([("etag", "\"1\""), ("last-modified", "Thu, 26 Nov 2026 00:00:00 GMT")], bytes).into_response(),
                Err(_) => StatusCode::NOT_FOUND.into_response(),
            }
        }
    };
    let routes = Router::new().route("/models/v1/{name}", get(file));
    let address = listen(routes).await;
    let info = service.load("far", &format!("http://{address}/models/v1")).await.expect("is fetched");
    assert_eq!(info.state, ModelState::Ready);
    let near = service.peer.roster(PATIENCE).await.expect("lists").models[0].card.clone();
    assert_eq!(info.card.map(|card| card.digest), near.map(|card| card.digest), "the same files");
    assert_eq!(
        service.score(&[plain(0)], Some("far")).await.expect("scores").1,
        service.score(&[plain(0)], Some("a")).await.expect("scores").1
    );
    let missing = service.load("missing", &format!("http://{address}/models/v2")).await.expect_err("nothing is there");
    assert!(missing.message.contains("config.json"), "{missing}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_sends_on_only_to_where_the_settings_allow() {
    let files = tempfile::tempdir().expect("a temporary folder");
    model(files.path(), 1, &["Peru", "Lima"]);
    let asked = Arc::new(AtomicUsize::new(0));
    let (folder, count) = (files.path().to_owned(), asked.clone());
    let file = move |axum::extract::Path(name): axum::extract::Path<String>| {
        let (folder, count) = (folder.clone(), count.clone());
        async move {
            count.fetch_add(1, Ordering::SeqCst);
            match std::fs::read(folder.join(name)) {
                Ok(bytes) => ([("etag", "\"1\""), ("last-modified", "Thu, 26 Nov 2026 00:00:00 GMT")], bytes).into_response(),
                Err(_) => StatusCode::NOT_FOUND.into_response(),
            }
        }
    };
    let store = listen(Router::new().route("/files/{name}", get(file))).await;
    let on = move |axum::extract::Path(name): axum::extract::Path<String>| async move {
        (StatusCode::FOUND, [("location", format!("http://{store}/files/{name}"))]).into_response()
    };
    let front = listen(Router::new().route("/model/{name}", get(on))).await;

    let scratch = tempfile::tempdir().expect("a temporary folder");
    let config = |name: &str| Config { store: Some(scratch.path().join(name)), ..Config::default() };
    let strict = Running::start(config("strict")).await;
    let error = strict.load("far", &format!("http://{front}/model")).await.expect_err("nobody said that it may");
    assert!(error.message.contains("redirect"), "{error}");
    assert_eq!(asked.load(Ordering::SeqCst), 0, "it was not even asked");
    strict.stop().await;

    let wide = Running::start(Config { redirects: vec![format!("http://{store}")], ..config("wide") }).await;
    let info = wide.load("far", &format!("http://{front}/model")).await.expect("the settings name it");
    assert_eq!(info.state, ModelState::Ready);
    wide.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_peer_names_leads_to_no_private_address() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    model(&folder.path().join("a"), 1, &["Peru", "Lima"]);
    let first = folder.path().join("a").display().to_string();
    // Whoever listens here is never reached.
    let silent = tokio::net::TcpListener::bind("0.0.0.0:0").await.expect("a free port");
    let port = silent.local_addr().expect("it is bound").port();
    let store = Some(folder.path().join("store"));
    let service = Running::serve(folder, Config { model: first, store, hosts: vec!["named.example".into()], ..Config::default() }).await;
    for host in ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254", "10.0.0.1"]
    {
        for source in [
            format!("http://{host}:{port}/model"),
            format!("grpc://{host}:{port}"),
            format!("sglang+http://{host}:{port}?tokenizer={}", service.folder.path().join("a").display()),
        ] {
            let error = service.load("x", &source).await.expect_err(&source);
            assert!(error.refused && error.message.contains("not public"), "{source}: {error}");
        }
    }
    let reached = tokio::time::timeout(Duration::from_millis(200), silent.accept()).await;
    assert!(reached.is_err(), "{reached:?}");
    service.stop().await;
}
