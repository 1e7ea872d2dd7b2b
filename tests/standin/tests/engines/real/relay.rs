//! The way to a server, on which it is written down what it says: an engine tells no more of a turn than what is trained.

use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use hypereyes_standin::Dialect;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use super::GAP;
use crate::fleet::Turn;
use crate::support::{Said, said};

/// Longest request: a prompt with its pictures.
const MAX_BYTES: usize = 64 << 20;

/// Passes requests on to a server. It ends when it is dropped.
pub struct Relay {
    url: String,
    told: Arc<Mutex<Vec<Said>>>,
    task: JoinHandle<()>,
}

impl Relay {
    pub async fn to(server: &str) -> Self {
        let told = Arc::new(Mutex::new(vec![]));
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let (root, noted) = (server.trim_end_matches('/').to_owned(), told.clone());
        let pass = move |request: Request| pass(client.clone(), root.clone(), noted.clone(), request);
        let router = Router::new().fallback(pass);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let service = TowerToHyperService::new(router.clone());
                connections.spawn(async move {
                    let builder = Builder::new(TokioExecutor::new()).http1_only();
                    // Whoever hangs up has its reasons.
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { url, told, task }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// The weights that sampled a turn, with the tokens that each did; `None` where it was not sampled here.
    pub fn weights(&self, turn: &Turn) -> Option<Vec<(String, usize, usize)>> {
        let told = self.told.lock();
        // A policy that is sure says the same under several versions, and a server's log-probs move a little with what else is in its
        // batch: of what is as near as that, the newest is meant.
        let alike = |said: &Said| {
            let own = &turn.sampled;
            let gaps = said.logprobs.iter().zip(&own.logprobs).filter_map(|(said, own)| Some((said.as_ref()? - f64::from(*own)).abs()));
            let gaps: Vec<f64> = gaps.collect();
            let is_near = gaps.len() == own.tokens.len() && gaps.iter().sum::<f64>() < GAP * gaps.len() as f64;
            said.tokens == own.tokens && said.prompt == turn.prompt && is_near
        };
        let found = told.iter().rev().find(|said| alike(said));
        found.map(|said| said.versions.clone())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(client: reqwest::Client, root: String, told: Arc<Mutex<Vec<Said>>>, request: Request) -> Response {
    match passed(&client, &root, request).await {
        Ok((path, status, reply)) => {
            if status == StatusCode::OK
                && path == "/inference/v1/generate"
                && let Ok(reply) = serde_json::from_slice::<Value>(&reply)
            {
                told.lock().push(said(&reply, Dialect::Vllm));
            }
            (status, [(header::CONTENT_TYPE, "application/json")], reply).into_response()
        }
        Err(error) => (StatusCode::BAD_GATEWAY, error).into_response(),
    }
}

async fn passed(client: &reqwest::Client, root: &str, request: Request) -> Result<(String, StatusCode, Bytes), String> {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, MAX_BYTES).await.map_err(|error| error.to_string())?;
    let url = format!("{root}{}", head.uri.path_and_query().map_or("/", |path| path.as_str()));
    let sent = client.request(head.method, url).header(header::CONTENT_TYPE, "application/json").body(body).send().await;
    let response = sent.map_err(|error| error.to_string())?;
    let status = response.status();
    Ok((head.uri.path().to_owned(), status, response.bytes().await.map_err(|error| error.to_string())?))
}
