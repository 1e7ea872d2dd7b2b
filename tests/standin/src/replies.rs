//! Replies, sound and broken, as HTTP. In: JSON, or text. Out: responses. It knows no dialect.

use std::convert::Infallible;
use std::io;

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use serde_json::Value;

/// Bytes of one part of an endless reply.
const PART: usize = 1 << 20;
/// Parts after which it ends all the same: more than any client reads.
const PARTS: usize = 4096;

/// A reply in JSON.
pub(crate) fn json(status: StatusCode, value: &Value) -> Response {
    text(status, value.to_string())
}

fn text(status: StatusCode, body: impl Into<Body>) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body.into()).into_response()
}

/// One that says how long to wait.
pub(crate) fn busy() -> Response {
    (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "1")]).into_response()
}

/// The first half of a reply, as if it were all of it.
pub(crate) fn malformed(value: &Value) -> Response {
    let whole = value.to_string();
    text(StatusCode::OK, half(&whole).to_owned())
}

/// The first half of a reply, and then the end of the connection.
pub(crate) fn dropped(value: &Value) -> Response {
    let whole = value.to_string();
    let parts = [Ok(Bytes::from(half(&whole).to_owned())), Err(io::Error::other("dropped"))];
    text(StatusCode::OK, Body::from_stream(stream::iter(parts)))
}

/// A reply that goes on and on.
pub(crate) fn endless(value: &Value) -> Response {
    let whole = value.to_string();
    let first = Ok::<_, Infallible>(Bytes::from(half(&whole).to_owned()));
    let blank = Bytes::from(vec![b' '; PART]);
    let parts = stream::iter(std::iter::once(first).chain(std::iter::repeat_n(Ok(blank), PARTS)));
    text(StatusCode::OK, Body::from_stream(parts))
}

fn half(text: &str) -> &str {
    let middle = (0..=text.len() / 2).rev().find(|at| text.is_char_boundary(*at));
    &text[..middle.unwrap_or(0)]
}
