//! Services that are slow, gone, busy, or send what nobody asked for: one typed failure each, within the time that is given.

use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use futures::StreamExt;
use hypereyes_environment::Fault;
use hypereyes_search::BackEndConfig;
use serde_json::json;

use super::server::{Server, asking, find, open, reply, reply_with};

fn nothing() -> serde_json::Value {
    json!({"results": [], "unresponsive_engines": []})
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_is_asked_again_and_a_pause_is_kept() {
    let server = Server::start(|_, number| match number {
        1 => reply_with(429, "retry-after", "1", "{}"),
        2 => reply(500, "oops"),
        _ => reply(200, nothing()),
    })
    .await;
    let (search, began) = (open(&asking("searxng", &server.url)), Instant::now());
    assert_eq!(find(&search, "q").await, Ok(vec![]));
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(server.asked().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_pass_is_asked_once() {
    let server = Server::start(|_, _| reply(400, json!({"message": "bad"}))).await;
    assert_eq!(find(&open(&asking("searxng", &server.url)), "q").await.expect_err("refused").fault, Fault::Refused);
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_that_nobody_can_wait_for_ends_it_at_once() {
    let server = Server::start(|_, _| reply_with(429, "retry-after", "3000", "{}")).await;
    let config = asking("searxng", &server.url);
    let began = Instant::now();
    assert_eq!(find(&open(&config), "q").await.expect_err("busy").fault, Fault::RateLimited);
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_replies_are_one_typed_failure_each() {
    // A drip that never ends, a body that never ends, a bomb, a redirect, a page, half a reply.
    let endless = || futures::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 65536])));
    let slow = move || {
        endless().then(|chunk| async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            chunk.map(|chunk| chunk.slice(..1))
        })
    };
    let elsewhere = Server::start(|_, _| reply(200, nothing())).await;
    let to = elsewhere.url.clone();
    let server = Server::start(move |asked, _| {
        let of = |case: &str| asked.path.contains(&format!("q={case}&"));
        match () {
            () if of("drip") => reply_with(200, "x", "y", Body::from_stream(slow())),
            () if of("flood") => reply_with(200, "x", "y", Body::from_stream(endless())),
            () if of("bomb") => reply_with(200, "content-encoding", "gzip", vec![0x1f, 0x8b, 8, 0]),
            () if of("redirect") => reply_with(302, "location", &format!("{to}/search"), ""),
            () if of("page") => reply(200, "<html>busy</html>"),
            () if of("list") => reply(200, "[1]"),
            () if of("null") => reply(200, "null"),
            () => reply(200, json!({"results": {"a": 1}})),
        }
    })
    .await;
    let mut config = asking("searxng", &server.url);
    config.text = BackEndConfig { attempts: 1, attempt_s: 1.0, ..config.text };
    for (case, fault, why) in [
        ("drip", Fault::Timeout, "no reply within 1.0 s"),
        ("flood", Fault::Unavailable, "more than"),
        ("bomb", Fault::Unavailable, "compressed"),
        ("redirect", Fault::Unavailable, "HTTP 302"),
        ("page", Fault::Unavailable, "no JSON"),
        ("list", Fault::Unavailable, "no JSON object"),
        ("null", Fault::Unavailable, "no JSON object"),
        ("other", Fault::Unavailable, "no list"),
    ] {
        // A fresh one for each: several failures in a row would open its breaker.
        let error = find(&open(&config), case).await.expect_err(case);
        assert!(error.fault == fault && error.reason.contains(why), "{case}: {error}");
    }
    assert_eq!(elsewhere.asked().len(), 0, "nobody is sent elsewhere");
    let gone = find(&open(&asking("searxng", "http://127.0.0.1:9")), "q").await.expect_err("gone");
    assert!(gone.fault == Fault::Unavailable && gone.reason.contains("cannot be asked"), "{gone}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_fails_again_and_again_is_left_alone_and_another_is_asked() {
    let broken = Server::start(|_, _| reply(500, "oops")).await;
    let works = Server::start(|_, _| reply(200, json!({"results": [{"title": "found"}]}))).await;
    let mut config = asking("searxng", &broken.url);
    config.text.attempts = 1;
    config.text.fallbacks = vec![BackEndConfig { backend: "searxng".into(), url: works.url.clone(), ..BackEndConfig::default() }];
    let search = open(&config);
    for number in 0..10 {
        assert_eq!(find(&search, &format!("q{number}")).await.expect("found")[0].title, "found");
    }
    assert_eq!((broken.asked().len(), works.asked().len()), (3, 10), "three failures in a row are enough");
    // What is refused is refused: another service would answer another question.
    let refuses = Server::start(|_, _| reply(400, "{}")).await;
    config.text.url = refuses.url.clone();
    assert_eq!(find(&open(&config), "q").await.expect_err("refused").fault, Fault::Refused);
    assert_eq!(works.asked().len(), 10);
}

/// Being early is no failure of a query, however often it happens, and everybody waits while one must.
#[tokio::test(flavor = "multi_thread")]
async fn a_busy_service_is_asked_again_as_long_as_somebody_waits() {
    let server = Server::start(|_, number| if number <= 6 { reply(429, "{}") } else { reply(200, nothing()) }).await;
    let mut config = asking("searxng", &server.url);
    config.text.attempts = 1;
    let search = open(&config);
    let outcomes = futures::future::join_all(["a", "b", "c"].map(|text| find(&search, text))).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_wants_to_be_left_alone_leaves_time_for_another() {
    let busy = Server::start(|_, _| reply_with(429, "retry-after", "3000", "{}")).await;
    let works = Server::start(|_, _| reply(200, json!({"results": [{"title": "found"}]}))).await;
    let mut config = asking("searxng", &busy.url);
    config.deadline_s = 20.0;
    config.text.fallbacks = vec![BackEndConfig { backend: "searxng".into(), url: works.url.clone(), ..BackEndConfig::default() }];
    let (search, began) = (open(&config), Instant::now());
    for text in ["a", "b"] {
        assert_eq!(find(&search, text).await.expect("found")[0].title, "found");
    }
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(busy.asked().len(), 1, "the second is not even sent there");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_go_to_those_who_read_them() {
    let server = Server::start(|asked, _| {
        assert_eq!(asked.path, "/extract");
        reply(200, json!({"results": [{"url": "https://x", "raw_content": "all of it"}]}))
    })
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("key");
    std::fs::write(&key, "some-key").expect("written");
    let mut config = asking("searxng", "http://127.0.0.1:9");
    let page = [hypereyes_environment::Query::Page("https://x".into())];
    let error = open(&config).search(0, &page).await.remove(0).expect_err("nobody reads");
    assert!(error.fault == Fault::Refused && error.reason.contains("reads pages"), "{error}");
    let tavily = BackEndConfig { backend: "tavily".into(), url: server.url.clone(), api_key_file: Some(key), ..BackEndConfig::default() };
    config.text.fallbacks = vec![tavily];
    assert_eq!(open(&config).search(0, &page).await.remove(0).expect("read")[0].content, "all of it");
}
