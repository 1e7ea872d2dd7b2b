//! The search as an MCP server: whoever asks it so observes what is observed in process; and it answers as both kinds of revisions want.

use std::sync::Arc;

use hypereyes_environment::{EnvConfig, Episode, Fault, Query, Search, Step};
use hypereyes_pictures::RgbImage;
use hypereyes_search::{BackEndConfig, EmbeddedSearch, SearchConfig, serve};
use hypereyes_world::World;
use serde_json::{Value, json};

use super::mcp::HANDSHAKES;
use super::served::Fails;
use super::server::{Server, open, texts};

/// The layer that these tests search.
pub const LAYER: u64 = 7;

/// A search for texts and for pictures at one address.
pub fn both(url: &str, parameters: &[String]) -> Arc<dyn Search> {
    let side = || BackEndConfig { backend: "mcp".into(), url: url.into(), parameters: parameters.to_vec(), ..BackEndConfig::default() };
    // No test waits for minutes.
    open(&SearchConfig { text: side(), image: side(), deadline_s: 60.0, ..SearchConfig::default() })
}

/// The observations of an episode in a layer: a picture round, a text round.
pub async fn observed(search: Arc<dyn Search>, world: &World) -> Vec<String> {
    let mut picture = RgbImage::new(128, 48);
    for (left, id) in [(0, "mx"), (64, "jp")] {
        for (x, y, pixel) in world.picture(&id.into()).expect("has a picture").enumerate_pixels() {
            picture.put_pixel(left + x, y, *pixel);
        }
    }
    let name = world.layer(LAYER).name(&"jp".into()).expect("known").to_owned();
    let mut episode = Episode::new(EnvConfig::default(), search, LAYER, "Which currency?", vec![picture.into()]);
    let mut all = vec![];
    for call in [
        json!({"name": "image_search", "arguments": {"area": [[0, 0, 0.5, 1], [0.5, 0, 1, 1]]}}),
        json!({"name": "text_search", "arguments": {"input": [format!("{name} currency"), "capital", "zzzz"]}}),
    ] {
        let Step::Observed { text, .. } = episode.step(&format!("<tool_call>{call}</tool_call>")).await else { panic!("a call") };
        all.push(text);
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn observations_over_mcp_are_those_in_process() {
    let world = Arc::new(World::embedded().expect("sound"));
    let here: Arc<dyn Search> = Arc::new(EmbeddedSearch::new(world.clone()));
    let known = observed(here.clone(), &world).await;
    assert!(known[0].contains("img_2\n1. 1.00 ") && known[1].contains("currency"), "{known:?}");
    let server = Server::of(serve::router(here.clone()), Arc::default()).await;
    let url = format!("{}/layers/{LAYER}/mcp", server.url);
    for parameters in
        [vec![], vec!["revision=2026-07-28".to_owned()]].into_iter().chain(HANDSHAKES.map(|one| vec![format!("revision={one}")]))
    {
        assert_eq!(observed(both(&url, &parameters), &world).await, known, "{parameters:?}");
    }
    let queries = texts(&["Mexico currency", "capital of Japan", "zzzz"]);
    let root = both(&format!("{}/mcp", server.url), &[]);
    assert_eq!(root.search(0, &queries).await, here.search(0, &queries).await, "to the last bit");
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_keep_their_kind_over_mcp() {
    let server = Server::of(serve::router(Arc::new(Fails)), Arc::default()).await;
    for fault in Fault::ALL {
        let side = BackEndConfig { backend: "mcp".into(), url: format!("{}/mcp", server.url), attempts: 1, ..BackEndConfig::default() };
        let search = open(&SearchConfig { text: side, deadline_s: 1.0, ..SearchConfig::default() });
        let error = search.search(0, &texts(&[fault.label()])).await.remove(0).expect_err("as asked");
        assert_eq!(error.fault, fault, "{error}");
    }
}

/// Posts to the MCP address of a server: a status, headers and a body.
async fn post(server: &Server, headers: &[(&str, &str)], body: &Value) -> (u16, reqwest::header::HeaderMap, Value) {
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let request = client.post(format!("{}/mcp", server.url)).header("content-type", "application/json").body(body.to_string());
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let reply = request.send().await.expect("answers");
    let (status, headers) = (reply.status().as_u16(), reply.headers().clone());
    (status, headers, serde_json::from_slice(&reply.bytes().await.expect("a body")).unwrap_or_default())
}

fn request(method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": "a", "method": method, "params": params})
}

/// Parameters with what 2026 wants in them.
fn with_meta(version: &str, mut params: Value) -> Value {
    let (version_key, capabilities) = ("io.modelcontextprotocol/protocolVersion", "io.modelcontextprotocol/clientCapabilities");
    params["_meta"] = json!({version_key: version, capabilities: {}});
    params
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_2026_are_answered_by_themselves_or_refused_by_code() {
    let server = Server::of(serve::router(Arc::new(Fails)), Arc::default()).await;
    let now = "2026-07-28";
    let call = |arguments: Value| request("tools/call", with_meta(now, json!({"name": "search", "arguments": arguments})));
    let headers = [("mcp-protocol-version", now), ("mcp-method", "tools/call"), ("mcp-name", "search")];
    let (status, _, said) = post(&server, &headers, &call(json!({"queries": ["a", "quota"]}))).await;
    let result = &said["result"];
    assert_eq!((status, &said["id"], &result["resultType"], &result["isError"]), (200, &json!("a"), &json!("complete"), &json!(false)));
    let told = json!({"results": [{"hits": []}, {"failure": "quota", "message": "as asked"}]});
    assert_eq!(result["structuredContent"], told);
    let text: Value = serde_json::from_str(result["content"][0]["text"].as_str().expect("a text")).expect("JSON");
    assert_eq!(text, told);
    assert_eq!(result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], "hypereyes");
    let (_, _, said) = post(&server, &headers, &call(json!({"queries": ["quota"]}))).await;
    assert_eq!(said["result"]["isError"], true, "nothing but failures");
    for (arguments, why) in [
        (json!({"query": "a"}), "unknown field"),
        (json!({"queries": ["a"], "hits": 0}), "hits is 0"),
        (json!({"queries": vec!["a"; 257]}), "one request takes 256"),
        (json!({}), "missing field"),
    ] {
        let (status, _, said) = post(&server, &headers, &call(arguments)).await;
        let text = said["result"]["content"][0]["text"].as_str().unwrap_or_default();
        assert!(status == 200 && said["result"]["isError"] == true && text.contains(why), "{said}");
    }
    let (_, _, said) =
        post(&server, &[headers[0], ("mcp-method", "server/discover")], &request("server/discover", with_meta(now, json!({})))).await;
    assert_eq!(said["result"]["supportedVersions"], json!([now]));
    let (_, _, said) = post(&server, &[headers[0], ("mcp-method", "tools/list")], &request("tools/list", with_meta(now, json!({})))).await;
    let names: Vec<&str> = said["result"]["tools"].as_array().expect("a list").iter().filter_map(|tool| tool["name"].as_str()).collect();
    assert_eq!(names, ["search", "search_pictures", "visit"]);

    let good = call(json!({"queries": []}));
    let unknown = request("tools/call", with_meta(now, json!({"name": "find"})));
    let bare = request("tools/call", json!({"name": "search"}));
    let future = request("tools/call", with_meta("2030-01-01", json!({"name": "search"})));
    for (headers, body, status, code) in [
        (&headers[..2], &good, 400, -32020),
        (&headers[1..], &good, 400, -32020),
        (&[headers[0], headers[2]][..], &good, 400, -32020),
        (&[headers[0], headers[1], ("mcp-name", "visit")][..], &good, 400, -32020),
        (&[headers[0], headers[1], ("mcp-name", "find")][..], &unknown, 400, -32602),
        (&headers[..], &bare, 400, -32602),
        (&[("mcp-protocol-version", "2030-01-01"), headers[1], headers[2]][..], &future, 400, -32022),
        (&[headers[0], ("mcp-method", "ping")][..], &request("ping", with_meta(now, json!({}))), 404, -32601),
    ] {
        let (answered, _, said) = post(&server, headers, body).await;
        assert_eq!((answered, said["error"]["code"].as_i64(), &said["id"]), (status, Some(code), &json!("a")), "{said}");
    }
    // A name may come in base64.
    let encoded = [headers[0], headers[1], ("mcp-name", "=?base64?c2VhcmNo?=")];
    assert_eq!(post(&server, &encoded, &good).await.0, 200);
    assert_eq!(post(&server, &[("origin", "https://evil.example"), headers[0], headers[1], headers[2]], &good).await.0, 403);
    assert_eq!(post(&server, &[("origin", "http://localhost:3000"), headers[0], headers[1], headers[2]], &good).await.0, 200);
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    for method in [reqwest::Method::GET, reqwest::Method::DELETE] {
        assert_eq!(client.request(method, format!("{}/mcp", server.url)).send().await.expect("answers").status(), 405);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_are_answered_and_no_session_is_begun() {
    let world = Arc::new(World::embedded().expect("sound"));
    let server = Server::of(serve::router(Arc::new(EmbeddedSearch::new(world))), Arc::default()).await;
    for (asked, given) in HANDSHAKES.map(|one| (one, one)).into_iter().chain([("2024-11-05", HANDSHAKES[0])]) {
        let params = json!({"protocolVersion": asked, "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}});
        let (status, headers, said) = post(&server, &[], &request("initialize", params)).await;
        assert_eq!((status, &said["result"]["protocolVersion"]), (200, &json!(given)));
        assert!(headers.get("mcp-session-id").is_none());
    }
    let notification = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    assert_eq!(post(&server, &[], &notification).await.0, 202);
    assert_eq!(post(&server, &[], &request("ping", Value::Null)).await.2["result"], json!({}));
    let read = request("tools/call", json!({"name": "visit", "arguments": {"pages": ["Mexico", "Atlantis"]}}));
    let (_, _, said) = post(&server, &[("mcp-protocol-version", HANDSHAKES[0])], &read).await;
    let results = &said["result"]["structuredContent"]["results"];
    assert_eq!((&results[0]["hits"][0]["title"], &results[1]), (&json!("Mexico"), &json!({"hits": []})));
    assert!(said["result"].get("resultType").is_none());
    // One revision has batches.
    let batch = json!([notification, request("ping", json!({})), read]);
    let (status, _, said) = post(&server, &[], &batch).await;
    assert_eq!((status, said.as_array().map(Vec::len)), (200, Some(2)));
    assert_eq!(post(&server, &[], &json!([notification])).await.0, 202);
    for (body, status, code) in [
        (json!(vec![notification.clone(); 17]), 400, -32600),
        (json!(7), 400, -32600),
        (json!({"jsonrpc": "2.0", "id": [1], "method": "ping"}), 400, -32600),
        (json!({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": 7}), 400, -32602),
        (request("resources/list", json!({})), 200, -32601),
        (request("tools/call", json!({"name": "find"})), 200, -32602),
    ] {
        let (answered, _, said) = post(&server, &[], &body).await;
        assert_eq!((answered, said["error"]["code"].as_i64()), (status, Some(code)), "{body} {said}");
    }
    assert_eq!(post(&server, &[("mcp-protocol-version", HANDSHAKES[0])], &batch).await.0, 400, "the others have none");
    let picture = Query::Picture(Arc::new(RgbImage::new(8, 8)));
    assert!(both(&format!("{}/mcp", server.url), &[]).search(0, &[picture]).await[0].is_ok());
}
