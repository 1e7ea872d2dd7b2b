//! Pages of the net, fetched by ourselves, and by a reader: well and badly. One typed failure each, and nobody is asked who must not be.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::response::Response;
use futures::StreamExt;
use hypereyes_environment::{Fault, Outcome, Query, Search};
use hypereyes_search::{BackEndConfig, SearchConfig};

use super::server::{Server, open, reply, reply_with};

const SAYS: &str = "Lima is the capital of Peru, a city of ten million people, at the coast of a desert, under a grey sky.";

fn page(kind: &'static str, body: impl Into<Body>) -> Response {
    reply_with(200, "content-type", kind, body)
}

/// Settings that fetch pages, of these hosts too.
fn fetching(allowed: &[&str]) -> SearchConfig {
    let allowed = allowed.iter().map(|url| format!("allow={}", url.trim_start_matches("http://")));
    let page =
        BackEndConfig { backend: "fetch".into(), parameters: allowed.collect(), attempts: 1, attempt_s: 2.0, ..BackEndConfig::default() };
    SearchConfig { page, ..SearchConfig::default() }
}

async fn visit(search: &Arc<dyn Search>, address: impl Into<String>) -> Outcome {
    search.search(0, &[Query::Page(address.into())]).await.remove(0)
}

fn endless() -> impl futures::Stream<Item = Result<Bytes, std::io::Error>> + Send {
    futures::stream::repeat_with(|| Ok(Bytes::from_static(&[b'a'; 65536])))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_read_as_one_hit_and_asked_for_once() {
    let article: String = (0..10).map(|number| format!("<p>{number} {SAYS}</p>")).collect();
    let html =
        format!("<html><head><title>Lima</title></head><body><nav><a href=/x>menu</a></nav><article>{article}</article></body></html>");
    let server = Server::start(move |asked, _| match asked.path.as_str() {
        "/robots.txt" => reply(404, "no"),
        "/here" => page("text/html; charset=utf-8", html.clone()),
        "/moved" => reply_with(302, "location", "/here", ""),
        "/text" => page("text/plain; charset=iso-8859-1", b"caf\xe9".to_vec()),
        _ => reply(404, "none"),
    })
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = fetching(&[&server.url]);
    config.cache.path = Some(folder.path().join("cache.redb"));
    let search = open(&config);
    let hits = visit(&search, format!("{}/moved#part", server.url)).await.expect("a page");
    assert_eq!((hits.len(), hits[0].title.as_str(), hits[0].url.clone()), (1, "Lima", Some(format!("{}/here", server.url))));
    assert!(hits[0].content.contains("9 Lima is the capital") && !hits[0].content.contains("menu") && hits[0].score.is_none());
    assert_eq!(visit(&search, format!("{}/text", server.url)).await.expect("a text")[0].content, "café");
    assert_eq!(visit(&search, format!("{}/none", server.url)).await, Ok(vec![]), "there is no such page");
    let before = server.asked().len();
    assert_eq!(visit(&search, format!(" {}/moved#other ", server.url)).await.expect("kept"), hits);
    assert_eq!(server.asked().len(), before, "kept");
    let robots = server.asked().iter().filter(|asked| asked.path == "/robots.txt").count();
    assert_eq!(robots, 1, "a site is asked once what it allows");
    let agent = server.asked()[0].headers.get("user-agent").and_then(|agent| agent.to_str().ok().map(str::to_owned));
    assert!(agent.is_some_and(|agent| agent.starts_with("hypereyes/")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_robots_txt_forbids_is_not_asked_for() {
    let server = Server::start(|asked, _| match asked.path.as_str() {
        "/robots.txt" => reply(200, "User-agent: *\nDisallow: /private\n"),
        _ => page("text/plain", "text"),
    })
    .await;
    let search = open(&fetching(&[&server.url]));
    let error = visit(&search, format!("{}/private/x", server.url)).await.expect_err("forbidden");
    assert!(error.fault == Fault::Refused && error.reason.contains("robots.txt"), "{error}");
    assert!(visit(&search, format!("{}/open", server.url)).await.is_ok());
    let paths: Vec<String> = server.asked().into_iter().map(|asked| asked.path).collect();
    assert_eq!(paths, ["/robots.txt", "/open"]);
    // What cannot be read may forbid everything.
    let broken = Server::start(|_, _| reply(500, "oops")).await;
    let error = visit(&open(&fetching(&[&broken.url])), format!("{}/x", broken.url)).await.expect_err("unknown");
    assert!(error.fault == Fault::Unavailable && error.reason.contains("robots.txt"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_are_not_public_are_refused_also_after_a_redirect() {
    let private = Server::start(|_, _| page("text/plain", "secret")).await;
    let to = private.url.clone();
    let public = Server::start(move |asked, _| match asked.path.as_str() {
        "/robots.txt" => reply(404, ""),
        "/in" => reply_with(302, "location", &format!("{to}/secret"), ""),
        "/meta" => reply_with(307, "location", "http://169.254.169.254/latest/meta-data/", ""),
        "/file" => reply_with(302, "location", "file:///etc/passwd", ""),
        "/mail" => reply_with(302, "location", "http://example.com:25/", ""),
        _ => reply_with(302, "location", "/loop", ""),
    })
    .await;
    let search = open(&fetching(&[&public.url]));
    for (path, why) in
        [("/in", "not public"), ("/meta", "not public"), ("/file", "no page"), ("/mail", "port 25"), ("/loop", "more than 5")]
    {
        let error = visit(&search, format!("{}{path}", public.url)).await.expect_err(path);
        assert!(error.fault == Fault::Refused && error.reason.contains(why), "{path}: {error}");
    }
    let port = private.url.rsplit(':').next().expect("a port").to_owned();
    for host in [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f.1",
        "0.0.0.0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "169.254.169.254",
        "10.0.0.1",
        "[fd00::1]",
        "100.64.0.1",
    ] {
        let error = visit(&search, format!("http://{host}:{port}/secret")).await.expect_err(host);
        assert!(error.fault == Fault::Refused && error.reason.contains("not public"), "{host}: {error}");
    }
    assert_eq!(private.asked().len(), 0, "nobody was asked");
    for bad in ["Mexico", "ftp://example.com/", "http://user:password@example.com/"] {
        assert_eq!(visit(&search, bad).await.expect_err(bad).fault, Fault::Refused);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_pages_are_one_typed_failure_each() {
    let slow = || {
        endless().then(|chunk| async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            chunk.map(|chunk| chunk.slice(..1))
        })
    };
    let server = Server::start(move |asked, _| match asked.path.as_str() {
        "/robots.txt" => reply(404, ""),
        "/gigabyte" => Response::builder()
            .header("content-length", 1_u64 << 30)
            .header("content-type", "text/plain")
            .body(Body::from_stream(endless().take(1 << 14)))
            .expect("a reply"),
        "/endless" => page("text/html", Body::from_stream(endless())),
        "/drip" => page("text/html", Body::from_stream(slow())),
        "/bomb" => Response::builder()
            .header("content-encoding", "gzip")
            .header("content-type", "text/html")
            .body(Body::from(vec![0x1f, 0x8b, 8, 0]))
            .expect("a reply"),
        "/pdf" => page("application/pdf", "%PDF-1.7"),
        "/deep" => page("text/html", "<div>".repeat(300_000)),
        "/busy" => reply_with(429, "retry-after", "1000", ""),
        "/secret" => reply(403, ""),
        _ => reply(500, ""),
    })
    .await;
    let search = open(&fetching(&[&server.url]));
    for (path, fault, why) in [
        ("/gigabyte", Fault::Refused, "more than 8388608 bytes"),
        ("/endless", Fault::Refused, "more than 8388608 bytes"),
        ("/drip", Fault::Timeout, "no whole page within 2.0 s"),
        ("/bomb", Fault::Refused, "compressed"),
        ("/pdf", Fault::Refused, "application/pdf"),
        ("/deep", Fault::Refused, "elements"),
        ("/busy", Fault::RateLimited, "HTTP 429"),
        ("/secret", Fault::Refused, "HTTP 403"),
        ("/broken", Fault::Unavailable, "HTTP 500"),
    ] {
        let began = Instant::now();
        let error = visit(&search, format!("{}{path}", server.url)).await.expect_err(path);
        assert!(error.fault == fault && error.reason.contains(why), "{path}: {error}");
        assert!(began.elapsed() < Duration::from_secs(15), "{path}: {:?}", began.elapsed());
    }
    let gone = visit(&search, "http://no-such-host.invalid/").await.expect_err("gone");
    // How long it takes to say that a name means nothing, this machine's resolver decides.
    assert!(matches!(gone.fault, Fault::Unavailable | Fault::Timeout), "{gone}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_is_asked_with_and_without_a_key() {
    let server = Server::start(|asked, _| {
        assert_eq!(asked.headers.get("accept").and_then(|accept| accept.to_str().ok()), Some("application/json"));
        match asked.path.contains("/gone") {
            true => reply(422, serde_json::json!({"code": 422, "message": "no such page"})),
            false => reply(200, serde_json::json!({"code": 200, "data": {"title": "Lima", "url": "https://x/l?a=b", "content": SAYS}})),
        }
    })
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("key");
    std::fs::write(&key, "reader-key").expect("written");
    for api_key_file in [None, Some(key)] {
        let page = BackEndConfig {
            backend: "reader".into(),
            url: server.url.clone(),
            api_key_file: api_key_file.clone(),
            ..BackEndConfig::default()
        };
        let search = open(&SearchConfig { page, ..SearchConfig::default() });
        assert_eq!(visit(&search, "https://x/l?a=b").await.expect("a page")[0].content, SAYS);
        let asked = server.asked().pop().expect("asked");
        assert_eq!(asked.path, "/https://x/l?a=b");
        assert_eq!(asked.headers.get("authorization").is_some(), api_key_file.is_some());
        assert_eq!(visit(&search, "https://x/gone").await.expect_err("none").fault, Fault::Refused);
    }
}
