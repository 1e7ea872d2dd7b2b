//! The world behind a port: whoever asks it there finds what is found in process, to the last bit.

use std::sync::Arc;

use hypereyes_environment::{Fault, Outcome, Query, Search};
use hypereyes_search::{BackEndConfig, EmbeddedSearch, SearchConfig, serve};
use hypereyes_world::World;
use serde_json::json;

use super::server::{Server, asking, find, open, texts};

fn side(backend: &str, url: &str) -> BackEndConfig {
    BackEndConfig { backend: backend.into(), url: url.into(), ..BackEndConfig::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_query_finds_the_same_in_every_layer() {
    let world = Arc::new(World::embedded().expect("sound"));
    let here: Arc<dyn Search> = Arc::new(EmbeddedSearch::new(world.clone()));
    let server = Server::of(serve::router(here.clone()), Arc::default()).await;
    let there = open(&SearchConfig { text: side("http", &server.url), image: side("http", &server.url), ..SearchConfig::default() });
    let picture = Arc::new(world.picture(&"mx".into()).expect("has one").clone());
    let queries = [
        Query::Text("Mexico currency".into()),
        Query::Page("Mexico".into()),
        Query::Page("Atlantis".into()),
        Query::Picture(picture),
        Query::Text("capital of Japan".into()),
    ];
    for layer in [0, 7, 1_000_001] {
        assert_eq!(there.search(layer, &queries).await, here.search(layer, &queries).await, "layer {layer}");
    }
    // Search-R1's shape has texts alone, and layer 0.
    let retriever = open(&asking("retriever", &server.url));
    let (found, known) =
        (find(&retriever, "Mexico currency").await.expect("hits"), here.search(0, &queries[..1]).await.remove(0).expect("hits"));
    let told = |hits: &[hypereyes_environment::Hit]| {
        hits.iter().map(|hit| (hit.title.clone(), hit.content.clone(), hit.score)).collect::<Vec<_>>()
    };
    assert_eq!(told(&found), told(&known));
}

/// Fails in the way that a query names.
pub struct Fails;

impl Search for Fails {
    fn search<'a>(&'a self, _: u64, queries: &'a [Query]) -> hypereyes_environment::SearchFuture<'a> {
        let one = |query: &Query| -> Outcome {
            let Query::Text(text) = query else { return Ok(vec![]) };
            match Fault::ALL.into_iter().find(|fault| fault.label() == text) {
                Some(fault) => Err(query.failed(fault, "as asked")),
                None => Ok(vec![]),
            }
        };
        Box::pin(async move { queries.iter().map(one).collect() })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_keep_their_kind_on_the_way_and_bad_questions_are_refused() {
    let server = Server::of(serve::router(Arc::new(Fails)), Arc::default()).await;
    let search = open(&asking("http", &server.url));
    let labels: Vec<&str> = Fault::ALL.iter().map(|fault| fault.label()).chain(["fine"]).collect();
    let outcomes = search.search(0, &texts(&labels)).await;
    let faults: Vec<_> = outcomes.iter().map(|outcome| outcome.as_ref().err().map(|error| error.fault)).collect();
    assert_eq!(faults, Fault::ALL.into_iter().map(Some).chain([None]).collect::<Vec<_>>());
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let post = async |path: &str, body: serde_json::Value| {
        let reply = client.post(format!("{}{path}", server.url)).body(body.to_string()).send().await.expect("answers");
        (reply.status().as_u16(), reply.text().await.expect("a body"))
    };
    for (path, body, why) in [
        ("/search", json!({"queries": [{"text": "a", "page": "b"}], "hits": 3}), "expected"),
        ("/search", json!({"queries": [{"picture": "?"}], "hits": 3}), "queries[0]: no base64"),
        ("/search", json!({"queries": [{"picture": "aGVsbG8="}], "hits": 3}), "queries[0]: "),
        ("/search", json!({"queries": vec![json!({"text": "a"}); 257], "hits": 3}), "one request takes 256"),
        ("/layers/3/search", json!({"query": "a"}), "unknown field"),
        ("/retrieve", json!({"topk": 3}), "missing field"),
    ] {
        let (status, said) = post(path, body).await;
        assert!(status == 422 && said.contains(why), "{path}: {status} {said}");
    }
    assert_eq!(post("/retrieve", json!({"queries": ["quota"]})).await.0, 402, "no word for one query's failure: all of it fails");
    let page = client.post(format!("{}/search", server.url)).header("origin", "https://evil.example").body("{}");
    assert_eq!(page.send().await.expect("answers").status(), 403, "a page in a browser may not spend");
    assert_eq!(post("/search", json!({"queries": [], "hits": 3})).await, (200, r#"{"results":[]}"#.to_owned()));
}

/// Fifty processes that ask one server, which asks a service that counts.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_who_ask_one_server_keep_to_its_rate_and_its_budget() {
    const RATE: usize = 100;
    const PAID: usize = 150;
    let folder = tempfile::tempdir().expect("a folder");
    let service = Server::start(|_, _| super::server::reply(200, json!({"results": [{"title": "t", "content": "c"}]}))).await;
    let mut config = asking("searxng", &service.url);
    config.text.per_second = RATE as f64;
    config.cache.path = Some(folder.path().join("cache.redb"));
    config.budget.requests = PAID as u64;
    assert!(config.wants_one_server());
    let server = Server::of(serve::router(open(&config)), Arc::default()).await;
    let through = config.through(&server.url);
    let began = std::time::Instant::now();
    let asked = (0..50).map(async |actor| {
        let search = open(&through);
        let texts: Vec<Query> = (0..4).map(|number| Query::Text(format!("q{actor} {number}"))).collect();
        futures::future::join_all(texts.chunks(2).map(|some| search.search(0, some))).await.concat()
    });
    let outcomes = futures::future::join_all(asked).await.concat();
    let took = began.elapsed().as_secs_f64();
    let faults: Vec<Fault> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).map(|error| error.fault).collect();
    assert_eq!((outcomes.len(), faults.len(), service.asked().len()), (200, 200 - PAID, PAID));
    assert!(faults.iter().all(|fault| *fault == Fault::Quota), "{faults:?}");
    println!("{PAID} requests in {took:.2} s, at {RATE} a second");
    assert!(took >= (PAID - 1) as f64 / RATE as f64, "{took}");
}
