//! One server's address, and how it is asked over HTTP. In: a path, a body, a moment. Out: the bytes of a reply of 200, or a typed miss.
//! Replies and what is read of refusals are bounded; every wait has an end. It knows no dialect and asks once.

use std::time::Duration;

use bytes::Bytes;
use hypereyes_outside::text::escaped;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use super::outcome::{Miss, Outcome};

/// Longest reply that is read: some hundred bytes for each of a hundred thousand tokens.
const MAX_REPLY_BYTES: usize = 64 << 20;
/// Most that is read of a refusal.
const MAX_REFUSAL_BYTES: usize = 16 << 10;
/// Most characters of a refusal that are quoted.
const MAX_QUOTED: usize = 300;

/// A server's address.
#[derive(Clone)]
pub struct Link {
    url: String,
    client: Client,
    /// What is sent as authorisation, which is shown nowhere.
    key: Option<HeaderValue>,
}

impl std::fmt::Debug for Link {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("url", &self.url).finish_non_exhaustive()
    }
}

/// A question: where it goes, and its body if it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Path below the server's root, with its query.
    pub path: &'static str,
    /// JSON that is posted; without one, the question is a GET.
    pub body: Option<Bytes>,
}

impl Call {
    /// A question without a body.
    pub const fn get(path: &'static str) -> Self {
        Self { path, body: None }
    }

    /// JSON that is posted.
    pub fn post(path: &'static str, body: &Value) -> Self {
        Self { path, body: Some(body.to_string().into()) }
    }
}

impl Link {
    /// A server at `url` (scheme, host, port and path, with or without a slash at the end), reached by `client`.
    pub fn new(url: &str, key: Option<HeaderValue>, client: Client) -> Self {
        Self { url: url.trim_end_matches('/').to_owned(), client, key }
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Asks once, and waits until a moment.
    ///
    /// # Errors
    /// [`Miss`].
    pub async fn ask(&self, call: &Call, until: Instant) -> Result<Vec<u8>, Miss> {
        self.ask_until(call, sleep_until(until)).await
    }

    /// Asks once, and waits until something else has happened.
    ///
    /// # Errors
    /// [`Miss`].
    pub async fn ask_until(&self, call: &Call, late: impl Future<Output = ()>) -> Result<Vec<u8>, Miss> {
        let url = format!("{}{}", self.url, call.path);
        let mut request = match &call.body {
            Some(body) => self.client.post(url).header(CONTENT_TYPE, "application/json").body(body.clone()),
            None => self.client.get(url),
        };
        if let Some(key) = &self.key {
            request = request.header(AUTHORIZATION, key.clone());
        }
        let asked = Instant::now();
        tokio::select! {
            biased;
            reply = exchange(request) => reply,
            () = late => {
                let waited = (Instant::now() - asked).as_secs();
                Err(Miss::again(Outcome::Slow, format!("{} gave no answer within {waited} s", call.path)))
            }
        }
    }
}

/// A reply as JSON of some shape. One that was cut off parses as nothing, and another attempt may bring a whole one; one of another shape
/// would come again.
///
/// # Errors
/// [`Outcome::Malformed`].
pub fn read<T: serde::de::DeserializeOwned>(reply: &[u8]) -> Result<T, Miss> {
    serde_json::from_slice(reply).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => Miss::last(Outcome::Malformed, format!("its reply has another shape: {error}")),
        _ => Miss::again(Outcome::Malformed, format!("its reply is no JSON: {error}")),
    })
}

async fn exchange(request: RequestBuilder) -> Result<Vec<u8>, Miss> {
    let broke = |error: reqwest::Error| {
        let outcome = if error.is_connect() { Outcome::Connect } else { Outcome::Transport };
        Miss::again(outcome, causes(&error.without_url()))
    };
    let mut response = request.send().await.map_err(broke)?;
    if response.status() != StatusCode::OK {
        return Err(refusal(response).await);
    }
    let mut reply = Vec::new();
    while let Some(part) = response.chunk().await.map_err(broke)? {
        if reply.len() + part.len() > MAX_REPLY_BYTES {
            return Err(Miss::last(Outcome::TooLong, format!("its reply is longer than {MAX_REPLY_BYTES} bytes")));
        }
        reply.extend_from_slice(&part);
    }
    Ok(reply)
}

/// What a reply other than 200 means.
async fn refusal(response: Response) -> Miss {
    let (status, after) = (response.status(), retry_after(response.headers()));
    let said = quoted(response).await;
    let reason = if said.is_empty() { status.to_string() } else { format!("{status}: {said}") };
    let busy = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE].contains(&status);
    if busy {
        return Miss { after, ..Miss::again(Outcome::Busy, reason) };
    }
    if status.is_server_error() { Miss::again(Outcome::Server, reason) } else { Miss::last(Outcome::Refused, reason) }
}

/// The pause that a server asks for, in seconds. A date is passed over: clocks differ.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// What a refusal says, for people: its message where it is JSON that has one.
async fn quoted(mut response: Response) -> String {
    let mut bytes = Vec::new();
    while let Ok(Some(part)) = response.chunk().await {
        bytes.extend_from_slice(&part[..part.len().min(MAX_REFUSAL_BYTES - bytes.len())]);
        if bytes.len() >= MAX_REFUSAL_BYTES {
            break;
        }
    }
    let message = serde_json::from_slice::<Value>(&bytes).ok().and_then(|value| message_of(&value));
    let text = message.unwrap_or_else(|| String::from_utf8_lossy(&bytes).into_owned());
    let text: String = text.trim().chars().take(MAX_QUOTED).collect();
    escaped(&text, &[]).into_owned()
}

/// `error.message`, `message`, `error` or `detail`, whichever is a text.
fn message_of(value: &Value) -> Option<String> {
    let places = [&value["error"]["message"], &value["message"], &value["error"], &value["detail"]];
    places.into_iter().find_map(Value::as_str).map(str::to_owned)
}

/// An error with what caused it: "error sending request" alone says nothing.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
