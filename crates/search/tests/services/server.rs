//! A server of the tests: it answers as it is told and remembers what it was asked.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use hypereyes_environment::{Outcome, Query, Search};
use hypereyes_search::{BackEndConfig, SearchConfig};
use hypereyes_world::World;
use parking_lot::Mutex;
use serde_json::Value;

/// What a server was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Value,
}

type Answers = dyn Fn(&Asked, usize) -> Response + Send + Sync;

/// A server; it ends with its handle.
pub struct Server {
    pub url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Answers each request, of which it is told the number.
    pub async fn start(answers: impl Fn(&Asked, usize) -> Response + Send + Sync + 'static) -> Self {
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (known, answers): (_, Arc<Answers>) = (asked.clone(), Arc::new(answers));
        let handle = move |request: Request| {
            let (known, answers) = (known.clone(), answers.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body: Bytes = axum::body::to_bytes(body, 64 << 20).await.expect("a body");
                let one =
                    Asked { path: parts.uri.to_string(), headers: parts.headers, body: serde_json::from_slice(&body).unwrap_or_default() };
                let number = {
                    let mut known = known.lock();
                    known.push(one.clone());
                    known.len()
                };
                answers(&one, number)
            }
        };
        Self::of(Router::new().fallback(handle), asked).await
    }

    /// Serves routes.
    pub async fn of(router: Router, asked: Arc<Mutex<Vec<Asked>>>) -> Self {
        let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.expect("serves") });
        Self { url, asked, task }
    }

    /// What it was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().clone()
    }
}

/// A reply.
pub fn reply(status: u16, body: impl ToString) -> Response {
    let status = StatusCode::from_u16(status).expect("a status");
    (status, [("content-type", "application/json")], body.to_string()).into_response()
}

/// A reply with a header.
pub fn reply_with(status: u16, name: &'static str, value: &str, body: impl Into<Body>) -> Response {
    Response::builder().status(status).header(name, value).body(body.into()).expect("a reply")
}

/// Settings that ask one service for texts.
pub fn asking(backend: &str, url: &str) -> SearchConfig {
    let text = BackEndConfig { backend: backend.into(), url: url.into(), attempt_s: 5.0, ..BackEndConfig::default() };
    // No test waits for minutes.
    SearchConfig { text, deadline_s: 60.0, ..SearchConfig::default() }
}

/// Opens settings.
pub fn open(config: &SearchConfig) -> Arc<dyn Search> {
    try_open(config).unwrap_or_else(|error| panic!("{error}"))
}

/// Opens settings, or says why not.
pub fn try_open(config: &SearchConfig) -> Result<Arc<dyn Search>, String> {
    hypereyes_search::open(config, || World::embedded().map(Arc::new)).map_err(|error| error.to_string())
}

/// Texts as queries.
pub fn texts(texts: &[&str]) -> Vec<Query> {
    texts.iter().map(|text| Query::Text((*text).to_owned())).collect()
}

/// One text's outcome.
pub async fn find(search: &Arc<dyn Search>, text: &str) -> Outcome {
    search.search(0, &texts(&[text])).await.remove(0)
}
