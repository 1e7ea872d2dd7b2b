//! Which wire two processes speak: a number that both say with every call and every reply. With it travels the trace that a call
//! belongs to.
//!
//! In: calls on their way out ([`PeerChannel`]) and in ([`Versioned`]). Out: the same, or one error that names both numbers and what
//! to do. Messages grow by fields that older processes pass over, so that most calls work between releases, and clients of one's
//! own need not know of this: who says no version is let in. Only a process of an earlier release is not, where actor, learner and
//! ranks meet ([`must_agree`]) and a difference would be found out late and far from its cause.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use hypereyes_chassis::TraceContext;
use hypereyes_chassis::trace::TRACEPARENT;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{HeaderMap, HeaderValue, Request, Response};
use tonic::server::NamedService;
use tonic::transport::Channel;
use tracing::{Instrument as _, Span};

use crate::failure;

/// The wire that this release speaks. Raised when a release cannot work with the one before it; 1 was spoken without being said.
pub const WIRE_VERSION: u32 = 2;

/// The header of calls and replies that says it.
pub const WIRE_HEADER: &str = "hypereyes-wire";

/// Calls that both sides must be of one wire for: with these a process joins a run. Whatever else it then calls follows from them.
const MEETINGS: [&str; 4] = [
    "/hypereyes.v1.Learner/LeaseTask",
    "/hypereyes.v1.Learner/Submit",
    "/hypereyes.v1.Learner/FetchWeights",
    // Orders between ranks travel over connections that are made after this.
    "/hypereyes.v1.Learner/Meet",
];

/// How processes of releases with version 1 named themselves, as every tonic client does that is not told otherwise.
const BEFORE: &str = "tonic/";

/// Whether a caller that says no version is no process of an earlier release, but a client of somebody's own (grpcio, grpcurl): it
/// speaks the fields that it knows, and is let in. Ranks are always ours.
fn is_of_its_own(path: &str, headers: &HeaderMap) -> bool {
    let agent = headers.get("user-agent").and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    said(headers).is_none() && path != MEETINGS[3] && !agent.split(' ').any(|part| part.starts_with(BEFORE))
}

/// Whether the RPC at `path` is refused to who says no version.
pub fn must_agree(path: &str) -> bool {
    MEETINGS.contains(&path)
}

/// What is wrong with a peer that says `theirs` about the RPC at `path`; nothing where both can go on.
fn disagreement(path: &str, theirs: Option<&HeaderValue>, caller: &str, callee: &str) -> Option<Status> {
    let theirs = match theirs.map(|value| value.to_str().unwrap_or("?")) {
        Some(text) if text.parse() == Ok(WIRE_VERSION) => return None,
        Some(text) => format!("speaks version {}", text.escape_debug().take(16).collect::<String>()),
        None if must_agree(path) => "says no version, as releases with version 1 do".to_owned(),
        None => return None,
    };
    let text = format!(
        "{path}: {caller} speaks version {WIRE_VERSION} of the wire, and {callee} {theirs}: run the same release of both; a client of your own \
         says `{WIRE_HEADER}: {WIRE_VERSION}`"
    );
    Some(failure::other_release(text))
}

fn ours() -> HeaderValue {
    HeaderValue::from(WIRE_VERSION)
}

/// A channel to a peer that says which wire is spoken, and looks at what the peer says.
#[derive(Clone, Debug)]
pub struct PeerChannel(Channel);

impl From<Channel> for PeerChannel {
    fn from(channel: Channel) -> Self {
        Self(channel)
    }
}

/// What a call becomes.
type Answer<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

impl Service<Request<Body>> for PeerChannel {
    type Response = Response<Body>;
    type Error = tonic::transport::Error;
    type Future = Answer<Self::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let path = request.uri().path().to_owned();
        request.headers_mut().insert(WIRE_HEADER, ours());
        // What the peer does for this span is a part of the same trace.
        if let Some(value) = TraceContext::current().and_then(|trace| HeaderValue::try_from(trace.traceparent()).ok()) {
            request.headers_mut().insert(TRACEPARENT, value);
        }
        let answer = self.0.call(request);
        Box::pin(async move {
            let response = answer.await?;
            // What stands between the two (a proxy, a full server) refuses without saying a version, be it in gRPC or in plain HTTP.
            let refused = !response.status().is_success() || response.headers().get("grpc-status").is_some_and(|code| code != "0");
            let theirs = response.headers().get(WIRE_HEADER);
            let odd = if refused && theirs.is_none() { None } else { disagreement(&path, theirs, "this process", "the service") };
            Ok(odd.map_or(response, |status| status.into_http()))
        })
    }
}

/// A service that looks at what its callers say, and says which wire it speaks.
#[derive(Clone, Debug)]
pub struct Versioned<S>(pub(crate) S);

impl<S: NamedService> NamedService for Versioned<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Versioned<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer<Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (path, headers) = (request.uri().path(), request.headers());
        let odd = if is_of_its_own(path, headers) { None } else { disagreement(path, said(headers), "this service", "the caller") };
        if let Some(status) = odd {
            tracing::warn!(reason = status.message(), "a process of another release is turned away");
            return Box::pin(async move { Ok(stamped(status.into_http())) });
        }
        let called = span_of(&request);
        let answer = self.0.call(request);
        Box::pin(async move { answer.await.map(stamped) }.instrument(called))
    }
}

fn said(headers: &HeaderMap) -> Option<&HeaderValue> {
    headers.get(WIRE_HEADER)
}

/// The span of a call whose caller keeps a trace; none for all others.
fn span_of<B>(request: &Request<B>) -> Span {
    let caller = request.headers().get(TRACEPARENT).and_then(|value| TraceContext::parse(value.to_str().ok()?));
    let Some(caller) = caller else { return Span::none() };
    let method = request.uri().path().trim_start_matches('/');
    let span = tracing::info_span!("rpc", otel.name = method, otel.kind = "server");
    caller.adopt(&span);
    span
}

fn stamped(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(WIRE_HEADER, ours());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http_name(name: &'static str) -> tonic::codegen::http::HeaderName {
        tonic::codegen::http::HeaderName::from_static(name)
    }

    fn odd(path: &str, theirs: Option<&'static str>) -> Option<String> {
        let theirs = theirs.map(HeaderValue::from_static);
        disagreement(path, theirs.as_ref(), "this service", "the caller").map(|status| status.message().to_owned())
    }

    #[test]
    fn a_version_may_be_missing_where_nobody_joins_a_run() {
        for (path, _) in crate::roles::TABLE {
            assert_eq!(odd(path, Some("2")), None, "{path}");
            assert_eq!(odd(path, None).is_some(), must_agree(path), "{path}");
            let text = odd(path, Some("3")).expect("another release");
            assert!(text.contains("speaks version 2") && text.contains("speaks version 3") && text.contains("same release"), "{text}");
        }
        assert!(MEETINGS.iter().all(|path| crate::roles::callers(path).is_some()), "they exist");
        // A trainer in Python speaks what it knows; a process of before is told from it.
        let named = |agent: &'static str| HeaderMap::from_iter([(http_name("user-agent"), HeaderValue::from_static(agent))]);
        assert!(is_of_its_own(MEETINGS[0], &named("grpc-python/1.76.0 grpc-c/51.0.0 (linux; chttp2)")));
        assert!(!is_of_its_own(MEETINGS[0], &named("tonic/0.14.2")) && !is_of_its_own(MEETINGS[3], &named("grpc-python/1.76.0")));
        let text = odd(MEETINGS[0], None).expect("a release of before");
        assert!(text.contains("version 2") && text.contains("version 1") && text.contains("same release"), "{text}");
    }
}
