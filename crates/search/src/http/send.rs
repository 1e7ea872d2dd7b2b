//! One request to a service and its reply, within bounds. In: a call. Out: a reply, or why there is none. Its words never hold the key.

use std::fmt;
use std::time::Duration;

use hypereyes_chassis::secret::SecretText;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, RETRY_AFTER};
use reqwest::{RequestBuilder, Response, Url};
use serde_json::Value;

use super::call::{Call, KeyIn, Miss, Reply};
use super::stream::Events;

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Bytes of a reply that are read: far above any list of results, far below an accident.
const MOST_BYTES: usize = 8 << 20;
/// Keys shorter than this are looked for nowhere.
const LEAST: usize = 4;
/// Longest pause that a service may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// A key, and how it is sent.
pub struct Secret {
    /// The key.
    pub text: SecretText,
    /// Where it goes.
    pub sent: KeyIn,
}

impl Secret {
    /// The header in which it goes, if it goes in one.
    fn headers(&self) -> HeaderMap {
        match self.sent {
            KeyIn::Header(name) => HeaderMap::from_iter([(HeaderName::from_static(name), self.text.header(""))]),
            KeyIn::Bearer => HeaderMap::from_iter([(AUTHORIZATION, self.text.header("Bearer "))]),
            KeyIn::Parameter(_) => HeaderMap::new(),
        }
    }

    /// Bytes without the key, as it is and as addresses have it.
    fn taken_out(&self, bytes: Vec<u8>) -> Vec<u8> {
        let Ok(text) = std::str::from_utf8(&bytes) else { return bytes };
        let without = self.text.hidden_in(text);
        let mut address = Url::parse("http://x").expect("an address");
        address.query_pairs_mut().append_key_only(self.text.expose());
        let in_address = address.query().filter(|key| key.len() >= LEAST);
        in_address.map_or(without.clone(), |key| without.replace(key, "[key]")).into_bytes()
    }
}

/// What became of a request.
pub enum Sent {
    /// A reply, whatever it says.
    Reply(Timed),
    /// Nothing that can be read, and why.
    Nothing(String),
    /// Nothing that is worth reading: in which way the service does not do what is asked.
    Missed(Miss),
}

/// A reply, and the pause that it asks for.
pub struct Timed {
    reply: Reply,
    /// Seconds from now.
    pub retry_after: Option<Duration>,
}

impl std::ops::Deref for Timed {
    type Target = Reply;

    fn deref(&self) -> &Reply {
        &self.reply
    }
}

/// Where requests of one service go.
pub struct Sender {
    url: Url,
    secret: Option<Secret>,
    http: reqwest::Client,
}

impl fmt::Debug for Sender {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("url", &self.url.as_str()).finish_non_exhaustive()
    }
}

impl Sender {
    /// Requests to an address.
    ///
    /// # Errors
    /// A sentence that begins with `url` or with the key of the key.
    pub fn new(url: &str, secret: Option<Secret>) -> Result<Self, String> {
        let parsed = Url::parse(url.trim_end_matches('/')).ok().filter(|parsed| {
            matches!(parsed.scheme(), "http" | "https")
                && parsed.username().is_empty()
                && parsed.password().is_none()
                && parsed.query().is_none()
                && parsed.fragment().is_none()
        });
        // It is not quoted: it may hold a password.
        let Some(url) = parsed else {
            return Err(
                "url is no plain http address (no password, no ?, no #); a key goes into the variable that api_key_env names".into()
            );
        };
        // No proxy and no redirect: what is asked goes where the settings say, and nowhere else. Nothing is unpacked either, so that no
        // reply is larger than what was sent.
        let headers = secret.as_ref().map(Secret::headers).unwrap_or_default();
        let http = reqwest::Client::builder()
            .default_headers(headers)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .build();
        let http = http.map_err(|error| format!("url cannot be reached: no HTTP client: {error}"))?;
        Ok(Self { url, secret, http })
    }

    /// The address, which holds no secret.
    pub fn url(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }

    /// What a path of the service is called, with the key if it goes there.
    fn at(&self, path: &str, query: &[(String, String)]) -> Url {
        let mut url = self.url.clone();
        url.set_path(&format!("{}{path}", self.url.path().trim_end_matches('/')));
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        if let Some(Secret { text, sent: KeyIn::Parameter(name) }) = &self.secret {
            url.query_pairs_mut().append_pair(name, text.expose());
        }
        url
    }

    /// Sends a call and reads the reply.
    pub async fn send(&self, call: &Call) -> Sent {
        let url = self.at(&call.path, &call.query);
        let request = match &call.body {
            Some(body) => self.http.post(url).json(body),
            None => self.http.get(url),
        };
        match answered(request.header(ACCEPT, "application/json")).await {
            Ok(response) => match (self.read(response, None).await, &call.hidden) {
                (Sent::Reply(mut timed), Some(hidden)) => {
                    take_out(&mut timed.reply.body, hidden);
                    Sent::Reply(timed)
                }
                (sent, _) => sent,
            },
            Err(why) => Sent::Nothing(why),
        }
    }

    /// Posts a message with headers of its own, and reads the reply: a body, or of a stream of messages the first that is `wanted`. With
    /// it come the reply's headers; none where there is no reply.
    pub async fn post(&self, path: &str, headers: HeaderMap, body: &Value, wanted: &(dyn Fn(&Value) -> bool + Sync)) -> (Sent, HeaderMap) {
        match answered(self.http.post(self.at(path, &[])).headers(headers).json(body)).await {
            Ok(response) => {
                let headers = response.headers().clone();
                (self.read(response, Some(wanted)).await, headers)
            }
            Err(why) => (Sent::Nothing(why), HeaderMap::new()),
        }
    }

    /// Says that something at a path is not needed any more. What comes back is nobody's business.
    pub fn delete(&self, path: &str, headers: HeaderMap) -> impl Future<Output = ()> + Send + use<> {
        let request = self.http.delete(self.at(path, &[])).headers(headers);
        async move {
            let _ = request.send().await;
        }
    }

    async fn read(&self, mut response: Response, wanted: Option<&(dyn Fn(&Value) -> bool + Sync)>) -> Sent {
        let status = response.status().as_u16();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).and_then(pause);
        if response.headers().get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
            return Sent::Nothing("its reply is compressed, which was not asked for".to_owned());
        }
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
        let mut stream = wanted.filter(|_| kind.starts_with("text/event-stream")).map(|wanted| (Events::default(), wanted));
        let (mut bytes, mut length) = (vec![], 0);
        loop {
            let chunk = match response.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) if stream.is_some() => return Sent::Nothing("its stream ends without an answer".to_owned()),
                Ok(None) => break,
                Err(error) => return Sent::Nothing(format!("its reply breaks off: {}", chain(&error.without_url()))),
            };
            length += chunk.len();
            if length > MOST_BYTES {
                return Sent::Nothing(format!("its reply has more than {MOST_BYTES} bytes"));
            }
            let Some((events, wanted)) = &mut stream else {
                bytes.extend_from_slice(&chunk);
                continue;
            };
            for message in events.read(&chunk) {
                // What is no JSON is no message of anybody's.
                let message = serde_json::from_slice(&self.without_key(message)).unwrap_or_default();
                if wanted(&message) {
                    return Sent::Reply(Timed { reply: Reply { status, body: message }, retry_after });
                }
            }
        }
        let bytes = self.without_key(bytes);
        match serde_json::from_slice(&bytes) {
            Ok(body) => Sent::Reply(Timed { reply: Reply { status, body }, retry_after }),
            // Taken, and there is nothing to say.
            Err(_) if bytes.is_empty() && matches!(status, 202 | 204) => {
                Sent::Reply(Timed { reply: Reply { status, body: Value::Null }, retry_after })
            }
            // Many services refuse in HTML.
            Err(_) if !(200..300).contains(&status) => Sent::Reply(Timed { reply: Reply { status, body: Value::Null }, retry_after }),
            Err(error) => Sent::Nothing(format!("its reply is no JSON: {error}")),
        }
    }

    /// A service may say the key back, anywhere.
    fn without_key(&self, bytes: Vec<u8>) -> Vec<u8> {
        match &self.secret {
            Some(secret) => secret.taken_out(bytes),
            None => bytes,
        }
    }
}

/// Sends a request. Its own words hold the address, and that may hold the key.
async fn answered(request: RequestBuilder) -> Result<Response, String> {
    request.send().await.map_err(|error| format!("cannot be asked: {}", chain(&error.without_url())))
}

/// Letters of a part of a signed address that cannot be in a text by chance.
const LEAST_OF_A_SIGNATURE: usize = 16;

/// Takes an address out of every text of a body, as it is and as a parameter of another address. What holds a part of its signature all the
/// same, however it is written, is taken out as a whole.
fn take_out(body: &mut Value, address: &str) {
    match body {
        Value::String(text) => {
            let mut within = Url::parse("http://x").expect("an address");
            within.query_pairs_mut().append_key_only(address);
            for form in [Some(address), within.query()].into_iter().flatten() {
                if text.contains(form) {
                    *text = text.replace(form, "[the picture]");
                }
            }
            let signed = address.split_once('?').map_or("", |(_, signed)| signed);
            let mut parts = signed.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|part| part.len() >= LEAST_OF_A_SIGNATURE);
            if parts.any(|part| text.contains(part)) {
                *text = "[the picture]".to_owned();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| take_out(item, address)),
        Value::Object(fields) => fields.values_mut().for_each(|item| take_out(item, address)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The pause of a `Retry-After`: seconds, or a date.
pub(crate) fn pause(said: &str) -> Option<Duration> {
    let said = said.trim();
    let seconds = said.parse::<f64>().ok().filter(|seconds| *seconds >= 0.0).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let pause = seconds.or_else(|| {
        let until = httpdate::parse_http_date(said).ok()?;
        Some(until.duration_since(std::time::SystemTime::now()).unwrap_or_default())
    })?;
    Some(pause.min(LONGEST_PAUSE))
}

/// An error and what caused it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        said.push_str(&format!(": {error}"));
        cause = error.source();
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_seconds_or_dates_and_bounded() {
        assert_eq!(pause("2"), Some(Duration::from_secs(2)));
        assert_eq!(pause("0.5"), Some(Duration::from_millis(500)));
        assert_eq!(pause("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert_eq!(pause("1e9"), Some(LONGEST_PAUSE));
        assert_eq!((pause("soon"), pause("-1")), (None, None));
    }

    #[test]
    fn an_address_of_a_picture_is_in_no_reply_however_it_is_said_back() {
        let address = "https://b/c.png?X-Amz-Credential=AKIAPLANTED0123456%2F2026&X-Amz-Signature=0123456789abcdef0123";
        let mut body = serde_json::json!({"error": format!("no {address}."), "a": [{"b": "https%3A%2F%2Fb%2Fc.png%3FX-Amz-Credential%3DAKIAPLANTED0123456%252F2026%26X-Amz-Signature%3D0123456789abcdef0123"}], "c": "0123456789abcdef0123", "d": 1, "e": "kept"});
        take_out(&mut body, address);
        let said = body.to_string();
        assert!(body["error"] == "no [the picture]." && body["e"] == "kept", "{said}");
        assert!(!said.contains("AKIA") && !said.contains("0123456789abcdef"), "{said}");
    }

    #[test]
    fn addresses_are_plain_or_refused_without_being_quoted() {
        assert_eq!(Sender::new("http://127.0.0.1:8000/", None).expect("plain").url(), "http://127.0.0.1:8000");
        for url in ["ftp://x", "x", "http://a:b@x", "http://x?api_key=secret", "http://x#y"] {
            let error = Sender::new(url, None).expect_err("refused");
            assert!(error.starts_with("url is no plain") && !error.contains("secret"), "{error}");
        }
    }
}
