//! One connection, in plaintext or not.
//!
//! In: a TCP stream, perhaps with TLS on it. Out: bytes both ways, and for servers [`Peer`], who is at the other end.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tonic::transport::server::Connected;

use super::Identity;

/// A connection.
#[derive(Debug)]
pub enum Link {
    /// In plaintext.
    Plain(TcpStream),
    /// With TLS; boxed, since its state is large.
    Mutual(Box<TlsStream<TcpStream>>),
}

/// Connections served so far; their numbers.
static SERVED: AtomicU64 = AtomicU64::new(0);

/// Who is at the other end of a served connection; an extension of every request. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The connection's number, unique within the process. The connection holds one of these for as long as it is open: who keeps a
    /// `Weak` of it learns of its end.
    pub connection: Arc<u64>,
    /// Where it calls from.
    pub addr: Option<SocketAddr>,
    /// Its certificate, which was checked; `None` in plaintext.
    pub certificate: Option<Arc<CertificateDer<'static>>>,
    /// Who the certificate says that it is; `None` in plaintext, and where it says nothing that is understood here.
    pub identity: Option<Arc<Identity>>,
}

impl Connected for Link {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        let connection = Arc::new(SERVED.fetch_add(1, Ordering::Relaxed));
        match self {
            Self::Plain(stream) => Peer { connection, addr: stream.peer_addr().ok(), certificate: None, identity: None },
            Self::Mutual(stream) => {
                let (stream, session) = stream.get_ref();
                let certificate = session.peer_certificates().and_then(<[_]>::first).cloned();
                let identity = certificate.as_ref().and_then(Identity::of).map(Arc::new);
                Peer { connection, addr: stream.peer_addr().ok(), certificate: certificate.map(Arc::new), identity }
            }
        }
    }
}

impl AsyncRead for Link {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Mutual(stream) => Pin::new(stream.as_mut()).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Link {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Mutual(stream) => Pin::new(stream.as_mut()).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Mutual(stream) => Pin::new(stream.as_mut()).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Mutual(stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
        }
    }

    fn poll_write_vectored(self: Pin<&mut Self>, context: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Mutual(stream) => Pin::new(stream.as_mut()).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Mutual(stream) => stream.is_write_vectored(),
        }
    }
}
