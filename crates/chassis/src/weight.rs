//! How many bytes of requests there may be in memory, of one address and of all.
//!
//! In: requests as they come in. Out: the same, each message of which has said how long it is before memory is set aside for
//! it, and is refused where there is no room. A message counts until the next one of its stream, and the last one until its
//! call is answered.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use ::metrics::counter;
use http_body::Frame;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::codegen::{Body as HttpBody, Bytes, Service};
use tower::Layer;

use crate::metrics::REQUESTS_REFUSED;
use crate::places::{Place, Places};
use crate::tls::Peer;

/// What stands before every message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// Weighs requests in front of services.
#[derive(Clone, Debug)]
pub(crate) struct Weigh {
    pub(crate) room: Places,
}

impl<S> Layer<S> for Weigh {
    type Service = Weighing<S>;

    fn layer(&self, inner: S) -> Weighing<S> {
        Weighing { room: self.room.clone(), inner }
    }
}

/// Services whose requests are weighed.
#[derive(Clone, Debug)]
pub(crate) struct Weighing<S> {
    room: Places,
    inner: S,
}

impl<S> Service<Request<Body>> for Weighing<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Weighed<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let peer = request.extensions().get::<Peer>().and_then(|peer| peer.addr).map(|addr| addr.ip());
        let held = Held::default();
        let scale = Scale { room: self.room.clone(), peer, held: held.clone(), prefix: [0; PREFIX], seen: 0, left: 0 };
        let request = request.map(|body| Body::new(Scaled { body, scale }));
        Weighed { answer: Box::pin(self.inner.call(request)), _held: held }
    }
}

/// A call whose last message counts until it is answered.
pub(crate) struct Weighed<F> {
    answer: Pin<Box<F>>,
    _held: Held,
}

impl<F: Future> Future for Weighed<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.answer.as_mut().poll(context)
    }
}

/// The room that the newest message of a call takes. Clones are one and the same.
#[derive(Clone, Debug, Default)]
struct Held(Arc<Mutex<Option<Place>>>);

impl Held {
    fn replace(&self, place: Option<Place>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = place;
    }
}

/// Reads how long messages are.
#[derive(Debug)]
struct Scale {
    room: Places,
    peer: Option<std::net::IpAddr>,
    held: Held,
    prefix: [u8; PREFIX],
    /// Bytes of the prefix that have come.
    seen: usize,
    /// Bytes of the message that are still to come.
    left: usize,
}

impl Scale {
    /// Takes what has come.
    fn weigh(&mut self, mut bytes: &[u8]) -> Result<(), Status> {
        while !bytes.is_empty() {
            if self.left > 0 {
                let now = self.left.min(bytes.len());
                self.left -= now;
                bytes = &bytes[now..];
                continue;
            }
            let now = (PREFIX - self.seen).min(bytes.len());
            self.prefix[self.seen..self.seen + now].copy_from_slice(&bytes[..now]);
            self.seen += now;
            bytes = &bytes[now..];
            if self.seen == PREFIX {
                let [_, length @ ..] = self.prefix;
                (self.seen, self.left) = (0, u32::from_be_bytes(length) as usize);
                self.held.replace(None);
                let taken = self.room.take_many(self.peer, self.left).map_err(|reason| {
                    counter!(REQUESTS_REFUSED, "reason" => reason).increment(1);
                    Status::resource_exhausted(format!("no room for a message of {} bytes beside those under way; try again", self.left))
                })?;
                self.held.replace(Some(taken));
            }
        }
        Ok(())
    }
}

/// A body whose messages are weighed.
struct Scaled {
    body: Body,
    scale: Scale,
}

impl HttpBody for Scaled {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(bytes) = frame.data_ref()
            && let Err(refused) = self.scale.weigh(bytes)
        {
            return Poll::Ready(Some(Err(refused)));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend(u32::try_from(length).expect("small").to_be_bytes());
        bytes.extend(vec![7; length]);
        bytes
    }

    #[test]
    fn a_message_is_weighed_before_it_comes_however_it_is_cut() {
        let room = Places::bytes("test", 1000, 600);
        let peer = Some("10.0.0.1".parse().expect("an address"));
        let scale = || Scale { room: room.clone(), peer, held: Held::default(), prefix: [0; PREFIX], seen: 0, left: 0 };
        for cut in [1, 2, 3, 7, 1000] {
            let mut scale = scale();
            let stream = [message(100), message(0), message(300)].concat();
            for part in stream.chunks(cut) {
                scale.weigh(part).expect("there is room");
            }
            assert_eq!(room.taken(), 300, "the newest message counts");
            drop(scale);
            assert_eq!(room.taken(), 0);
        }
        let mut large = scale();
        let refused = large.weigh(&message(601)[..PREFIX]).expect_err("more than one peer may hold");
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        let (mut one, mut other) = (scale(), scale());
        one.weigh(&message(400)[..PREFIX]).expect("there is room");
        other.weigh(&message(400)[..PREFIX]).expect_err("not for both");
        drop(one);
        other.weigh(&message(400)[..PREFIX]).expect("there is room again");
    }
}
