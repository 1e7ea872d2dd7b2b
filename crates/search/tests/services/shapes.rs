//! Each service asked as it is documented: its path, its key in its place, its hits.

use axum::response::Response;
use hypereyes_environment::Fault;
use hypereyes_search::SearchConfig;
use serde_json::{Value, json};

use super::server::{Asked, Server, asking, find, open, reply, texts, try_open};

/// A key that is planted, and searched for everywhere.
pub const KEY: &str = "planted-key-3c1f";

/// Settings with a key in a file.
pub fn with_key(mut config: SearchConfig, folder: &std::path::Path) -> SearchConfig {
    let path = folder.join("key");
    std::fs::write(&path, format!("{KEY}\n")).expect("written");
    config.text.api_key_file = Some(path);
    config
}

fn good(asked: &Asked) -> Value {
    let hit = json!({"title": "Lima", "url": "https://x/l", "link": "https://x/l", "snippet": "the capital", "content": "the capital", "description": "the capital"});
    match asked.path.split('?').next().expect("a path") {
        "/search" if asked.body.get("q").is_some() => json!({"organic": [hit]}),
        "/search.json" => json!({"search_metadata": {"status": "Success"}, "organic_results": [hit]}),
        "/res/v1/web/search" => json!({"web": {"results": [hit]}}),
        "/search" => json!({"results": [hit], "unresponsive_engines": []}),
        "/retrieve" => {
            let many = asked.body["queries"].as_array().expect("a list").len();
            json!({"result": vec![json!([{"document": {"contents": "\"Lima\"\nthe capital", "url": "https://x/l"}, "score": 0.9}]); many]})
        }
        other => panic!("nobody asks {other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_service_is_asked_and_read_with_its_key_in_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(|asked, _| reply(200, good(asked))).await;
    for (backend, place) in [
        ("serper", "x-api-key"),
        ("serpapi", "?"),
        ("brave", "x-subscription-token"),
        ("tavily", "authorization"),
        ("searxng", "authorization"),
        ("retriever", "authorization"),
    ] {
        let search = open(&with_key(asking(backend, &server.url), folder.path()));
        let hits = find(&search, " capital of\nPeru ").await.unwrap_or_else(|error| panic!("{backend}: {error}"));
        assert_eq!(
            (hits[0].title.as_str(), hits[0].content.as_str(), hits[0].url.as_deref()),
            ("Lima", "the capital", Some("https://x/l"))
        );
        let asked = server.asked().pop().expect("asked");
        let sent = asked.headers.get(place).and_then(|value| value.to_str().ok()).unwrap_or(&asked.path);
        assert!(sent.contains(KEY), "{backend} sends no key in {place}");
        assert_eq!(asked.path.contains(KEY), place == "?", "{backend}");
        let said = format!("{} {}", asked.path, asked.body);
        assert!(said.contains("capital of Peru") || said.contains("capital+of+Peru"), "{said}");
    }
    // Many texts are one request where a service takes many.
    let before = server.asked().len();
    let search = open(&asking("retriever", &server.url));
    let found = search.search(0, &texts(&["a", "b", "c"])).await;
    assert_eq!((found.iter().filter(|outcome| outcome.is_ok()).count(), server.asked().len() - before), (3, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_its_key_is_refused_by_name_before_anything_is_asked() {
    for (backend, variable) in
        [("serper", "SERPER_API_KEY"), ("serpapi", "SERPAPI_API_KEY"), ("brave", "BRAVE_API_KEY"), ("tavily", "TAVILY_API_KEY")]
    {
        let error = try_open(&asking(backend, "http://127.0.0.1:9")).map(|_| ()).expect_err("no key");
        assert!(error.starts_with("text.api_key_env") && error.contains(variable), "{error}");
    }
    let mut config = asking("serper", "http://127.0.0.1:9");
    config.text.api_key_env = "sk-the-key-itself".into();
    let error = try_open(&config).map(|_| ()).expect_err("no name");
    assert!(error.contains("never holds the key itself") && !error.contains("sk-the"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn documented_refusals_are_told_apart() {
    let folder = tempfile::tempdir().expect("a folder");
    let cases: [(&str, u16, Value, Fault); 12] = [
        ("serper", 403, json!({"message": "Unauthorized.", "statusCode": 403}), Fault::Refused),
        ("serper", 400, json!({"message": "Not enough credits", "statusCode": 400}), Fault::Quota),
        ("serper", 429, json!({"message": "Too many requests"}), Fault::RateLimited),
        ("serpapi", 429, json!({"error": "Your account has run out of searches."}), Fault::Quota),
        ("serpapi", 429, json!({"error": "You are exceeding your hourly throughput limit."}), Fault::RateLimited),
        ("serpapi", 401, json!({"error": format!("Invalid API key: {KEY}")}), Fault::Refused),
        ("tavily", 432, json!({"detail": {"error": "plan limit"}}), Fault::Quota),
        ("tavily", 401, json!({"detail": {"error": "unauthorized"}}), Fault::Refused),
        ("brave", 429, json!({"error": {"message": "rate"}}), Fault::RateLimited),
        ("searxng", 403, json!(null), Fault::Refused),
        ("retriever", 422, json!({"detail": [{"msg": "field required"}]}), Fault::Refused),
        ("retriever", 503, json!({"detail": "loading"}), Fault::Unavailable),
    ];
    for (backend, status, body, fault) in cases {
        let said = body.clone();
        let server = Server::start(move |_, _| -> Response { reply(status, &said) }).await;
        let mut config = with_key(asking(backend, &server.url), folder.path());
        config.text.attempts = 1;
        // What comes too early is asked again as long as somebody waits.
        config.deadline_s = 2.0;
        let error = find(&open(&config), "q").await.expect_err("refused");
        assert_eq!(error.fault, fault, "{backend} {status} {body}: {error}");
        assert!(error.reason.contains(&format!("{backend}: HTTP {status}")) && !error.reason.contains(KEY), "{error}");
    }
}
