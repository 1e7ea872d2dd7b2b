//! Connections that come in: accepted, and with TLS also shaken hands with, before the server hears of them.
//!
//! Consumes connections of a listener; produces [`Link`]s. Waits for peers, each only so long, and only for so many at the
//! same moment: whoever connects and says nothing costs a place for some seconds, not the server. Dropping the stream closes
//! the listener and whatever is under way.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::server::TcpIncoming;

use super::refusal::Refusals;
use super::{Link, Live, Security};

/// Longest handshake: several round trips around the world, and some time to compute on a busy machine.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes at the same moment; more wait unaccepted. A few ms of one core each.
const HANDSHAKES: usize = 256;
/// Connections that are ready and that the server has not taken yet; it takes them at once.
const READY: usize = 16;
/// Pause after an accept that failed: for want of descriptors, which others must give back first.
const BREATHER: Duration = Duration::from_millis(50);

/// Connections, as a server takes them.
pub(crate) type Incoming = Pin<Box<dyn Stream<Item = io::Result<Link>> + Send>>;

/// The connections of a listener. Must be called inside a tokio runtime.
pub(crate) fn incoming(listener: TcpListener, security: &Security) -> Incoming {
    let Some(live) = security.live.clone() else {
        let plain = TcpIncoming::from(listener).with_nodelay(Some(true));
        return Box::pin(plain.map(|stream| stream.map(Link::Plain)));
    };
    let (ready, links) = mpsc::channel(READY);
    tokio::spawn(accept(listener, live, ready));
    Box::pin(ReceiverStream::new(links).map(Ok))
}

async fn accept(listener: TcpListener, live: Arc<Live>, ready: mpsc::Sender<Link>) {
    let (places, refusals) = (Arc::new(Semaphore::new(HANDSHAKES)), Arc::new(Refusals::new("serve")));
    let mut handshakes = JoinSet::new();
    loop {
        let next = async {
            let place = places.clone().acquire_owned().await.expect("nobody closes it");
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            next = next => next,
            // The server takes no more: whoever is being greeted is let go as well.
            () = ready.closed() => return,
        };
        while handshakes.try_join_next().is_some() {}
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection");
                tokio::time::sleep(BREATHER).await;
                continue;
            }
        };
        // Taken now and not at the start: files may have changed since.
        let (material, ready, refusals) = (live.material(), ready.clone(), refusals.clone());
        handshakes.spawn(async move {
            match greet(stream, TlsAcceptor::from(material.server.clone())).await {
                // It fails when the server takes no more.
                Ok(link) => drop(ready.send(link).await),
                Err(error) => refusals.note(&peer, &error),
            }
            drop(place);
        });
    }
}

async fn greet(stream: TcpStream, acceptor: TlsAcceptor) -> io::Result<Link> {
    stream.set_nodelay(true)?;
    let shaken = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await;
    let stream = shaken.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, format!("no handshake within {HANDSHAKE:?}")))??;
    Ok(Link::Mutual(Box::new(stream.into())))
}
