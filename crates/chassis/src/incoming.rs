//! Connections that come in: accepted, with TLS also shaken hands with, and heard to speak before the server hears of them.
//!
//! Consumes connections of a listener; produces [`Served`] streams. Waits for peers, each only so long, and holds only so many
//! of them: whoever connects and says nothing costs a place for some seconds, not the server. What cannot be accepted is
//! logged, counted and tried again after a breath. Dropping the stream closes the listener and whatever is under way.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use ::metrics::counter;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::server::Connected;

use crate::Security;
use crate::metrics::{ACCEPT_FAILED, CONNECTIONS_REFUSED};
use crate::places::{Place, Places};
use crate::seldom::Seldom;
use crate::tls::{Link, Peer, Refusals};

/// Longest handshake, and after it the longest wait for the first words: several round trips around the world, and some time
/// to compute on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections that are ready and that the server has not taken yet; it takes them at once.
const READY: usize = 16;
/// Pause after an accept that failed: for want of descriptors, which others must give back first.
const BREATHER: Duration = Duration::from_millis(50);
/// What whoever speaks HTTP/2 says first (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How a listener takes connections.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    /// What is served behind it: a label.
    pub(crate) name: &'static str,
    /// Most connections.
    pub(crate) most: usize,
    /// Most connections of one address.
    pub(crate) most_of_peer: usize,
    /// Whether HTTP/2 is spoken: then its first words are awaited. Otherwise a connection ends after this long, whatever it
    /// says.
    pub(crate) lifetime: Option<Duration>,
}

/// Connections, as a server takes them.
pub(crate) type Incoming = Pin<Box<dyn Stream<Item = io::Result<Served>> + Send>>;

/// The connections of a listener. Must be called inside a tokio runtime.
pub(crate) fn incoming(listener: TcpListener, security: &Security, door: Door) -> Incoming {
    let (ready, served) = mpsc::channel(READY);
    tokio::spawn(accept(listener, security.clone(), door, ready));
    Box::pin(ReceiverStream::new(served).map(Ok))
}

async fn accept(listener: TcpListener, security: Security, door: Door, ready: mpsc::Sender<Served>) {
    let places = Places::new(door.name, door.most, door.most_of_peer);
    let (failures, refused) =
        (Seldom::default(), std::sync::Arc::new(Refused { door: door.name, tls: Refusals::new("serve"), said: Seldom::default() }));
    let mut greetings = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // The server takes no more: whoever is being greeted is let go as well.
            () = ready.closed() => return,
        };
        while greetings.try_join_next().is_some() {}
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                counter!(ACCEPT_FAILED, "listener" => door.name, "reason" => failure(&error)).increment(1);
                if failures.now() {
                    let open = places.taken();
                    tracing::warn!(%error, open, listener = door.name, "cannot accept a connection; more of these are counted, not said");
                }
                sleep(BREATHER).await;
                continue;
            }
        };
        let place = match places.take(peer.ip()) {
            Ok(place) => place,
            Err(reason) => {
                refused.note(&peer, reason, &"there are too many connections");
                continue;
            }
        };
        let (ready, refused, security, lifetime) = (ready.clone(), refused.clone(), security.clone(), door.lifetime);
        greetings.spawn(async move {
            let Some(link) = shake(stream, &security, peer, &refused).await else { return };
            let greeted = match lifetime {
                Some(lifetime) => Ok(Served { link, said: PREFACE.len(), ends: Some(Box::pin(sleep(lifetime))), _place: place }),
                None => hear(link).await.map(|link| Served { link, said: 0, ends: None, _place: place }),
            };
            match greeted {
                // It fails when the server takes no more.
                Ok(served) => drop(ready.send(served).await),
                Err((reason, error)) => refused.note(&peer, reason, &error),
            }
        });
    }
}

/// With TLS, a handshake; in plaintext the stream as it is. `None` where it came to nothing, which was counted.
async fn shake(stream: TcpStream, security: &Security, peer: SocketAddr, refused: &Refused) -> Option<Link> {
    // Taken now and not at the start: files may have changed since.
    let acceptor = security.acceptor();
    let shaken = async {
        stream.set_nodelay(true)?;
        let Some(acceptor) = acceptor else { return Ok(Link::Plain(stream)) };
        let shaken = timeout(PATIENCE, TlsAcceptor::from(acceptor).accept(stream)).await;
        let stream = shaken.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, format!("no handshake within {PATIENCE:?}")))??;
        Ok(Link::Mutual(Box::new(stream.into())))
    };
    shaken.await.map_err(|error| refused.tls.note(&peer, &error)).ok()
}

/// Waits for the first words.
async fn hear(mut link: Link) -> Result<Link, (&'static str, io::Error)> {
    let mut words = [0; PREFACE.len()];
    match timeout(PATIENCE, link.read_exact(&mut words)).await {
        Ok(Ok(_)) if words == *PREFACE => Ok(link),
        Ok(Ok(_)) => Err(("not_http2", io::Error::new(io::ErrorKind::InvalidData, "it speaks something else than HTTP/2"))),
        Ok(Err(error)) => Err(("closed", error)),
        Err(_) => Err(("silent", io::Error::new(io::ErrorKind::TimedOut, format!("it has not begun to speak HTTP/2 within {PATIENCE:?}")))),
    }
}

/// Connections of a listener that came to nothing.
struct Refused {
    door: &'static str,
    tls: Refusals,
    said: Seldom,
}

impl Refused {
    fn note(&self, peer: &SocketAddr, reason: &'static str, error: &dyn std::fmt::Display) {
        counter!(CONNECTIONS_REFUSED, "listener" => self.door, "reason" => reason).increment(1);
        if reason == "closed" {
            // Whoever looks whether a port is open does this.
            tracing::debug!(%peer, reason, %error, listener = self.door, "no connection");
        } else if self.said.now() {
            tracing::warn!(%peer, reason, %error, listener = self.door, "a connection is closed; more of these are counted, not said");
        }
    }
}

/// The counter's label. 23 and 24 are what Linux calls a full table of files, of the machine and of the process.
fn failure(error: &io::Error) -> &'static str {
    match (error.raw_os_error(), error.kind()) {
        (Some(23 | 24), _) => "descriptors",
        (_, io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => "aborted",
        _ => "other",
    }
}

/// A connection that the server takes: its place, and the first words once more for who reads it.
#[derive(Debug)]
pub(crate) struct Served {
    link: Link,
    /// Bytes of [`PREFACE`] that were handed on.
    said: usize,
    /// When it ends, if it does so by itself.
    ends: Option<Pin<Box<Sleep>>>,
    _place: Place,
}

impl Served {
    /// Whether its time is over.
    fn over(&mut self, context: &mut Context<'_>) -> bool {
        self.ends.as_mut().is_some_and(|ends| ends.as_mut().poll(context).is_ready())
    }
}

impl Connected for Served {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.link.connect_info()
    }
}

impl AsyncRead for Served {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.over(context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if this.said < PREFACE.len() {
            let rest = &PREFACE[this.said..];
            let now = rest.len().min(buffer.remaining());
            buffer.put_slice(&rest[..now]);
            this.said += now;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.link).poll_read(context, buffer)
    }
}

impl AsyncWrite for Served {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.over(context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut this.link).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().link).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().link).poll_shutdown(context)
    }

    fn poll_write_vectored(self: Pin<&mut Self>, context: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.over(context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut this.link).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.link.is_write_vectored()
    }
}
