//! A search that others ask over HTTP, in our own shape, in Search-R1's and by MCP. In: a port, something that can be searched. Out: answers, each
//! within the search's own bounds.
//!
//! Several processes share one cache, one budget and one service's rate by asking one of these. Each counterfactual layer has a path of its
//! own, so that whoever asks without knowing of layers searches one.

mod mcp;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hypereyes_environment::{Fault, Hit, Outcome, Query, Search};
use hypereyes_pictures::{Limits, decode, size};
use reqwest::Url;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::backends::http::{Answer, Question, Sent, Told};

/// Bytes of a request that are read: pictures of a call of a tool, in base64.
const MOST_BYTES: usize = 64 << 20;
/// Pixels of a request's pictures, together: two large photographs, or all crops of a call.
const MOST_PIXELS: u64 = 64 << 20;
/// KiB of requests that are read and answered at the same moment, with what is made of them; the others are told to come again. Thousands
/// of texts wait for a service's rate in it, or the pictures of some dozens.
const AT_ONCE_KIB: usize = 1 << 20;
/// KiB that a request counts as, at least.
const LEAST_KIB: u64 = 64;
/// Bytes of a pixel that is searched for, and what decoding it takes beside.
const PIXEL: u64 = 4;
/// Bytes of a value of JSON that is read without knowing what it is.
const VALUE: u64 = 96;
/// What is told where nothing more fits.
const BUSY: &str = "too many requests are under way; come again";
/// How long a request may take to arrive.
const ARRIVES: Duration = Duration::from_secs(60);
/// Queries of a request, at most.
const MOST_QUERIES: usize = 256;
/// How long requests under way may go on after the end.
pub const GRACE: Duration = Duration::from_secs(5);

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
        let served = Served::of(search);
        let answering = served.answering.clone();
        let serving = axum::serve(self.listener, routes(served)).with_graceful_shutdown(async move {
            end.await;
            let _ = told.send(());
        });
        let all = async {
            serving.await?;
            // Those that nobody waits for any more: what is paid for is kept.
            answering.close();
            answering.wait().await;
            Ok::<_, std::io::Error>(())
        };
        tokio::select! {
            done = all => done,
            () = async { let _ = ended.await; tokio::time::sleep(GRACE).await } => Ok(()),
        }
    }
}

/// What requests share.
#[derive(Clone)]
struct Served {
    search: Arc<dyn Search>,
    places: Arc<Semaphore>,
    /// Answers under way.
    answering: TaskTracker,
}

/// The routes.
pub fn router(search: Arc<dyn Search>) -> Router {
    routes(Served::of(search))
}

fn routes(served: Served) -> Router {
    let shape = |shape: Shape| {
        move |State(served): State<Served>, layer: Option<Path<u64>>, body: Body| async move {
            let layer = layer.map_or(0, |Path(layer)| layer);
            Served::to_the_end(served.answering.clone(), async move { served.answer(shape, layer, body).await }).await
        }
    };
    let mcp = |State(served): State<Served>, layer: Option<Path<u64>>, headers: HeaderMap, body: Body| async move {
        let layer = layer.map_or(0, |Path(layer)| layer);
        Served::to_the_end(served.answering.clone(), async move { served.mcp(layer, headers, body).await }).await
    };
    Router::new()
        .route("/search", post(shape(Shape::Ours)))
        .route("/layers/{layer}/search", post(shape(Shape::Ours)))
        .route("/retrieve", post(shape(Shape::Retrieve)))
        .route("/layers/{layer}/retrieve", post(shape(Shape::Retrieve)))
        .route("/mcp", post(mcp))
        .route("/layers/{layer}/mcp", post(mcp))
        .route("/healthz", get(|| async { "ok\n" }))
        .layer(from_fn(not_from_pages))
        .with_state(served)
}

/// A page in somebody's browser has no business here, wherever it asks: it would spend, and the address may have been made to look like
/// its own.
async fn not_from_pages(request: Request, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN).map(|origin| is_local(origin.to_str().unwrap_or_default()));
    match origin {
        Some(false) => answer(StatusCode::FORBIDDEN, &json!({"detail": "pages of other hosts may not ask"})),
        Some(true) | None => next.run(request).await,
    }
}

/// Whether a page is of this machine.
fn is_local(origin: &str) -> bool {
    let host = Url::parse(origin).ok().and_then(|origin| origin.host_str().map(str::to_owned));
    host.is_some_and(|host| matches!(host.as_str(), "localhost" | "127.0.0.1" | "[::1]"))
}

/// Why a request is not answered: a status, and words.
struct Refusal(StatusCode, String);

impl Refusal {
    fn bad(why: impl ToString) -> Self {
        Self(StatusCode::UNPROCESSABLE_ENTITY, why.to_string())
    }

    fn answer(&self) -> Response {
        answer(self.0, &json!({"detail": self.1}))
    }
}

/// Room for what is made of a request, before it is made.
fn room(places: &Arc<Semaphore>, bytes: u64) -> Result<OwnedSemaphorePermit, Refusal> {
    let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
    places.clone().try_acquire_many_owned(kib).map_err(|_| Refusal(StatusCode::TOO_MANY_REQUESTS, BUSY.to_owned()))
}

/// How a request is put.
#[derive(Clone, Copy)]
enum Shape {
    Ours,
    Retrieve,
}

impl Served {
    fn of(search: Arc<dyn Search>) -> Self {
        Self { search, places: Arc::new(Semaphore::new(AT_ONCE_KIB)), answering: TaskTracker::new() }
    }

    /// Makes an answer to its end, though whoever asked goes away: what is paid for is kept, and counts as long as it takes.
    async fn to_the_end(tasks: TaskTracker, answer: impl Future<Output = Response> + Send + 'static) -> Response {
        let made = tasks.spawn(answer.in_current_span()).await;
        made.unwrap_or_else(|died| self::answer(StatusCode::INTERNAL_SERVER_ERROR, &json!({"detail": died.to_string()})))
    }

    async fn answer(&self, shape: Shape, layer: u64, body: Body) -> Response {
        match (self.arrived(body).await, shape) {
            (Ok((_place, body)), Shape::Ours) => ours(self, layer, body).await,
            (Ok((_place, body)), Shape::Retrieve) => retrieve(&*self.search, layer, &body).await,
            (Err(refused), _) => *refused,
        }
    }

    async fn mcp(&self, layer: u64, headers: HeaderMap, body: Body) -> Response {
        match self.arrived(body).await {
            Ok((_place, body)) => mcp::answer(self, layer, &headers, body).await,
            Err(refused) => *refused,
        }
    }

    /// A request's body, and its place among those that are read and answered.
    async fn arrived(&self, body: Body) -> Result<(SemaphorePermit<'_>, Bytes), Box<Response>> {
        // One that does not say how long it is may be as long as any.
        let bytes = body.size_hint().exact().unwrap_or(MOST_BYTES as u64).min(MOST_BYTES as u64);
        // It is there twice while it is read.
        let kib = u32::try_from((2 * bytes).div_ceil(1024).max(LEAST_KIB)).unwrap_or(u32::MAX);
        let busy = |_| Box::new(Refusal(StatusCode::TOO_MANY_REQUESTS, BUSY.to_owned()).answer());
        let place = self.places.try_acquire_many(kib).map_err(busy)?;
        match timeout(ARRIVES, to_bytes(body, MOST_BYTES)).await {
            Ok(Ok(body)) => Ok((place, body)),
            Ok(Err(error)) => Err(refused(&format!("the body cannot be read, or has more than {MOST_BYTES} bytes: {error}")).into()),
            Err(_) => Err(answer(StatusCode::REQUEST_TIMEOUT, &json!({"detail": "the request did not arrive in time"})).into()),
        }
    }
}

/// Our shape.
async fn ours(served: &Served, layer: u64, body: Bytes) -> Response {
    // Pictures are decoded: no work for the runtime's threads.
    let places = served.places.clone();
    let read = tokio::task::spawn_blocking(move || question(body, &places)).await.unwrap_or_else(|died| Err(Refusal::bad(died)));
    let (hits, Read { queries, _room }) = match read {
        Ok(read) => read,
        Err(refusal) => return refusal.answer(),
    };
    let results = searched(&*served.search, layer, &queries).await.into_iter().map(|outcome| told(outcome, hits)).collect();
    answer(StatusCode::OK, &serde_json::to_value(Answer { results }).expect("plain values"))
}

/// An outcome as it is told, with so many hits at most.
fn told(outcome: Outcome, hits: u32) -> Told {
    match outcome {
        Ok(mut found) => {
            found.truncate(hits as usize);
            Told::Hits { hits: found }
        }
        Err(error) => Told::Failure { failure: error.fault, message: error.reason },
    }
}

/// Hits of each, at most, and the queries.
fn question(body: Bytes, places: &Arc<Semaphore>) -> Result<(u32, Read), Refusal> {
    let Question { queries, hits } = serde_json::from_slice(&body).map_err(Refusal::bad)?;
    drop(body);
    Ok((hits, read(queries, places)?))
}

/// Queries that were read, and the room that their pictures take as long as this lives.
struct Read {
    queries: Vec<Query>,
    _room: OwnedSemaphorePermit,
}

/// A query of which the picture is not decoded yet.
enum Encoded {
    Plain(Query),
    Picture(Vec<u8>),
}

/// Queries, within bounds: how large pictures are is known before any is decoded.
fn read(queries: Vec<Sent>, places: &Arc<Semaphore>) -> Result<Read, Refusal> {
    if queries.len() > MOST_QUERIES {
        return Err(Refusal::bad(format!("{} queries, and one request takes {MOST_QUERIES}", queries.len())));
    }
    let (mut all, mut pixels) = (Vec::with_capacity(queries.len()), 0);
    for (at, sent) in queries.into_iter().enumerate() {
        let (encoded, own) = encoded(sent).map_err(|why| Refusal::bad(format!("queries[{at}]: {why}")))?;
        pixels += own;
        if pixels > MOST_PIXELS {
            return Err(Refusal::bad(format!("queries[{at}]: pictures of one request have {MOST_PIXELS} pixels at most; send fewer")));
        }
        all.push(encoded);
    }
    let room = room(places, pixels * PIXEL)?;
    let query = |(at, encoded): (usize, Encoded)| match encoded {
        Encoded::Plain(query) => Ok(query),
        Encoded::Picture(bytes) => match decode(&bytes, &Limits::default()) {
            Ok(picture) => Ok(Query::Picture(Arc::new(picture))),
            Err(error) => Err(Refusal::bad(format!("queries[{at}]: {error}"))),
        },
    };
    let queries = all.into_iter().enumerate().map(query).collect::<Result<_, _>>()?;
    Ok(Read { queries, _room: room })
}

/// A query, and how many pixels it has.
fn encoded(sent: Sent) -> Result<(Encoded, u64), String> {
    Ok(match sent {
        Sent::Text(text) => (Encoded::Plain(Query::Text(text)), 0),
        Sent::Page(address) => (Encoded::Plain(Query::Page(address)), 0),
        Sent::Picture(text) => {
            let bytes = STANDARD.decode(text).map_err(|error| format!("no base64: {error}"))?;
            let (width, height) = size(&bytes, &Limits::default()).map_err(|error| error.to_string())?;
            (Encoded::Picture(bytes), u64::from(width) * u64::from(height))
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
