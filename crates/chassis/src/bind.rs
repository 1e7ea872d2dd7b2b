//! Taking an address to listen at. In: an address and what it is for. Out: a listener, or what stands in the way and what to do.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;

/// Nothing can listen at an address.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {what} {addr}: {source}; {advice}")]
pub struct BindError {
    /// The address.
    pub addr: SocketAddr,
    /// What it is for.
    pub what: &'static str,
    /// What the system said.
    pub source: io::Error,
    /// What to do.
    pub advice: String,
}

impl BindError {
    pub(crate) fn new(addr: SocketAddr, what: &'static str, source: io::Error) -> Self {
        let port = addr.port();
        let advice = match source.kind() {
            io::ErrorKind::AddrInUse => {
                format!(
                    "another process holds port {port} (`ss -ltnp sport = :{port}` names it): stop it, or choose another port; 0 takes any"
                )
            }
            io::ErrorKind::AddrNotAvailable => "this machine has no such address: use 127.0.0.1, or 0.0.0.0 for all".to_owned(),
            io::ErrorKind::PermissionDenied => "ports below 1024 need privileges: choose a higher one".to_owned(),
            _ => "choose another address".to_owned(),
        };
        Self { addr, what, source, advice }
    }
}

/// Listens at `addr`, or says what to do.
pub(crate) async fn listen(addr: SocketAddr, what: &'static str) -> Result<TcpListener, BindError> {
    TcpListener::bind(addr).await.map_err(|source| BindError::new(addr, what, source))
}
