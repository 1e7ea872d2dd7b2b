//! Requests and replies of a service, without a network. In: queries. Out: a [`Call`]; and hits, of a [`Reply`].

use futures::future::BoxFuture;
use hypereyes_environment::{Fault, Hit, Query};
use serde_json::Value;

use super::send::{Sender, Sent};
use crate::backends::Side;
use crate::config::BackEndConfig;
use crate::rate::Turn;

/// What a service is asked by. It holds no key: that is added when it is sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// What follows the service's address.
    pub path: String,
    /// What follows the question mark.
    pub query: Vec<(String, String)>,
    /// What is posted; nothing is asked for by `GET`.
    pub body: Option<Value>,
    /// What of it stands nowhere afterwards, such as an address that opens a picture: it is taken out of whatever is answered.
    pub hidden: Option<String>,
}

impl Call {
    /// Asked for by `GET`.
    pub fn get(path: impl Into<String>, query: Vec<(String, String)>) -> Self {
        Self { path: path.into(), query, body: None, hidden: None }
    }

    /// Posted as JSON.
    pub fn post(path: impl Into<String>, body: Value) -> Self {
        Self { path: path.into(), query: vec![], body: Some(body), hidden: None }
    }
}

/// How a key is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyIn {
    /// In a header of this name in lower case, as it is.
    Header(&'static str),
    /// As `Authorization: Bearer`.
    Bearer,
    /// In the address, as this parameter.
    Parameter(&'static str),
}

/// What came back: a status, and a body that was JSON.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The body; null where there was none.
    pub body: Value,
}

/// Why a reply holds no hits: in which way, and what was said.
pub type Miss = (Fault, String);

/// What is known of a service: pure functions between queries, requests, replies and hits. One that is asked over HTTP is a file of
/// `backends` with one of these.
pub trait Service: Send + Sync {
    /// Queries of one request, at most.
    fn most(&self) -> usize {
        1
    }

    /// The request for queries of one kind, texts normalised.
    ///
    /// # Errors
    /// [`Miss`] where it does not search for this.
    fn call(&self, _layer: u64, _queries: &[Query]) -> Result<Call, Miss> {
        Err((Fault::Refused, format!("it searches {} alone, by their addresses", Side::Image.what())))
    }

    /// The request for what is in a picture that can be fetched at an address, of a service that takes no other ([`Kind::by_address`]).
    ///
    /// [`Kind::by_address`]: crate::backends::Kind::by_address
    ///
    /// # Errors
    /// [`Miss`] where it does not search for this.
    fn call_at(&self, _address: &str) -> Result<Call, Miss> {
        Err((Fault::Refused, "it is told no addresses of pictures".to_owned()))
    }

    /// The path at which a query is asked.
    fn path(&self, layer: u64, query: &Query) -> String {
        self.call(layer, std::slice::from_ref(query)).map(|call| call.path).unwrap_or_default()
    }

    /// What its outcomes depend on besides the query.
    fn says(&self, _layer: u64) -> Vec<(&str, Value)> {
        vec![]
    }

    /// The hits of a reply to `queries`: as many lists. The status was good.
    ///
    /// # Errors
    /// [`Miss`], for all of them or for one.
    fn read(&self, body: &Value, queries: &[Query]) -> Result<Vec<Result<Vec<Hit>, Miss>>, Miss>;

    /// Readies what a call needs, such as a session, before the call is paid for; each request for that waits for a turn of its own. True
    /// where that was waited for, so that the call needs another turn. It ends when nobody waits for it any more.
    fn prepare<'a>(&'a self, _sender: &'a Sender, _call: &'a Call, _turn: Turn<'a>) -> BoxFuture<'a, Result<bool, Sent>> {
        Box::pin(std::future::ready(Ok(false)))
    }

    /// Sends a call, whose turn it is. Here belongs what a service wants to hear around it, each request at a `turn` of its own; it ends
    /// when nobody waits for it any more.
    fn exchange<'a>(&'a self, sender: &'a Sender, call: &'a Call, _turn: Turn<'a>) -> BoxFuture<'a, Sent> {
        Box::pin(sender.send(call))
    }

    /// Nothing will be asked any more.
    fn close(&self, _sender: &Sender) {}

    /// In which way a reply of a bad status failed, and the service's words for it.
    fn refused(&self, reply: &Reply) -> Miss {
        (by_status(reply.status), words(&reply.body))
    }
}

/// What a status means at almost every service.
pub fn by_status(status: u16) -> Fault {
    match status {
        402 | 432 | 433 => Fault::Quota,
        408 | 504 | 524 => Fault::Timeout,
        429 => Fault::RateLimited,
        400..=499 => Fault::Refused,
        _ => Fault::Unavailable,
    }
}

/// The words in a body that says what went wrong, wherever services have them.
pub fn words(body: &Value) -> String {
    let places = ["/error/message", "/detail/error", "/error", "/message", "/detail", "/detail/0/msg"];
    let said = places.iter().find_map(|place| body.pointer(place).and_then(Value::as_str));
    said.map_or_else(|| "it says nothing of the reason".to_owned(), |said| said.chars().take(300).collect())
}

/// The list of a name; one that is missing is empty, and what is no list is nobody's reply.
///
/// # Errors
/// [`Miss`].
pub fn list<'a>(body: &'a Value, name: &str) -> Result<&'a [Value], Miss> {
    match body.get(name) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(list)) => Ok(list),
        Some(_) => Err((Fault::Unavailable, format!("its {name} is no list"))),
    }
}

/// The first of these that is a text and not empty.
pub fn text(item: &Value, names: &[&str]) -> Option<String> {
    let texts = names.iter().filter_map(|name| item.get(name)?.as_str());
    texts.map(str::trim).find(|text| !text.is_empty()).map(str::to_owned)
}

/// Refuses a reply that is no object, which every service's is.
///
/// # Errors
/// [`Miss`].
pub fn object(body: &Value) -> Result<(), Miss> {
    if body.is_object() { Ok(()) } else { Err((Fault::Unavailable, "its reply is no JSON object".to_owned())) }
}

/// What a service is told besides the query.
#[derive(Clone, Debug)]
pub struct Said {
    /// Hits that are asked for.
    pub hits: u32,
    /// The parameters of settings.
    pub others: Vec<(String, String)>,
}

impl Said {
    /// As settings say, of a service that gives at most so many hits.
    pub fn of(config: &BackEndConfig, most: u32) -> Self {
        Self { hits: config.hits.min(most), others: config.said() }
    }

    /// All of it, for a cache's key.
    pub fn all(&self) -> Vec<(&str, Value)> {
        let others = self.others.iter().map(|(name, value)| (name.as_str(), value.as_str().into()));
        others.chain([("hits", self.hits.into())]).collect()
    }

    /// Pairs for an address, and the parameters of settings.
    pub fn in_address(&self, pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        pairs.chain(self.others.iter().cloned()).collect()
    }

    /// A body, and the parameters of settings.
    pub fn in_body(&self, mut body: Value) -> Value {
        for (name, value) in &self.others {
            body[name] = value.as_str().into();
        }
        body
    }
}

/// What a service calls the parts of a hit; the first name that holds a text is taken.
#[derive(Clone, Copy, Debug)]
pub struct Fields {
    /// What it says.
    pub content: &'static [&'static str],
    /// Where it is from.
    pub url: &'static str,
    /// Who says it.
    pub source: &'static str,
    /// When.
    pub date: &'static str,
}

impl Fields {
    /// A hit; none of what has neither a title nor content.
    pub fn hit(&self, item: &Value) -> Option<Hit> {
        let (title, content) = (text(item, &["title"]), text(item, self.content));
        (title.is_some() || content.is_some()).then(|| Hit {
            title: title.unwrap_or_default(),
            content: content.unwrap_or_default(),
            url: text(item, &[self.url]),
            source: text(item, &[self.source]),
            date: text(item, &[self.date]),
            ..Hit::default()
        })
    }

    /// Those of a list.
    pub fn hits(&self, items: &[Value]) -> Vec<Hit> {
        items.iter().filter_map(|item| self.hit(item)).collect()
    }
}

/// The text that is searched for.
///
/// # Errors
/// [`Miss`] for anything else.
pub fn text_of(queries: &[Query]) -> Result<&str, Miss> {
    match queries {
        [Query::Text(text)] => Ok(text),
        _ => Err((Fault::Refused, "it searches texts alone".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn statuses_and_words_are_read_wherever_they_are() {
        let faults = [400, 401, 402, 404, 408, 429, 432, 500, 503, 302].map(by_status);
        use Fault::{Quota, RateLimited, Refused, Timeout, Unavailable};
        assert_eq!(faults, [Refused, Refused, Quota, Refused, Timeout, RateLimited, Quota, Unavailable, Unavailable, Unavailable]);
        for body in [
            json!({"error": "bad"}),
            json!({"error": {"message": "bad"}}),
            json!({"detail": {"error": "bad"}}),
            json!({"message": "bad", "statusCode": 400}),
            json!({"detail": [{"msg": "bad"}]}),
        ] {
            assert_eq!(words(&body), "bad");
        }
        assert_eq!(words(&Value::Null), "it says nothing of the reason");
    }
}
