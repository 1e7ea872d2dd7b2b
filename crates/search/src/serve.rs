//! A search that others ask over HTTP, in our own shape and in Search-R1's. In: a port, something that can be searched. Out: answers, each
//! within the search's own bounds.
//!
//! Several processes share one cache, one budget and one service's rate by asking one of these. Each counterfactual layer has a path of its
//! own, so that whoever asks without knowing of layers searches one.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hypereyes_environment::{Fault, Hit, Outcome, Query, Search};
use hypereyes_pictures::{Limits, decode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::backends::http::{Answer, Question, Sent, Told};

/// Bytes of a request that are read: pictures of a call of a tool, in base64.
const MOST_BYTES: usize = 64 << 20;
/// Pixels of a request's pictures, together: two large photographs, or all crops of a call.
const MOST_PIXELS: u64 = 64 << 20;
/// Requests that are read and answered at the same moment; the others are told to come again.
const AT_ONCE: usize = 64;
/// How long a request may take to arrive.
const ARRIVES: Duration = Duration::from_secs(60);
/// Queries of a request, at most.
const MOST_QUERIES: usize = 256;
/// How long requests under way may go on after the end.
const GRACE: Duration = Duration::from_secs(5);

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
#[error("{address} cannot be listened on: {error}")]
pub struct ServeError {
    address: SocketAddr,
    error: std::io::Error,
}

/// A port that is listened on.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Listens.
    ///
    /// # Errors
    /// [`ServeError`].
    pub async fn bind(address: SocketAddr) -> Result<Self, ServeError> {
        let named = |error| ServeError { address, error };
        let listener = TcpListener::bind(address).await.map_err(named)?;
        let address = listener.local_addr().map_err(named)?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `end`.
    ///
    /// # Errors
    /// Those of the port.
    pub async fn serve(self, search: Arc<dyn Search>, end: impl Future<Output = ()> + Send + 'static) -> std::io::Result<()> {
        let (told, ended) = tokio::sync::oneshot::channel();
        let serving = axum::serve(self.listener, router(search)).with_graceful_shutdown(async move {
            end.await;
            let _ = told.send(());
        });
        tokio::select! {
            done = serving => done,
            () = async { let _ = ended.await; tokio::time::sleep(GRACE).await } => Ok(()),
        }
    }
}

/// What requests share.
#[derive(Clone)]
struct Served {
    search: Arc<dyn Search>,
    places: Arc<Semaphore>,
}

/// The routes.
pub fn router(search: Arc<dyn Search>) -> Router {
    let served = Served { search, places: Arc::new(Semaphore::new(AT_ONCE)) };
    let of_world = |State(served): State<Served>, body: Body| async move { served.answer(Shape::Ours, 0, body).await };
    let of_layer =
        |State(served): State<Served>, Path(layer): Path<u64>, body: Body| async move { served.answer(Shape::Ours, layer, body).await };
    let retrieve = |State(served): State<Served>, body: Body| async move { served.answer(Shape::Retrieve, 0, body).await };
    let retrieve_layer =
        |State(served): State<Served>, Path(layer): Path<u64>, body: Body| async move { served.answer(Shape::Retrieve, layer, body).await };
    Router::new()
        .route("/search", post(of_world))
        .route("/layers/{layer}/search", post(of_layer))
        .route("/retrieve", post(retrieve))
        .route("/layers/{layer}/retrieve", post(retrieve_layer))
        .route("/healthz", get(|| async { "ok\n" }))
        .with_state(served)
}

/// How a request is put.
#[derive(Clone, Copy)]
enum Shape {
    Ours,
    Retrieve,
}

impl Served {
    async fn answer(&self, shape: Shape, layer: u64, body: Body) -> Response {
        let Ok(_place) = self.places.try_acquire() else {
            return answer(StatusCode::TOO_MANY_REQUESTS, &json!({"detail": format!("{AT_ONCE} requests are under way; come again")}));
        };
        let body = match timeout(ARRIVES, to_bytes(body, MOST_BYTES)).await {
            Ok(Ok(body)) => body,
            Ok(Err(error)) => return refused(&format!("the body cannot be read, or has more than {MOST_BYTES} bytes: {error}")),
            Err(_) => return answer(StatusCode::REQUEST_TIMEOUT, &json!({"detail": "the request did not arrive in time"})),
        };
        match shape {
            Shape::Ours => ours(&*self.search, layer, body).await,
            Shape::Retrieve => retrieve(&*self.search, layer, &body).await,
        }
    }
}

/// Our shape.
async fn ours(search: &dyn Search, layer: u64, body: Bytes) -> Response {
    // Pictures are decoded: no work for the runtime's threads.
    let read = tokio::task::spawn_blocking(move || question(&body)).await.unwrap_or_else(|died| Err(died.to_string()));
    let (hits, queries) = match read {
        Ok(read) => read,
        Err(why) => return refused(&why),
    };
    let told = |outcome: Outcome| match outcome {
        Ok(mut found) => {
            found.truncate(hits as usize);
            Told::Hits { hits: found }
        }
        Err(error) => Told::Failure { failure: error.fault, message: error.reason },
    };
    let results = searched(search, layer, &queries).await.into_iter().map(told).collect();
    answer(StatusCode::OK, &serde_json::to_value(Answer { results }).expect("plain values"))
}

/// Hits of each, at most, and the queries.
fn question(body: &[u8]) -> Result<(u32, Vec<Query>), String> {
    let Question { queries, hits } = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    if queries.len() > MOST_QUERIES {
        return Err(format!("{} queries, and one request takes {MOST_QUERIES}", queries.len()));
    }
    let (mut read, mut pixels) = (Vec::with_capacity(queries.len()), 0);
    for (at, sent) in queries.iter().enumerate() {
        let query = query(sent).map_err(|why| format!("queries[{at}]: {why}"))?;
        if let Query::Picture(picture) = &query {
            pixels += u64::from(picture.width()) * u64::from(picture.height());
        }
        if pixels > MOST_PIXELS {
            return Err(format!("queries[{at}]: pictures of one request have {MOST_PIXELS} pixels at most; send fewer"));
        }
        read.push(query);
    }
    Ok((hits, read))
}

fn query(sent: &Sent) -> Result<Query, String> {
    Ok(match sent {
        Sent::Text(text) => Query::Text(text.clone()),
        Sent::Page(address) => Query::Page(address.clone()),
        Sent::Picture(text) => {
            let bytes = STANDARD.decode(text).map_err(|error| format!("no base64: {error}"))?;
            Query::Picture(Arc::new(decode(&bytes, &Limits::default()).map_err(|error| error.to_string())?))
        }
    })
}

/// What Search-R1's clients send.
#[derive(Deserialize)]
struct Retrieve {
    queries: Vec<String>,
    #[serde(default)]
    topk: Option<usize>,
    #[serde(default)]
    return_scores: bool,
}

/// Hits of a query where none are named, as Search-R1's server gives.
const TOP: usize = 3;

/// Search-R1's shape. It has no word for a failure of one query, so that one fails all: an empty list would be taken for nothing found.
async fn retrieve(search: &dyn Search, layer: u64, body: &[u8]) -> Response {
    let asked: Retrieve = match serde_json::from_slice(body) {
        Ok(asked) => asked,
        Err(error) => return refused(&error.to_string()),
    };
    if asked.queries.len() > MOST_QUERIES {
        return refused(&format!("{} queries, and one request takes {MOST_QUERIES}", asked.queries.len()));
    }
    let queries: Vec<Query> = asked.queries.into_iter().map(Query::Text).collect();
    let mut lists = vec![];
    for outcome in searched(search, layer, &queries).await {
        match outcome {
            Ok(hits) => {
                lists.push(hits.iter().take(asked.topk.unwrap_or(TOP)).enumerate().map(document(asked.return_scores)).collect::<Vec<_>>())
            }
            Err(error) => {
                let status = match error.fault {
                    Fault::RateLimited => StatusCode::TOO_MANY_REQUESTS,
                    Fault::Quota => StatusCode::PAYMENT_REQUIRED,
                    Fault::Refused => StatusCode::BAD_REQUEST,
                    Fault::Timeout => StatusCode::GATEWAY_TIMEOUT,
                    Fault::Unavailable | Fault::Miss => StatusCode::SERVICE_UNAVAILABLE,
                };
                return answer(status, &json!({"detail": error.reason}));
            }
        }
    }
    answer(StatusCode::OK, &json!({"result": lists}))
}

fn document(scored: bool) -> impl Fn((usize, &Hit)) -> Value {
    move |(at, hit)| {
        let contents = format!("\"{}\"\n{}", hit.title, hit.content);
        let mut document = json!({"id": at.to_string(), "contents": contents});
        if let Some(url) = &hit.url {
            document["url"] = url.as_str().into();
        }
        if scored { json!({"document": document, "score": hit.score}) } else { document }
    }
}

async fn searched(search: &dyn Search, layer: u64, queries: &[Query]) -> Vec<Outcome> {
    if queries.is_empty() { vec![] } else { search.search(layer, queries).await }
}

fn refused(why: &str) -> Response {
    answer(StatusCode::UNPROCESSABLE_ENTITY, &json!({"detail": why}))
}

fn answer(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}
