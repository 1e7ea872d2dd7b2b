//! A real FastMCP, whatever servers of the tests say: its server asked by our back end, and its client asking our server. These are ignored,
//! and run where the environment names one: `bench/peers/fastmcp/check` does.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use hypereyes_environment::{Fault, Search};
use hypereyes_search::{BackEndConfig, EmbeddedSearch, SearchConfig, serve};
use hypereyes_world::World;
use serde_json::Value;
use tokio::process::{Child, Command};

use super::mcp::HANDSHAKES;
use super::mcp_served::{LAYER, both, observed};
use super::server::{Server, open, texts};

/// The variable with the folder of an environment that `bench/peers/fastmcp/install` made.
const ENVIRONMENT: &str = "HYPEREYES_FASTMCP_ENV";
/// How long a server of Python may take to be there.
const STARTS: Duration = Duration::from_secs(60);

/// Python with FastMCP, or a word that it is not here.
fn python() -> Option<PathBuf> {
    let python = std::env::var_os(ENVIRONMENT).map(|folder| Path::new(&folder).join("bin/python")).filter(|python| python.exists());
    if python.is_none() {
        hypereyes_tests::skip(&format!("{ENVIRONMENT} names no environment with FastMCP"));
    }
    python
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bench/peers/fastmcp").join(name)
}

/// What a command of Python prints.
async fn printed(python: &Path, arguments: &[&str]) -> String {
    let done = Command::new(python).args(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
    let done = tokio::time::timeout(STARTS, done).await.expect("in time").expect("runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).expect("a text")
}

async fn versions(python: &Path) -> String {
    let said = "from importlib.metadata import version; print('fastmcp', version('fastmcp'), 'mcp', version('mcp'))";
    printed(python, &["-c", said]).await.trim().to_owned()
}

/// A FastMCP server whose tools ask ours.
async fn fastmcp(python: &Path, search: &str) -> (Child, String) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
    let mut command = Command::new(python);
    command.arg(script("server.py")).args(["--port", &port.to_string(), "--search", search, "--layer", &LAYER.to_string()]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true).spawn().expect("starts");
    let is_there = async {
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(STARTS, is_there).await.expect("it listens");
    (child, format!("http://127.0.0.1:{port}/mcp"))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs an environment of bench/peers/fastmcp/install"]
async fn its_server_is_asked_in_every_revision_that_it_speaks() {
    let Some(python) = python() else { return };
    let world = Arc::new(World::embedded().expect("sound"));
    let here: Arc<dyn Search> = Arc::new(EmbeddedSearch::new(world.clone()));
    let ours = Server::of(serve::router(here.clone()), Arc::default()).await;
    let (_child, url) = fastmcp(&python, &ours.url).await;
    let known = observed(here, &world).await;
    let mut spoken = vec![];
    for revision in ["2026-07-28"].into_iter().chain(HANDSHAKES) {
        let search = both(&url, &[format!("revision={revision}")]);
        match search.search(0, &texts(&["capital"])).await.remove(0) {
            Ok(_) => {
                assert_eq!(observed(search, &world).await, known, "{revision}");
                spoken.push(revision);
            }
            Err(error) => assert!(error.fault == Fault::Refused, "{revision}: {error}"),
        }
    }
    assert!(HANDSHAKES.iter().all(|one| spoken.contains(one)), "{spoken:?}");
    // Which it is is found out.
    assert_eq!(observed(both(&url, &[]), &world).await, known);
    eprintln!("{}: a server of {}; the same observations over each, layer {LAYER}", versions(&python).await, spoken.join(", "));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs an environment of bench/peers/fastmcp/install"]
async fn its_results_and_failures_are_understood_in_every_shape() {
    let Some(python) = python() else { return };
    let (_child, url) = fastmcp(&python, "http://127.0.0.1:9").await;
    for revision in ["", "revision=2025-06-18"] {
        let tool = async |name: &str, more: &[&str]| {
            let said = [format!("tool={name}")].into_iter().chain(more.iter().map(|one| (*one).to_owned())).chain([revision.to_owned()]);
            let parameters = said.filter(|said| !said.is_empty()).collect();
            let side = BackEndConfig { backend: "mcp".into(), url: url.clone(), parameters, attempts: 1, ..BackEndConfig::default() };
            let search = open(&SearchConfig { text: side, deadline_s: 3.0, ..SearchConfig::default() });
            search.search(0, &texts(&["Lima"])).await.remove(0)
        };
        let hits = tool("listed", &[]).await.expect("hits");
        assert_eq!((hits.len(), hits[0].title.as_str(), hits[0].url.as_deref()), (2, "Lima", Some("https://x")));
        assert_eq!(tool("plain", &[]).await.expect("a text")[0].content, "all that is known of Lima");
        assert_eq!(tool("nothing", &[]).await, Ok(vec![]));
        for (name, more, fault, why) in [
            ("busy", &[][..], Fault::RateLimited, "rate limit exceeded"),
            ("broken", &[][..], Fault::Unavailable, "boom"),
            ("search", &[][..], Fault::Unavailable, "its tool failed"),
            ("find", &[][..], Fault::Refused, "no tool \"find\"; it has search, image_search"),
            ("search", &["arguments.num_results=many"][..], Fault::Refused, "does not take"),
        ] {
            let error = tool(name, more).await.expect_err("a failure");
            assert!(error.fault == fault && error.reason.contains(why), "{name} {revision}: {error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs an environment of bench/peers/fastmcp/install"]
async fn its_client_asks_our_server() {
    let Some(python) = python() else { return };
    let world = Arc::new(World::embedded().expect("sound"));
    let here: Arc<dyn Search> = Arc::new(EmbeddedSearch::new(world));
    let ours = Server::of(serve::router(here.clone()), Arc::default()).await;
    let queries = ["Mexico currency", "zzzz"];
    let script = script("client.py");
    let url = format!("{}/layers/{LAYER}/mcp", ours.url);
    let arguments: Vec<&str> = [script.to_str().expect("a path"), &url].into_iter().chain(queries).collect();
    let lines = printed(&python, &arguments).await;
    let expected: Vec<Value> = here
        .search(LAYER, &texts(&queries))
        .await
        .into_iter()
        .map(|outcome| serde_json::json!({"hits": outcome.expect("hits").into_iter().take(3).collect::<Vec<_>>()}))
        .collect();
    let mut spoken = vec![];
    for line in lines.lines() {
        let said: Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(said["found"]["results"], Value::Array(expected.clone()), "{line}");
        assert_eq!(said["tools"], serde_json::json!(["search", "search_pictures", "visit"]));
        assert!(said["refused"].as_str().is_some_and(|why| why.contains("unknown field")), "{line}");
        spoken.push(said["revision"].as_str().unwrap_or("?").to_owned());
    }
    assert!(!spoken.is_empty());
    eprintln!("{}: its client speaks {} with our server", versions(&python).await, spoken.join(", "));
}
