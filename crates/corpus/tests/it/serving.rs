//! A corpus behind the HTTP shapes: texts, pictures and pages of layer 0, and nothing of another.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hypereyes_corpus::Corpus;
use hypereyes_environment::{Fault, Query, Search};
use hypereyes_pictures::encode_png;
use hypereyes_search::serve::Server;
use serde_json::{Value, json};

use crate::rig::{built, file, picture, pictures, sight};

fn corpus(folder: &std::path::Path) -> Corpus {
    let rows: Vec<String> = (0..30)
        .map(|at| {
            json!({"title": format!("Peak {at}"), "text": format!("mountain{at} is high"), "url": format!("https://x.test/{at}")})
                .to_string()
        })
        .collect();
    let documents = file(folder, "rows.jsonl", rows.join("\n"));
    let out = folder.join("index");
    built(&[&documents], Some(&pictures(folder, 8)), &out).expect("builds");
    Corpus::open(&out, sight).expect("opens")
}

async fn posted(url: &str, path: &str, body: Value) -> (u16, Value) {
    let answer = reqwest::Client::new().post(format!("{url}{path}")).json(&body).send().await.expect("answers");
    let status = answer.status().as_u16();
    (status, answer.json().await.expect("JSON"))
}

#[tokio::test]
async fn texts_pictures_and_pages_are_asked_over_http() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let corpus = corpus(folder.path());
    let server = Server::bind("127.0.0.1:0".parse().expect("an address")).await.expect("listens");
    let url = format!("http://{}", server.address());
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve(Arc::new(corpus), async move { drop(ended.await) }));
    let shown = STANDARD.encode(encode_png(&picture(5)).expect("encodes"));
    let queries = json!([{"text": "mountain7"}, {"picture": shown}, {"page": "https://x.test/9"}, {"text": "valley"}, {"picture": shown}]);
    let (status, said) = posted(&url, "/layers/0/search", json!({"queries": queries, "hits": 2})).await;
    assert_eq!(status, 200, "{said}");
    let results = said["results"].as_array().expect("results");
    assert_eq!(results.len(), 5);
    let hit = &results[0]["hits"][0];
    assert_eq!((&hit["title"], &hit["content"], &hit["url"]), (&json!("Peak 7"), &json!("mountain7 is high"), &json!("https://x.test/7")));
    assert_eq!((&results[1]["hits"][0]["title"], results[1]["hits"].as_array().map(Vec::len)), (&json!("picture 5"), Some(2)));
    assert_eq!((&results[2]["hits"][0]["content"], &results[3]), (&json!("mountain9 is high"), &json!({"hits": []})));
    assert_eq!(results[1], results[4]);
    let (status, said) = posted(&url, "/retrieve", json!({"queries": ["mountain3 high"], "topk": 1, "return_scores": true})).await;
    assert_eq!((status, &said["result"][0][0]["document"]["contents"]), (200, &json!("\"Peak 3\"\nmountain3 is high")));
    assert!(said["result"][0][0]["score"].as_f64().is_some_and(|score| score > 0.5), "{said}");
    // A corpus has no layers: whoever asks for one is told, and does not get the world as it is.
    let (status, said) = posted(&url, "/layers/3/search", json!({"queries": [{"text": "mountain7"}, {"picture": shown}], "hits": 2})).await;
    assert_eq!((status, &said["results"][0]["failure"], &said["results"][1]["failure"]), (200, &json!("refused"), &json!("refused")));
    assert!(said["results"][0]["message"].as_str().is_some_and(|why| why.contains("layer 3")), "{said}");
    assert_eq!(posted(&url, "/layers/3/retrieve", json!({"queries": ["mountain7"]})).await.0, 400);
    drop(end);
    serving.await.expect("ends").expect("serves");
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_that_come_together_get_what_each_gets_alone() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let corpus = corpus(folder.path());
    let queries: Vec<Query> = (0..8)
        .flat_map(|at| {
            let page = Query::Page(format!("Peak {at}"));
            [Query::Picture(Arc::new(picture(at))), Query::Text(format!("mountain{at} high")), page]
        })
        .collect();
    let together = corpus.search(0, &queries).await;
    for (query, outcome) in queries.iter().zip(&together) {
        assert_eq!(corpus.search(0, std::slice::from_ref(query)).await[0], *outcome);
        assert!(outcome.as_ref().is_ok_and(|hits| !hits.is_empty()));
    }
    let asks = (0..16).map(|_| corpus.search(0, &queries));
    assert!(futures::future::join_all(asks).await.iter().all(|outcomes| *outcomes == together));
    assert!(corpus.search(0, &[]).await.is_empty());
    let refused = corpus.search(1, &queries[..2]).await;
    assert!(refused.iter().all(|outcome| outcome.as_ref().is_err_and(|error| error.fault == Fault::Refused)));
}
