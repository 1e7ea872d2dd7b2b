//! How a server is spoken to. In: its address. Out: the revision that it speaks, its session where it has one, the tool that is called, and
//! answers to calls of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hypereyes_environment::Fault;
use reqwest::header::{ACCEPT, HeaderMap, HeaderValue};
use serde_json::{Map, Value, json};

use super::Told;
use super::result::{code, error};
use super::tool::Tool;
use crate::http::send::{Sender, Sent};
use crate::mcp::{
    HANDSHAKES, HEADER_MISMATCH, META_CAPABILITIES, META_CLIENT, META_VERSION, METHOD, NAME, NO_CAPABILITY, SESSION, STATELESS,
    UNSUPPORTED_VERSION, VERSION, encoded, us,
};
use crate::rate::Turn;

/// Pages of a list of tools that are read.
const PAGES: usize = 16;
/// Tools that are looked at.
const TOOLS: usize = 1000;
/// Longest id of a session.
const LONGEST_ID: usize = 1024;
/// How long a server has to hear that a session is over.
const FAREWELL: Duration = Duration::from_secs(2);

/// What a server understands.
enum Speech {
    /// Every request says everything.
    Stateless,
    /// There was a handshake, and perhaps there is a session.
    Handshake { revision: &'static str, id: Option<HeaderValue> },
}

/// A server that is understood, and its tool.
pub struct Session {
    speech: Speech,
    tool: Tool,
}

/// Where requests go, and under which numbers.
struct Line<'a> {
    sender: &'a Sender,
    path: &'a str,
    ids: &'a AtomicU64,
    /// Where requests wait for a turn of theirs; none where the turn has come.
    turn: Option<Turn<'a>>,
}

/// How a server is spoken to that is not understood yet: a session of it is ended unless it is taken.
struct Begun<'a> {
    sender: &'a Sender,
    path: &'a str,
    speech: Option<Speech>,
}

impl Begun<'_> {
    fn speech(&self) -> &Speech {
        self.speech.as_ref().expect("it is taken last")
    }

    fn take(mut self) -> Speech {
        self.speech.take().expect("it is taken once")
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if let Some(speech) = &self.speech {
            speech.end(self.sender, self.path);
        }
    }
}

impl Session {
    /// Finds out how a server is spoken to, and which of its tools is called.
    ///
    /// # Errors
    /// [`Sent`]: what came back instead, or why the server is of no use.
    pub async fn open(sender: &Sender, path: &str, told: &Told, wants: &Value, ids: &AtomicU64, turn: Turn<'_>) -> Result<Self, Sent> {
        let line = Line { sender, path, ids, turn: Some(turn) };
        let stateless = match told.revision {
            None | Some(STATELESS) => Some(line.tools(&Speech::Stateless).await),
            Some(_) => None,
        };
        let (begun, tools) = match stateless {
            Some(Err(sent)) if told.revision.is_some() || !speaks_earlier(&sent) => return Err(sent),
            Some(Ok(tools)) => (line.begun(Speech::Stateless), tools),
            Some(Err(_)) | None => {
                let begun = line.handshake(told.revision.unwrap_or(HANDSHAKES[0])).await?;
                let tools = line.tools(begun.speech()).await?;
                (begun, tools)
            }
        };
        let tool = Tool::of(&tools, told, wants).map_err(Sent::Missed)?;
        Ok(Self { speech: begun.take(), tool })
    }

    /// The revision that is spoken.
    pub fn revision(&self) -> &'static str {
        self.speech.revision()
    }

    /// Calls the tool for what is wanted.
    pub async fn call(&self, sender: &Sender, path: &str, ids: &AtomicU64, wants: &Value) -> Sent {
        let (arguments, headers) = self.tool.arguments(wants);
        let params = [("name".to_owned(), json!(self.tool.name)), ("arguments".to_owned(), Value::Object(arguments))];
        Line { sender, path, ids, turn: None }.ask(&self.speech, "tools/call", params.into_iter().collect(), headers).await.0
    }

    /// Whether an answer says that the server knows this session no more, speaks another revision by now, or has another tool.
    pub fn is_over(&self, sent: &Sent) -> bool {
        let Sent::Reply(reply) = sent else { return false };
        let has_session = matches!(self.speech, Speech::Handshake { id: Some(_), .. });
        let of_session = || error(&reply.body).is_some_and(|(_, said)| said.to_lowercase().contains("session"));
        // The protocol says 404; servers that do not say 400.
        (has_session && (reply.status == 404 || (reply.status == 400 && of_session())))
            || matches!(code(&reply.body), Some(UNSUPPORTED_VERSION | HEADER_MISMATCH))
    }

    /// Tells the server that it is over.
    pub fn end(&self, sender: &Sender, path: &str) {
        self.speech.end(sender, path);
    }
}

impl Speech {
    /// Tells the server that a session is over, if there is somebody to tell it: nothing waits for that.
    fn end(&self, sender: &Sender, path: &str) {
        let Self::Handshake { id: Some(_), .. } = self else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let farewell = sender.delete(path, self.headers());
        runtime.spawn(tokio::time::timeout(FAREWELL, farewell));
    }

    fn revision(&self) -> &'static str {
        match self {
            Self::Stateless => STATELESS,
            Self::Handshake { revision, .. } => revision,
        }
    }

    /// What every request says in its headers.
    fn headers(&self) -> HeaderMap {
        let mut headers = accepting();
        // The first revision knows no such header.
        if self.revision() != HANDSHAKES[2] {
            headers.insert(VERSION, HeaderValue::from_static(self.revision()));
        }
        if let Self::Handshake { id: Some(id), .. } = self {
            headers.insert(SESSION, id.clone());
        }
        headers
    }
}

impl<'a> Line<'a> {
    fn begun(&self, speech: Speech) -> Begun<'a> {
        Begun { sender: self.sender, path: self.path, speech: Some(speech) }
    }

    /// Asks, and gives what came back, with its headers: an answer to this very request, a bad status, or why there is neither.
    async fn ask(&self, speech: &Speech, method: &'static str, mut params: Map<String, Value>, more: HeaderMap) -> (Sent, HeaderMap) {
        let mut headers = speech.headers();
        if let Speech::Stateless = speech {
            headers.insert(METHOD, HeaderValue::from_static(method));
            let name = params.get("name").and_then(Value::as_str).and_then(|name| HeaderValue::try_from(encoded(name)).ok());
            if let Some(name) = name {
                headers.insert(NAME, name);
            }
            headers.extend(more);
            params.insert("_meta".into(), json!({META_VERSION: STATELESS, META_CLIENT: us(), META_CAPABILITIES: {}}));
        }
        self.request(headers, method, params).await
    }

    async fn request(&self, headers: HeaderMap, method: &str, params: Map<String, Value>) -> (Sent, HeaderMap) {
        if let Some(turn) = self.turn
            && !turn.comes().await
        {
            let why = "a turn to find out how it is spoken to would come after the search's deadline (per_second)";
            return (Sent::Missed((Fault::Timeout, why.to_owned())), HeaderMap::new());
        }
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let body = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        // An error may be of a request that could not even be read.
        let is_ours = move |message: &Value| {
            let said = message.get("id").unwrap_or(&Value::Null);
            message.get("result").is_some_and(|_| *said == id) || message.get("error").is_some_and(|_| *said == id || said.is_null())
        };
        let (sent, headers) = self.sender.post(self.path, headers, &body, &is_ours).await;
        let sent = match sent {
            Sent::Reply(reply) if is_good(reply.status) && !is_ours(&reply.body) => {
                Sent::Nothing("its reply is no answer to what was asked".to_owned())
            }
            sent => sent,
        };
        (sent, headers)
    }

    /// All tools.
    async fn tools(&self, speech: &Speech) -> Result<Vec<Value>, Sent> {
        let (mut tools, mut params) = (vec![], Map::new());
        for _ in 0..PAGES {
            let sent = self.ask(speech, "tools/list", params, HeaderMap::new()).await.0;
            let Some(result) = result(&sent) else { return Err(sent) };
            let Some(page) = result.get("tools").and_then(Value::as_array) else {
                return Err(Sent::Nothing("its list of tools is no list".to_owned()));
            };
            tools.extend(page.iter().take(TOOLS - tools.len()).cloned());
            let Some(cursor) = result.get("nextCursor").and_then(Value::as_str).filter(|_| tools.len() < TOOLS) else { break };
            params = Map::from_iter([("cursor".to_owned(), cursor.into())]);
        }
        Ok(tools)
    }

    /// Begins as revisions before 2026 do.
    async fn handshake(&self, offered: &'static str) -> Result<Begun<'a>, Sent> {
        let mut offered = offered;
        let mut is_again = false;
        let (said, headers) = loop {
            let params = json!({"protocolVersion": offered, "capabilities": {}, "clientInfo": us()});
            let params = params.as_object().cloned().unwrap_or_default();
            let (sent, headers) = self.request(accepting(), "initialize", params).await;
            if let Some(result) = result(&sent) {
                break (result.get("protocolVersion").and_then(Value::as_str).unwrap_or_default().to_owned(), headers);
            }
            let Sent::Reply(reply) = &sent else { return Err(sent) };
            match supported(&reply.body).filter(|other| *other != offered && !is_again) {
                Some(other) => (offered, is_again) = (other, true),
                None if error(&reply.body).is_none() && matches!(reply.status, 400 | 404 | 405) => {
                    let why = format!("HTTP {}: no server of MCP's Streamable HTTP is at this address", reply.status);
                    return Err(Sent::Missed((Fault::Refused, why)));
                }
                None => return Err(sent),
            }
        };
        let Some(revision) = HANDSHAKES.into_iter().find(|known| *known == said) else {
            let said: String = said.chars().take(40).collect();
            return Err(Sent::Missed((Fault::Refused, format!("it speaks MCP {said:?}, and we {STATELESS}, {}", HANDSHAKES.join(", ")))));
        };
        let mut id = headers.get(SESSION).cloned();
        if let Some(id) = &mut id {
            let is_id = (1..=LONGEST_ID).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic);
            if !is_id {
                return Err(Sent::Nothing("its session has no id that can be said back".to_owned()));
            }
            id.set_sensitive(true);
        }
        let begun = self.begun(Speech::Handshake { revision, id });
        let said = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        match self.sender.post(self.path, begun.speech().headers(), &said, &|_| true).await.0 {
            Sent::Reply(reply) if !is_good(reply.status) => Err(Sent::Reply(reply)),
            // Whatever it says to that: it was taken.
            _ => Ok(begun),
        }
    }
}

/// What every request takes for an answer.
fn accepting() -> HeaderMap {
    HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"))])
}

fn is_good(status: u16) -> bool {
    (200..300).contains(&status)
}

/// The result of an answer that has one.
fn result(sent: &Sent) -> Option<&Value> {
    let Sent::Reply(reply) = sent else { return None };
    reply.body.get("result").filter(|_| is_good(reply.status))
}

/// The newest revision with a handshake that a refusal names.
fn supported(body: &Value) -> Option<&'static str> {
    let named = body.pointer("/error/data/supported")?.as_array()?;
    HANDSHAKES.into_iter().find(|known| named.iter().any(|named| named == known))
}

/// Whether what a server said to a request of 2026 tells that it is of an earlier year. What is neither (it is away, or busy, or wants a
/// key) tells nothing.
fn speaks_earlier(sent: &Sent) -> bool {
    let Sent::Reply(reply) = sent else { return false };
    match code(&reply.body) {
        Some(UNSUPPORTED_VERSION) => supported(&reply.body).is_some(),
        Some(HEADER_MISMATCH | NO_CAPABILITY) => false,
        _ => is_good(reply.status) || matches!(reply.status, 400 | 404 | 405 | 406 | 415 | 422),
    }
}
