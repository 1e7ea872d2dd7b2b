//! Crops published for services that are told addresses: when, where, for how long, and that no address of them stands anywhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use hypereyes_environment::{Fault, Outcome, Query, Search};
use hypereyes_pictures::RgbImage;
use hypereyes_search::store::Store;
use hypereyes_search::{BackEndConfig, Mode, PublisherConfig, PublisherKind, SearchConfig, recording};
use parking_lot::Mutex;
use ring::{digest, hmac};
use serde_json::json;

use super::server::{Server, open, reply, try_open};

const ID: &str = "AKIAPLANTED";
const SECRET: &str = "planted/secret+key";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// The signature of a canonical request (AWS Signature Version 4), from its documentation.
fn signature(date: &str, scope: &str, canonical: &str) -> String {
    let sign = |key: &[u8], text: &str| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec();
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", sha256(canonical.as_bytes()));
    let key = scope.split('/').fold(format!("AWS4{SECRET}").into_bytes(), |key, part| sign(&key, part));
    hex(&sign(&key, &text))
}

fn decoded(text: &str) -> String {
    reqwest::Url::parse(&format!("http://x/?{text}"))
        .expect("an address")
        .query_pairs()
        .map(|(name, _)| name.into_owned())
        .next()
        .unwrap_or_default()
}

/// Headers that are signed, as a canonical request has them.
fn signed(headers: &HeaderMap, names: &str) -> String {
    let value = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().trim().to_owned();
    names.split(';').map(|name| format!("{name}:{}\n", value(name))).collect()
}

/// Whether a request is signed, in its headers or in its address.
fn is_signed(request: &axum::http::request::Parts, body: &[u8]) -> bool {
    let (path, query) = (request.uri.path(), request.uri.query().unwrap_or_default());
    let mut pairs: Vec<&str> = query.split('&').filter(|pair| !pair.is_empty()).collect();
    let header = |name: &str| request.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let of_query = |name: &str| pairs.iter().find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).map(decoded).unwrap_or_default();
    let (credential, names, date, given, hash);
    let authorization = header("authorization");
    if authorization.is_empty() {
        (credential, names, date, given) =
            (of_query("X-Amz-Credential"), of_query("X-Amz-SignedHeaders"), of_query("X-Amz-Date"), of_query("X-Amz-Signature"));
        hash = "UNSIGNED-PAYLOAD".to_owned();
        pairs.retain(|pair| !pair.starts_with("X-Amz-Signature="));
    } else {
        let parts: BTreeMap<&str, &str> =
            authorization.trim_start_matches("AWS4-HMAC-SHA256").split(',').filter_map(|part| part.trim().split_once('=')).collect();
        let part = |name: &str| parts.get(name).copied().unwrap_or_default().to_owned();
        (credential, names, date, given) = (part("Credential"), part("SignedHeaders"), header("x-amz-date"), part("Signature"));
        hash = header("x-amz-content-sha256");
        if hash != sha256(body) {
            return false;
        }
    }
    pairs.sort_unstable();
    let Some((ID, scope)) = credential.split_once('/') else { return false };
    let headers = signed(&request.headers, &names);
    let canonical = format!("{}\n{path}\n{}\n{headers}\n{names}\n{hash}", request.method, pairs.join("&"));
    signature(&date, scope, &canonical) == given
}

/// An object's type, and what it is.
type Object = (String, Vec<u8>);

/// A store in S3's shape: it takes and gives what is signed, and nothing else.
#[derive(Clone, Default)]
struct Bucket {
    objects: Arc<Mutex<BTreeMap<String, Object>>>,
    puts: Arc<Mutex<u32>>,
}

impl Bucket {
    async fn start(&self) -> Server {
        let bucket = self.clone();
        let handle = move |request: Request| {
            let bucket = bucket.clone();
            async move { bucket.answer(request).await }
        };
        Server::of(Router::new().fallback(handle), Arc::default()).await
    }

    async fn answer(&self, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 64 << 20).await.expect("a body");
        if !is_signed(&parts, &body) {
            return (StatusCode::FORBIDDEN, "<Error><Code>SignatureDoesNotMatch</Code></Error>").into_response();
        }
        let path = parts.uri.path().to_owned();
        match parts.method {
            Method::PUT => {
                let kind = parts.headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned();
                self.objects.lock().insert(path, (kind, body.to_vec()));
                *self.puts.lock() += 1;
                ([("etag", "\"1\"")], "").into_response()
            }
            Method::GET => match self.objects.lock().get(&path) {
                Some((kind, bytes)) => Response::builder().header("content-type", kind).body(Body::from(bytes.clone())).expect("a reply"),
                None => StatusCode::NOT_FOUND.into_response(),
            },
            _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
        }
    }

    fn puts(&self) -> u32 {
        *self.puts.lock()
    }
}

fn picture(number: u8) -> Arc<RgbImage> {
    Arc::new(RgbImage::from_fn(40, 30, |x, y| [x as u8, y as u8, number].into()))
}

async fn find(search: &Arc<dyn Search>, number: u8) -> Outcome {
    search.search(0, &[Query::Picture(picture(number))]).await.remove(0)
}

/// A Lens that says what it was told.
async fn lens() -> Server {
    Server::start(|asked, _| match asked.path.starts_with("/lens") {
        true => reply(200, json!({"organic": [{"title": "Lima", "link": "https://x/l", "source": "X"}]})),
        false => reply(400, json!({"error": format!("cannot fetch {}", asked.path)})),
    })
    .await
}

/// Settings that ask a Lens, and publish in a bucket.
fn asking(backend: &str, lens: &Server, bucket: &Server, folder: &std::path::Path) -> SearchConfig {
    let (key, credentials) = (folder.join("key"), folder.join("credentials"));
    std::fs::write(&key, "lens-key").expect("written");
    std::fs::write(&credentials, format!("[default]\naws_access_key_id = {ID}\naws_secret_access_key = {SECRET}\n")).expect("written");
    let image =
        BackEndConfig { backend: backend.into(), url: lens.url.clone(), api_key_file: Some(key), attempts: 1, ..BackEndConfig::default() };
    let publisher = PublisherConfig {
        kind: PublisherKind::S3,
        url: "s3://crops/of/run".into(),
        endpoint: bucket.url.clone(),
        credentials_file: Some(credentials),
        ..PublisherConfig::default()
    };
    SearchConfig { image, publisher, ..SearchConfig::default() }
}

async fn get(url: &str) -> (u16, Vec<u8>) {
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let reply = client.get(url).send().await.expect("answers");
    (reply.status().as_u16(), reply.bytes().await.expect("a body").to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crop_is_in_the_bucket_when_it_is_asked_about_and_opened_by_its_address_alone() {
    let (bucket, lens, folder) = (Bucket::default(), lens().await, tempfile::tempdir().expect("a folder"));
    let store = bucket.start().await;
    let mut config = asking("serper_lens", &lens, &store, folder.path());
    let search = open(&config);
    assert_eq!(find(&search, 1).await.expect("hits")[0].title, "Lima");
    let asked = lens.asked();
    assert_eq!(asked.len(), 1);
    let url = asked[0].body["url"].as_str().expect("an address").to_owned();
    assert!(url.starts_with(&format!("{}/crops/of/run/", store.url)) && url.contains("X-Amz-Expires=600"), "{url}");
    let (status, bytes) = get(&url).await;
    let back = hypereyes_pictures::decode(&bytes, &hypereyes_pictures::Limits::default()).expect("a picture");
    assert_eq!((status, &back), (200, &*picture(1)));
    assert_eq!(bucket.objects.lock().values().next().map(|(kind, _)| kind.clone()), Some("image/png".to_owned()));
    // The store does check.
    let (other, last) = (url.len() - 1, if url.ends_with('0') { "1" } else { "0" });
    assert_eq!(get(&format!("{}{last}", &url[..other])).await.0, 403);
    assert_eq!(get(url.split('?').next().expect("a path")).await.0, 403);
    // Equal crops have one place, and are put there once.
    assert!(find(&search, 1).await.is_ok() && find(&search, 2).await.is_ok());
    let path = |number: usize| lens.asked()[number].body["url"].as_str().expect("an address").split('?').next().expect("a path").to_owned();
    assert_eq!((path(0) == path(1), path(0) == path(2), bucket.puts()), (true, false, 2));
    // Wrong keys are a failure of the publisher, said without them, and nobody is asked.
    std::fs::write(folder.path().join("credentials"), format!("aws_access_key_id = {ID}\naws_secret_access_key = wrong-secret\n"))
        .expect("written");
    config.image.attempts = 1;
    let error = find(&open(&config), 3).await.expect_err("not published");
    assert!(error.fault == Fault::Unavailable && error.reason.contains("cannot be published"), "{error}");
    assert!(!error.reason.contains("wrong-secret") && lens.asked().len() == 3, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_published_that_is_known_or_that_nobody_may_ask_for() {
    let (bucket, lens, folder) = (Bucket::default(), lens().await, tempfile::tempdir().expect("a folder"));
    let store = bucket.start().await;
    let mut config = asking("serper_lens", &lens, &store, folder.path());
    config.cache.path = Some(folder.path().join("cache.redb"));
    config.budget.requests = 2;
    for (number, puts) in [(1, 1), (1, 1), (2, 2), (2, 2)] {
        // A process of its own each time.
        assert!(find(&open(&config), number).await.is_ok());
        assert_eq!(bucket.puts(), puts);
    }
    let error = find(&open(&config), 3).await.expect_err("used up");
    assert_eq!((error.fault, bucket.puts(), lens.asked().len()), (Fault::Quota, 2, 2), "{error}");
    // A store that is away costs nothing: nobody was asked.
    config.budget.requests = 3;
    config.publisher.endpoint = "http://127.0.0.1:9".into();
    let error = find(&open(&config), 3).await.expect_err("not published");
    let spent = Store::shared(&folder.path().join("cache.redb")).expect("opens").spent().expect("read").requests;
    assert_eq!((error.fault, spent, lens.asked().len()), (Fault::Unavailable, 2, 2), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_address_of_a_crop_stands_in_an_error_a_cache_or_a_recording_and_a_replay_needs_no_publisher() {
    let (bucket, lens, folder) = (Bucket::default(), lens().await, tempfile::tempdir().expect("a folder"));
    let store = bucket.start().await;
    let (cache, file) = (folder.path().join("cache.redb"), folder.path().join("recording.jsonl"));
    // SerpAPI says the address back, and refuses.
    let mut echoing = asking("serpapi_lens", &lens, &store, folder.path());
    (echoing.mode, echoing.cache.path) = (Mode::Record, Some(cache.clone()));
    let error = find(&open(&echoing), 1).await.expect_err("refused");
    assert!(lens.asked()[0].path.contains("X-Amz-Signature"), "it was told");
    assert!(error.reason.contains("cannot fetch") && error.reason.contains("[the picture]"), "{error}");
    let mut config = asking("serper_lens", &lens, &store, folder.path());
    (config.mode, config.cache.path) = (Mode::Record, Some(cache.clone()));
    let hits = find(&open(&config), 1).await.expect("hits");
    recording::export(&Store::shared(&cache).expect("opens"), &file).expect("written");
    let text = format!(
        "{error} {}{}",
        std::fs::read_to_string(&file).expect("read"),
        String::from_utf8_lossy(&std::fs::read(&cache).expect("read"))
    );
    for planted in ["X-Amz", "Signature", ID, SECRET, "lens-key", &store.url] {
        assert!(!text.contains(planted), "{planted}");
    }
    drop((lens, store));
    let replay = SearchConfig { mode: Mode::Replay, publisher: PublisherConfig::default(), ..config };
    let replay = SearchConfig { cache: hypereyes_search::CacheConfig { path: Some(file), ..replay.cache.clone() }, ..replay };
    assert_eq!(find(&open(&replay), 1).await.expect("recorded"), hits);
    assert_eq!(find(&open(&replay), 2).await.expect_err("not recorded").fault, Fault::Miss);
}

#[tokio::test(flavor = "multi_thread")]
async fn crops_are_served_from_here_where_settings_say_so() {
    let (lens, folder) = (lens().await, tempfile::tempdir().expect("a folder"));
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let mut config = asking("serper_lens", &lens, &lens, folder.path());
    config.publisher = PublisherConfig {
        kind: PublisherKind::Serve,
        url: format!("http://{port}/crops"),
        listen: Some(port),
        ..PublisherConfig::default()
    };
    let search = open(&config);
    assert!(find(&search, 1).await.is_ok());
    let url = lens.asked()[0].body["url"].as_str().expect("an address").to_owned();
    let (status, bytes) = get(&url).await;
    let back = hypereyes_pictures::decode(&bytes, &hypereyes_pictures::Limits::default()).expect("a picture");
    assert_eq!((status, &back), (200, &*picture(1)));
    assert_eq!(get(&format!("http://{port}/crops/other.png")).await.0, 404);
    // Its port is one process's.
    let error = try_open(&config).map(|_| ()).expect_err("taken");
    assert!(error.starts_with("publisher.listen"), "{error}");
    drop(search);
}
