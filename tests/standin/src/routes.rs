//! Routes of a dialect, and what they have in common: keys, bodies, lies, the audit. In: requests. Out: responses. What JSON says is
//! the dialects' business.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::asked::{Asked, Refused, Turn};
use crate::audit::Entry;
use crate::server::Server;
use crate::told::{Told, fits};
use crate::turn::{FOREIGN, Midway};
use crate::{Dialect, Lie, replies, sglang, vllm};

/// Largest request that is read.
const MAX_BODY: usize = 256 << 20;

/// All routes of the server's dialect.
pub(crate) fn of(server: Arc<Server>) -> Router {
    let routes = match server.options.dialect {
        Dialect::Vllm => vllm::routes(),
        Dialect::Sglang => sglang::routes(),
    };
    let keyed = routes.layer(middleware::from_fn_with_state(server.clone(), authorise));
    keyed.layer(DefaultBodyLimit::max(MAX_BODY)).with_state(server)
}

async fn authorise(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    let shown = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    match &server.options.api_key {
        Some(key) if request.uri().path() != "/health" && shown != Some(&format!("Bearer {key}")) => {
            replies::json(StatusCode::UNAUTHORIZED, &json!({"error": "Unauthorized"}))
        }
        _ => next.run(request).await,
    }
}

/// The JSON of a body.
pub(crate) fn parse(body: &[u8]) -> Result<Value, Refused> {
    serde_json::from_slice(body).map_err(|error| Refused::request(format!("JSON decode error: {error}")))
}

/// A number of JSON that may be missing.
pub(crate) fn number<T: TryFrom<i64>>(value: &Value, name: &str) -> Result<Option<T>, Refused> {
    match &value[name] {
        Value::Null => Ok(None),
        value => {
            let wrong = || Refused::request(format!("{name} is {value}"));
            value.as_i64().and_then(|number| T::try_from(number).ok()).map(Some).ok_or_else(wrong)
        }
    }
}

/// A float of JSON that may be missing.
pub(crate) fn float(value: &Value, name: &str, default: f32) -> Result<f32, Refused> {
    match &value[name] {
        Value::Null => Ok(default),
        value => value.as_f64().map(|number| number as f32).ok_or_else(|| Refused::request(format!("{name} is {value}"))),
    }
}

/// Token ids of JSON.
pub(crate) fn ids(value: &Value, name: &str) -> Result<Vec<u32>, Refused> {
    let wrong = || Refused::request(format!("{name} is no list of token ids"));
    let list = value[name].as_array().ok_or_else(wrong)?;
    list.iter().map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(wrong)).collect()
}

/// How a dialect says what it was asked and what it answers.
pub(crate) struct Shapes {
    /// Where the request was sent.
    pub(crate) route: &'static str,
    /// The answer.
    pub(crate) reply: fn(&Server, &Asked, &Turn, &Told) -> Value,
    /// A refusal.
    pub(crate) refusal: fn(&Refused) -> Response,
}

impl Server {
    /// Answers a request for tokens or log-probs.
    pub(crate) async fn answer(&self, asked: Result<Asked, Refused>, shapes: &Shapes) -> Response {
        let asked = match asked {
            Ok(asked) => asked,
            Err(refused) => return (shapes.refusal)(&refused),
        };
        let lie = self.draws.lock().draw(|lie| fits(lie, &asked));
        let without_a_turn = |lie| self.audit.add(Entry::of_order(shapes.route, asked.id.clone(), Some(lie)));
        match lie {
            Some(lie @ Lie::Hang) => {
                without_a_turn(lie);
                return std::future::pending().await;
            }
            Some(lie @ Lie::Busy) => {
                without_a_turn(lie);
                return replies::busy();
            }
            Some(lie @ Lie::Unavailable) => {
                without_a_turn(lie);
                return StatusCode::SERVICE_UNAVAILABLE.into_response();
            }
            _ => {}
        }
        let midway = match lie {
            Some(Lie::Restart) => Midway::Stop,
            Some(Lie::Swap) => Midway::Swap,
            _ => Midway::Nothing,
        };
        let turn = match self.served.sample(&asked, midway).await {
            Ok(Some(turn)) => turn,
            Ok(None) => {
                without_a_turn(Lie::Restart);
                // The answer to this order ends with the connection.
                let (done, _) = tokio::sync::oneshot::channel();
                let _ = self.restarts.send(done).await;
                return std::future::pending().await;
            }
            Err(refused) => return (shapes.refusal)(&refused),
        };
        // Somebody else's weights that sampled nothing, since others came at once or the turn was over, are no lie.
        let lie = lie.filter(|lie| *lie != Lie::Swap || turn.labels.iter().any(|label| label == FOREIGN));
        let stale = self.served.look().await.label_before.clone();
        let told = Told::of(&turn, &asked, lie, &stale, self.served.model.image_token_id, self.served.model.text.vocab_size);
        let reply = (shapes.reply)(self, &asked, &turn, &told);
        self.audit.add(Entry::of_turn(shapes.route, &asked, &turn, lie));
        match lie {
            Some(Lie::Drop) => replies::dropped(&reply),
            Some(Lie::Malformed) => replies::malformed(&reply),
            Some(Lie::Oversized) => replies::endless(&reply),
            _ => replies::json(StatusCode::OK, &reply),
        }
    }

    /// Takes the weights of a folder, unless it is to fail.
    pub(crate) async fn reload(&self, route: &'static str, folder: PathBuf, label: Option<&str>) -> Result<(), Refused> {
        let lie = self.draws.lock().draw(|lie| lie == Lie::ReloadFails);
        self.audit.add(Entry::of_order(route, folder.display().to_string(), lie));
        match lie {
            Some(_) => Err(Refused::server("the weights cannot be loaded: out of memory")),
            None => self.served.load(folder, label).await,
        }
    }

    /// Writes down an order that changes the server.
    pub(crate) fn note(&self, route: &'static str, what: impl Into<String>) {
        self.audit.add(Entry::of_order(route, what, None));
    }
}
