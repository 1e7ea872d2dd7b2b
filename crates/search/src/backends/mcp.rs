//! Servers of the Model Context Protocol, over Streamable HTTP: texts, or pictures, by one of their tools, one query a call.
//!
//! The revision of 2026-07-28, in which every request stands for itself, is tried first; a server that does not know it is asked by the
//! handshake of the earlier ones. Which tool is called, and what its arguments are called, is read off its own list of tools, as far as
//! settings do not say it. Our own sender carries it, not the protocol's crate, whose HTTP client bounds neither a reply's size nor where a
//! redirect leads.

mod result;
mod session;
mod tool;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::BoxFuture;
use hypereyes_environment::{Fault, Hit, Query};
use hypereyes_pictures::encode_png;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::Kind;
use crate::config::BackEndConfig;
use crate::http::call::{Call, Miss, Reply, Service, by_status, words};
use crate::http::send::{Sender, Sent};
use crate::mcp::{HANDSHAKES, STATELESS};
use crate::metrics::MCP_OPENED;
use crate::rate::Turn;
use session::Session;

/// How long it is believed that a server will not do.
const REFUSED: Duration = Duration::from_secs(5);
/// Arguments that hold keys: those are never in settings.
const SECRET: [&str; 10] =
    ["access_token", "api-key", "api_key", "apikey", "authorization", "key", "password", "secret", "signature", "token"];

/// MCP as a back end.
pub(super) const KIND: Kind = Kind {
    image: true,
    scores: true,
    check,
    ..Kind::own("mcp", &["tool", "argument", "hits_argument", "hits_at", "revision", "arguments.*"], |config| Box::new(Mcp::of(config)))
};

/// What settings say of the tool and its server.
#[derive(Clone, Debug, Default)]
struct Told {
    /// The tool's name; none: the one that searches, as far as names tell.
    tool: Option<String>,
    /// What its argument for the text, or for the picture in base64, is called.
    argument: Option<String>,
    /// What its argument for the number of hits is called.
    hits_argument: Option<String>,
    /// Where in its result the list of hits is, as a JSON pointer.
    hits_at: Option<String>,
    /// The revision that is spoken; none: found out.
    revision: Option<&'static str>,
    /// Other arguments.
    others: Vec<(String, String)>,
    /// Hits that are asked for.
    hits: u32,
}

impl Told {
    fn of(config: &BackEndConfig) -> Self {
        let mut told = Self { hits: config.hits, ..Self::default() };
        for (name, value) in config.said() {
            match name.as_str() {
                "tool" => told.tool = Some(value),
                "argument" => told.argument = Some(value),
                "hits_argument" => told.hits_argument = Some(value),
                "hits_at" => told.hits_at = Some(value),
                "revision" => told.revision = revision(&value),
                name => told.others.extend(name.strip_prefix("arguments.").map(|name| (name.to_owned(), value))),
            }
        }
        told
    }
}

/// A revision by its name.
fn revision(name: &str) -> Option<&'static str> {
    std::iter::once(STATELESS).chain(HANDSHAKES).find(|known| *known == name)
}

fn check(config: &BackEndConfig) -> Result<(), String> {
    for (name, value) in config.said() {
        let argument = name.strip_prefix("arguments.").unwrap_or_default().to_lowercase();
        if SECRET.contains(&argument.as_str()) {
            // What it is given is not quoted.
            return Err(format!("parameters has {name:?}: a key is never in settings; api_key_env names the variable that holds it"));
        }
        let why = match name.as_str() {
            "revision" if revision(&value).is_none() => format!("there are {STATELESS}, {}", HANDSHAKES.join(", ")),
            "hits_at" if !value.starts_with('/') => "write a JSON pointer, such as /data/items".to_owned(),
            _ if value.is_empty() => "it is empty".to_owned(),
            _ => continue,
        };
        return Err(format!("parameters has {:?}: {why}", format!("{name}={value}")));
    }
    Ok(())
}

/// A server of MCP, and how it is spoken to.
pub struct Mcp {
    told: Told,
    /// What follows the address: a last slash that settings have, which means something to servers.
    path: &'static str,
    /// How it is spoken to, once that is known. Whoever finds it unknown finds it out, while the others wait.
    known: Mutex<Known>,
    /// Whether that is known.
    is_ready: AtomicBool,
    /// Ids of requests.
    ids: AtomicU64,
}

/// What is known of a server.
#[derive(Default)]
struct Known {
    session: Option<Arc<Session>>,
    /// Why it will not do, and when that was found.
    refused: Option<(Instant, Miss)>,
}

impl Mcp {
    fn of(config: &BackEndConfig) -> Self {
        let path = if config.url.ends_with('/') { "/" } else { "" };
        Self { told: Told::of(config), path, known: Mutex::default(), is_ready: AtomicBool::new(false), ids: AtomicU64::new(1) }
    }

    /// How the server is spoken to; found out where nobody knows.
    async fn session(&self, sender: &Sender, wants: &Value, why: &'static str, turn: Turn<'_>) -> Result<Arc<Session>, Sent> {
        let mut known = self.known.lock().await;
        if let Some(session) = &known.session {
            return Ok(session.clone());
        }
        // Everybody who waited need not find it out again.
        if let Some((_, miss)) = known.refused.as_ref().filter(|(at, _)| at.elapsed() < REFUSED) {
            return Err(Sent::Missed(miss.clone()));
        }
        let session = match Session::open(sender, self.path, &self.told, wants, &self.ids, turn).await {
            Ok(session) => Arc::new(session),
            Err(sent) => {
                if let Sent::Missed(miss) = &sent
                    && miss.0 == Fault::Refused
                {
                    known.refused = Some((Instant::now(), miss.clone()));
                }
                return Err(sent);
            }
        };
        metrics::counter!(MCP_OPENED, "revision" => session.revision(), "why" => why).increment(1);
        known.session = Some(session.clone());
        self.is_ready.store(true, Ordering::Release);
        Ok(session)
    }

    /// Calls the tool. A session that the server has lost is begun again, once.
    async fn called(&self, sender: &Sender, call: &Call, turn: Turn<'_>) -> Sent {
        let wants = call.body.as_ref().unwrap_or(&Value::Null);
        let mut why = "first";
        loop {
            let session = match self.session(sender, wants, why, turn).await {
                Ok(session) => session,
                Err(sent) => return sent,
            };
            if why == "again" && !turn.comes().await {
                return Sent::Missed((
                    Fault::Timeout,
                    "a turn to ask again would come after the search's deadline (per_second)".to_owned(),
                ));
            }
            let sent = session.call(sender, self.path, &self.ids, wants).await;
            if !session.is_over(&sent) {
                return sent;
            }
            let mut known = self.known.lock().await;
            // Somebody else may have begun another one.
            if known.session.as_ref().is_some_and(|known| Arc::ptr_eq(known, &session)) {
                known.session = None;
                self.is_ready.store(false, Ordering::Release);
            }
            drop(known);
            if why == "again" {
                return sent;
            }
            why = "again";
        }
    }
}

impl Service for Mcp {
    fn call(&self, _layer: u64, queries: &[Query]) -> Result<Call, Miss> {
        let wants = match queries {
            [Query::Text(text)] => json!({"text": text}),
            // Without loss, as in our own shape.
            [Query::Picture(picture)] => {
                let bytes = encode_png(picture).map_err(|error| (Fault::Refused, format!("a picture cannot be sent: {error}")))?;
                json!({"picture": STANDARD.encode(bytes)})
            }
            _ => return Err((Fault::Refused, "it searches texts and pictures alone".to_owned())),
        };
        Ok(Call::post(self.path, wants))
    }

    fn path(&self, _layer: u64, _query: &Query) -> String {
        self.path.to_owned()
    }

    fn says(&self, _layer: u64) -> Vec<(&str, Value)> {
        let Told { tool, argument, hits_argument, hits_at, .. } = &self.told;
        let named = [("tool", tool), ("argument", argument), ("hits_argument", hits_argument), ("hits_at", hits_at)];
        let named = named.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?.into())));
        let others = json!(self.told.others.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>());
        named.chain([("hits", json!(self.told.hits)), ("arguments", others)]).collect()
    }

    fn prepare<'a>(&'a self, sender: &'a Sender, call: &'a Call, turn: Turn<'a>) -> BoxFuture<'a, Result<bool, Sent>> {
        Box::pin(async move {
            if self.is_ready.load(Ordering::Acquire) {
                return Ok(false);
            }
            self.session(sender, call.body.as_ref().unwrap_or(&Value::Null), "first", turn).await.map(|_| true)
        })
    }

    fn exchange<'a>(&'a self, sender: &'a Sender, call: &'a Call, turn: Turn<'a>) -> BoxFuture<'a, Sent> {
        Box::pin(self.called(sender, call, turn))
    }

    fn close(&self, sender: &Sender) {
        if let Some(session) = self.known.try_lock().ok().and_then(|mut known| known.session.take()) {
            session.end(sender, self.path);
        }
    }

    fn read(&self, body: &Value, _queries: &[Query]) -> Result<Vec<Result<Vec<Hit>, Miss>>, Miss> {
        Ok(vec![result::hits(body, self.told.hits_at.as_deref(), self.told.hits as usize)])
    }

    fn refused(&self, reply: &Reply) -> Miss {
        match reply.status {
            300..=399 => {
                (Fault::Unavailable, "it sends elsewhere: give the address that it means (is it about the last slash?)".to_owned())
            }
            status => result::error(&reply.body).unwrap_or_else(|| (by_status(status), words(&reply.body))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SearchConfig;

    fn said(parameters: &[&str]) -> Result<(), String> {
        let mut config = SearchConfig::default();
        config.text.backend = "mcp".into();
        config.text.url = "http://x/mcp".into();
        config.text.parameters = parameters.iter().map(|said| (*said).to_owned()).collect();
        config.check()
    }

    #[test]
    fn what_it_cannot_be_told_is_refused_by_name() {
        assert_eq!(
            said(&["tool=find", "argument=q", "hits_argument=k", "hits_at=/data/items", "revision=2025-06-18", "arguments.hl=en"]),
            Ok(())
        );
        for (parameter, why) in [
            ("revision=2024-11-05", "there are 2026-07-28, 2025-11-25, 2025-06-18, 2025-03-26"),
            ("hits_at=items", "JSON pointer"),
            ("tool=", "is empty"),
            ("arguments.=x", "is not told"),
            ("picture=x", "is not told"),
            ("arguments.API_KEY=sk-planted", "api_key_env"),
        ] {
            let error = said(&[parameter]).expect_err("refused");
            assert!(error.starts_with("text.parameters has ") && error.contains(why) && !error.contains("sk-"), "{error}");
        }
    }

    #[test]
    fn outcomes_are_kept_apart_by_what_the_tool_is_told() {
        let of = |parameters: &[&str]| {
            let parameters = parameters.iter().map(|said| (*said).to_owned()).collect();
            Mcp::of(&BackEndConfig { parameters, url: "http://x/mcp/".into(), ..BackEndConfig::default() })
        };
        let query = Query::Text("q".into());
        assert_eq!(of(&[]).path(3, &query), "/", "a slash is the server's");
        let keys = [&[][..], &["tool=a"], &["arguments.a=1"], &["arguments.a=2"]].map(|said| format!("{:?}", of(said).says(0)));
        for (at, key) in keys.iter().enumerate() {
            assert!(!keys[at + 1..].contains(key), "{key}");
        }
        assert!(of(&[]).call(0, &[Query::Page("x".into())]).is_err());
    }
}
