//! The search as tools of the Model Context Protocol. In: messages, of the revision without sessions and of those before it, for which a
//! handshake is answered and no session is begun. Out: answers, each a JSON object.

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use hypereyes_environment::Fault;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::{Read, Refusal, Served, VALUE, answer as reply, read, room, searched, told};
use crate::backends::http::{Answer, Sent, Told};
use crate::mcp::{
    HANDSHAKES, HEADER_MISMATCH, INVALID_PARAMS, INVALID_REQUEST, META_CAPABILITIES, META_SERVER, META_VERSION, METHOD, NAME, NO_METHOD,
    PARSE, STATELESS, UNSUPPORTED_VERSION, VERSION, decoded, us,
};

/// Messages of a batch, at most.
const BATCH: usize = 16;
/// Hits of a query where no number is named.
const HITS: u32 = 10;
/// Hits of a query, at most.
const MOST_HITS: u32 = 100;
/// How long a client may keep the list of tools, in milliseconds: it never changes.
const KEPT_MS: u64 = 3_600_000;
/// What a client may tell its model.
const INSTRUCTIONS: &str = "Search for many things in one call: each tool takes a list, and answers each of its items by itself.";

/// An error of the protocol: a code, words, and what else is said.
struct Error(i64, String, Value);

impl Error {
    fn new(code: i64, said: impl Into<String>) -> Self {
        Self(code, said.into(), Value::Null)
    }

    /// The status of an answer that is this error, at a server without sessions.
    fn status(&self) -> StatusCode {
        if self.0 == NO_METHOD { StatusCode::NOT_FOUND } else { StatusCode::BAD_REQUEST }
    }

    fn answer(&self, id: &Value) -> Value {
        let Self(code, said, data) = self;
        let mut error = json!({"code": code, "message": said});
        if !data.is_null() {
            error["data"] = data.clone();
        }
        json!({"jsonrpc": "2.0", "id": id, "error": error})
    }
}

/// Answers what was posted.
pub(super) async fn answer(served: &Served, layer: u64, headers: &HeaderMap, body: Bytes) -> Response {
    let version = text(headers, VERSION);
    // It may be large, and may become larger: neither is the runtime's threads' matter.
    let places = served.places.clone();
    let parsed = tokio::task::spawn_blocking(move || -> Result<_, Refusal> {
        let values = body.iter().filter(|byte| matches!(byte, b',' | b':' | b'[' | b'{')).count() as u64;
        let room = room(&places, values * VALUE)?;
        Ok((serde_json::from_slice::<Value>(&body), room))
    });
    let (parsed, _room) = match parsed.await.unwrap_or_else(|died| Err(Refusal::bad(died))) {
        Ok(parsed) => parsed,
        Err(refusal) => return refusal.answer(),
    };
    let said = match parsed {
        Ok(Value::Array(batch)) if version.is_none_or(|version| version == HANDSHAKES[2]) => {
            return answer_batch(served, layer, headers, batch).await;
        }
        Ok(message) => one(served, layer, headers, message).await,
        Err(error) => (StatusCode::BAD_REQUEST, Some(Error::new(PARSE, error.to_string()).answer(&Value::Null))),
    };
    match said {
        (status, Some(said)) => reply(status, &said),
        (status, None) => status.into_response(),
    }
}

/// Many messages at once, which one revision has: one after the other, so that they are no more work at a time than one.
async fn answer_batch(served: &Served, layer: u64, headers: &HeaderMap, batch: Vec<Value>) -> Response {
    if batch.is_empty() || batch.len() > BATCH {
        let error = Error::new(INVALID_REQUEST, format!("a batch has 1 to {BATCH} messages"));
        return reply(StatusCode::BAD_REQUEST, &error.answer(&Value::Null));
    }
    let mut answers = vec![];
    for message in batch {
        answers.extend(one(served, layer, headers, message).await.1);
    }
    if answers.is_empty() { StatusCode::ACCEPTED.into_response() } else { reply(StatusCode::OK, &answers.into()) }
}

/// One message; a notification has no answer.
async fn one(served: &Served, layer: u64, headers: &HeaderMap, mut message: Value) -> (StatusCode, Option<Value>) {
    let bad = |said: &str| (StatusCode::BAD_REQUEST, Some(Error::new(INVALID_REQUEST, said).answer(&Value::Null)));
    if message.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return bad("it is no JSON-RPC 2.0 message");
    }
    let Some(method) = message.get("method").and_then(Value::as_str).map(str::to_owned) else {
        // An answer to something that was never asked.
        let is_answer = message.get("result").or(message.get("error")).is_some();
        return if is_answer { (StatusCode::ACCEPTED, None) } else { bad("it has no method") };
    };
    let id = match message.get("id") {
        None => return (StatusCode::ACCEPTED, None),
        Some(id @ (Value::String(_) | Value::Number(_))) => id.clone(),
        Some(_) => return bad("its id is neither a text nor a number"),
    };
    let params = match message.get_mut("params").map(Value::take) {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(params)) => params,
        Some(_) => return (StatusCode::BAD_REQUEST, Some(Error::new(INVALID_PARAMS, "params are no object").answer(&id))),
    };
    let is_stateless = match stateless(headers, &method, &params) {
        Ok(is_stateless) => is_stateless,
        Err(error) => return (error.status(), Some(error.answer(&id))),
    };
    match result(served, layer, is_stateless, &method, params).await {
        Ok(mut result) => {
            if is_stateless {
                result["resultType"] = "complete".into();
                result["_meta"] = json!({META_SERVER: us()});
            }
            (StatusCode::OK, Some(json!({"jsonrpc": "2.0", "id": id, "result": result})))
        }
        Err(error) => (if is_stateless { error.status() } else { StatusCode::OK }, Some(error.answer(&id))),
    }
}

/// Whether a request is of the revision without sessions; refused where it says that it is and does not do as that one wants.
fn stateless(headers: &HeaderMap, method: &str, params: &Map<String, Value>) -> Result<bool, Error> {
    let (said, meta) = (text(headers, VERSION), params.get("_meta"));
    let stated = meta.and_then(|meta| meta.get(META_VERSION)).map(|version| version.as_str().unwrap_or_default());
    let Some(revision) = stated.or(said.filter(|said| !HANDSHAKES.contains(said))) else { return Ok(false) };
    let mismatch = |name: &str| Error::new(HEADER_MISMATCH, format!("Header mismatch: {name} is not what the body says"));
    if stated.is_some() && said != stated {
        return Err(mismatch(VERSION));
    }
    if revision != STATELESS {
        let supported: Vec<&str> = std::iter::once(STATELESS).chain(HANDSHAKES).collect();
        let requested: String = revision.chars().take(40).collect();
        return Err(Error(
            UNSUPPORTED_VERSION,
            "Unsupported protocol version".into(),
            json!({"supported": supported, "requested": requested}),
        ));
    }
    if stated.is_none() || !meta.and_then(|meta| meta.get(META_CAPABILITIES)).is_some_and(Value::is_object) {
        return Err(Error::new(INVALID_PARAMS, format!("_meta needs {META_VERSION} and {META_CAPABILITIES}")));
    }
    if text(headers, METHOD) != Some(method) {
        return Err(mismatch(METHOD));
    }
    let named = params.get("name").and_then(Value::as_str).filter(|_| method == "tools/call");
    if let Some(name) = named
        && text(headers, NAME).and_then(decoded).as_deref() != Some(name)
    {
        return Err(mismatch(NAME));
    }
    Ok(true)
}

async fn result(served: &Served, layer: u64, is_stateless: bool, method: &str, params: Map<String, Value>) -> Result<Value, Error> {
    match method {
        "tools/list" if is_stateless => Ok(json!({"tools": tools(), "ttlMs": KEPT_MS, "cacheScope": "public"})),
        "tools/list" => Ok(json!({"tools": tools()})),
        "tools/call" => called(served, layer, params).await,
        "server/discover" if is_stateless => Ok(json!({
            "supportedVersions": [STATELESS],
            "capabilities": {"tools": {}},
            "instructions": INSTRUCTIONS,
            "ttlMs": KEPT_MS,
            "cacheScope": "public",
        })),
        "initialize" if !is_stateless => {
            let asked = params.get("protocolVersion").and_then(Value::as_str);
            // What the client wants, where it can be had; then it says whether it takes what it gets.
            let revision = HANDSHAKES.into_iter().find(|known| Some(*known) == asked).unwrap_or(HANDSHAKES[0]);
            Ok(json!({"protocolVersion": revision, "capabilities": {"tools": {}}, "serverInfo": us(), "instructions": INSTRUCTIONS}))
        }
        "ping" if !is_stateless => Ok(json!({})),
        _ => Err(Error::new(NO_METHOD, "Method not found")),
    }
}

/// Arguments of `search`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Texts {
    queries: Vec<String>,
    #[serde(default = "hits")]
    hits: u32,
}

/// Arguments of `search_pictures`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pictures {
    pictures: Vec<String>,
    #[serde(default = "hits")]
    hits: u32,
}

/// Arguments of `visit`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pages {
    pages: Vec<String>,
}

fn hits() -> u32 {
    HITS
}

/// Calls a tool. What it cannot take is its own failure, which a model can mend; only a tool that is not there is the protocol's.
async fn called(served: &Served, layer: u64, mut params: Map<String, Value>) -> Result<Value, Error> {
    let name = params.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let arguments = params.remove("arguments").unwrap_or_else(|| json!({}));
    let asked = match name.as_str() {
        "search" => arguments_of::<Texts>(arguments).map(|asked| (asked.queries.into_iter().map(Sent::Text).collect(), asked.hits)),
        "search_pictures" => {
            arguments_of::<Pictures>(arguments).map(|asked| (asked.pictures.into_iter().map(Sent::Picture).collect(), asked.hits))
        }
        "visit" => arguments_of::<Pages>(arguments).map(|asked| (asked.pages.into_iter().map(Sent::Page).collect(), 1)),
        other => return Err(Error::new(INVALID_PARAMS, format!("Unknown tool: {:?}", other.chars().take(60).collect::<String>()))),
    };
    let (sent, hits): (Vec<Sent>, u32) = match asked {
        Ok(asked) => asked,
        Err(why) => return Ok(failed(&why)),
    };
    if !(1..=MOST_HITS).contains(&hits) {
        return Ok(failed(&format!("invalid argument: hits is {hits}: give 1 to {MOST_HITS}")));
    }
    // Pictures are decoded: no work for the runtime's threads.
    let places = served.places.clone();
    let read = tokio::task::spawn_blocking(move || read(sent, &places)).await.unwrap_or_else(|died| Err(Refusal::bad(died)));
    let Read { queries, _room } = match read {
        Ok(read) => read,
        // What does not fit now may come again.
        Err(Refusal(StatusCode::TOO_MANY_REQUESTS, why)) => return Ok(failed(&why)),
        Err(Refusal(_, why)) => return Ok(failed(&format!("invalid argument: {why}"))),
    };
    let results: Vec<Told> = searched(&*served.search, layer, &queries).await.into_iter().map(|outcome| told(outcome, hits)).collect();
    let is_error = !results.is_empty() && results.iter().all(|told| matches!(told, Told::Failure { .. }));
    let structured = serde_json::to_value(Answer { results }).expect("plain values");
    let text = structured.to_string();
    Ok(json!({"content": [{"type": "text", "text": text}], "structuredContent": structured, "isError": is_error}))
}

fn arguments_of<T: DeserializeOwned>(arguments: Value) -> Result<T, String> {
    serde_json::from_value(arguments).map_err(|error| format!("invalid argument: {error}"))
}

/// A result that says why there is none.
fn failed(why: &str) -> Value {
    json!({"content": [{"type": "text", "text": why}], "isError": true})
}

/// What a client can call.
fn tools() -> Value {
    let hits = json!({"type": "integer", "minimum": 1, "maximum": MOST_HITS, "default": HITS, "description": "Hits of each, at most."});
    let list = |said: &str| json!({"type": "array", "items": {"type": "string"}, "description": said});
    let tool = |name: &str, said: &str, argument: &str, list: Value, hits: Option<&Value>| {
        let mut properties = json!({argument: list});
        if let Some(hits) = hits {
            properties["hits"] = hits.clone();
        }
        json!({
            "name": name,
            "description": said,
            "inputSchema": {"type": "object", "properties": properties, "required": [argument], "additionalProperties": false},
            "outputSchema": output(),
            "annotations": {"readOnlyHint": true},
        })
    };
    json!([
        tool("search", "Searches for texts, all at once.", "queries", list("What is searched for, each by itself."), Some(&hits)),
        tool(
            "search_pictures",
            "Searches for what pictures show, all at once.",
            "pictures",
            list("PNG or JPEG in base64, each by itself."),
            Some(&hits)
        ),
        tool("visit", "Reads pages, all at once.", "pages", list("Addresses, or titles of hits."), None),
    ])
}

/// What every tool answers: for each item, in order, hits or in which way it failed.
fn output() -> Value {
    let text = json!({"type": "string"});
    let hit =
        json!({"title": text, "content": text, "detail": text, "url": text, "source": text, "date": text, "score": {"type": "number"}});
    let failures: Vec<&str> = Fault::ALL.iter().map(|fault| fault.label()).collect();
    let result = json!({
        "hits": {"type": "array", "items": {"type": "object", "properties": hit}},
        "failure": {"type": "string", "enum": failures},
        "message": text,
    });
    let results = json!({"type": "array", "items": {"type": "object", "properties": result}});
    json!({"type": "object", "properties": {"results": results}, "required": ["results"]})
}

/// A header that is a text.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
