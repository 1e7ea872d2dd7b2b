//! Connections that go out.
//!
//! In: the address of a server. Out: a [`Link`] to it; with TLS, to a server whose certificate is valid for the very host
//! that was dialled. It is what a tonic channel is given as its connector, so each new connection takes the newest
//! certificate.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;

use super::refusal::Refusals;
use super::{Link, Security};
use crate::Reach;

/// Opens connections. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Dial {
    security: Security,
    reach: Reach,
    refusals: Arc<Refusals>,
}

impl Security {
    /// What opens connections this way.
    pub fn dial(&self) -> Dial {
        self.dial_within(Reach::anywhere())
    }

    /// What opens connections this way, and only within `reach`.
    pub fn dial_within(&self, reach: Reach) -> Dial {
        Dial { security: self.clone(), reach, refusals: Arc::new(Refusals::new("call")) }
    }
}

impl Dial {
    /// A connection to `uri`, whose host and port are dialled.
    ///
    /// # Errors
    /// When nobody is there, or it is not who was called.
    pub async fn open(&self, uri: &Uri) -> io::Result<Link> {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let port = uri.port_u16().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("{uri} has no port")))?;
        // The very addresses that were looked at: a name may mean another one a moment later.
        let stream = TcpStream::connect(&self.reach.resolve(host, port).await?[..]).await?;
        stream.set_nodelay(true)?;
        let Some(material) = self.security.material() else { return Ok(Link::Plain(stream)) };
        let name = ServerName::try_from(host.to_owned()).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        match TlsConnector::from(material.client.clone()).connect(name, stream).await {
            Ok(stream) => Ok(Link::Mutual(Box::new(stream.into()))),
            Err(error) => {
                self.refusals.note(uri, &error);
                Err(error)
            }
        }
    }
}

impl Service<Uri> for Dial {
    type Response = TokioIo<Link>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Link>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let dial = self.clone();
        Box::pin(async move { dial.open(&uri).await.map(TokioIo::new) })
    }
}
