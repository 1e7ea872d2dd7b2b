//! A gRPC server with what every server here has: health, reflection, limits, keepalive, peers with names, and an end.
//!
//! In: an address, the routes of a service, and how it speaks with peers. Out: a served port until shutdown. Message size limits
//! belong to the services themselves (tonic sets them on the generated type), so the routes come with theirs.

use std::net::SocketAddr;
use std::time::Duration;

use ::metrics::counter;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tonic::service::Routes;

use crate::bind::listen;
use crate::guard::{Callers, Guard};
use crate::health::Health;
use crate::incoming::{Door, incoming};
use crate::metrics::DRAIN_CUT;
use crate::places::Places;
use crate::weight::Weigh;
use crate::{BindError, Findings, Security, Shutdown};

pub use crate::health::{LIVE, READY, STARTUP};

/// Limits of a server.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// Longest time in seconds until a call's reply begins; streams may then go on. Default 600: a bound of last resort,
    /// since callers set their own deadlines.
    pub timeout_secs: u64,
    /// Calls in progress per connection; more are refused as `ResourceExhausted`, which callers retry. Default 128: above
    /// one actor's groups in flight, below what would exhaust memory.
    pub max_calls_per_connection: usize,
    /// HTTP/2 streams per connection. Default 256: twice the calls, since open watches count.
    pub max_streams_per_connection: u32,
    /// Connections at the same moment; more are closed at once. Default 4096; always fewer than the process may have
    /// descriptors.
    pub max_connections: usize,
    /// Connections of one address (of IPv6: of one /64). Default 512, and never more than half of all.
    pub max_connections_per_peer: usize,
    /// Bytes of requests that are being read or answered at the same moment; what goes beyond is refused as
    /// `ResourceExhausted`, which callers retry. Default 1 GiB, half of it for one address: 8 of the largest messages.
    pub max_request_bytes: usize,
    /// Seconds between pings on a silent connection, so that vanished peers are noticed. Default 5: with the next, a peer that
    /// is gone holds its place for less than half a minute.
    pub keepalive_secs: u64,
    /// Seconds that a ping may stay unanswered. Default 20.
    pub keepalive_timeout_secs: u64,
    /// Seconds that calls in progress get at shutdown before their connections are cut. Default 5; open watches never end
    /// on their own.
    pub grace_secs: u64,
    /// Whether gRPC reflection is served, so that `grpcurl` works without files. Default true.
    pub reflection: bool,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            timeout_secs: 600,
            max_calls_per_connection: 128,
            max_streams_per_connection: 256,
            max_connections: 4096,
            max_connections_per_peer: 512,
            max_request_bytes: 1 << 30,
            keepalive_secs: 5,
            keepalive_timeout_secs: 20,
            grace_secs: 5,
            reflection: true,
        }
    }
}

impl ServerConfig {
    /// What is wrong with the limits.
    pub fn findings(&self) -> Findings {
        let mut found = Findings::default();
        found.span("timeout_secs", self.timeout_secs, 1, 1);
        // More permits than this no semaphore has.
        found.within("max_calls_per_connection", self.max_calls_per_connection, 1..=1 << 24);
        found.at_least_one("max_streams_per_connection", self.max_streams_per_connection);
        found.within("max_connections", self.max_connections, 1..=1 << 24);
        found.within("max_connections_per_peer", self.max_connections_per_peer, 1..=1 << 24);
        found.within("max_request_bytes", self.max_request_bytes, 1..=1 << 40);
        found.span("keepalive_secs", self.keepalive_secs, 1, 1);
        found.span("keepalive_timeout_secs", self.keepalive_timeout_secs, 1, 1);
        found.span("grace_secs", self.grace_secs, 0, 1);
        found
    }

    fn door(&self) -> Door {
        Door { name: "grpc", most: self.max_connections, most_of_peer: self.max_connections_per_peer, lifetime: None }
    }
}

/// The server ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The transport failed.
    #[error("the gRPC server on {addr} failed: {source}")]
    Transport {
        /// Where.
        addr: SocketAddr,
        /// Why.
        source: tonic::transport::Error,
    },
    /// A descriptor set is broken: a mistake in the program.
    #[error("gRPC reflection cannot be served: {0}")]
    Descriptors(String),
}

/// A bound port, not yet served. Callers that come now wait until it is.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    addr: SocketAddr,
    health: Health,
    starts_ready: bool,
    descriptors: Vec<&'static [u8]>,
    security: Security,
    callers: Option<Callers>,
}

impl Server {
    /// Takes the port; 0 takes any free one.
    ///
    /// # Errors
    /// [`BindError`], which says what to do.
    pub async fn bind(addr: SocketAddr) -> Result<Self, BindError> {
        let listener = listen(addr, "the gRPC address").await?;
        let bound = listener.local_addr().map_err(|source| BindError::new(addr, "the gRPC address", source))?;
        Ok(Self {
            listener,
            addr: bound,
            health: Health::new().await,
            starts_ready: true,
            descriptors: Vec::new(),
            security: Security::plaintext(),
            callers: None,
        })
    }

    /// The address that was taken.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Adds an encoded file descriptor set to what reflection shows.
    #[must_use]
    pub fn describe(mut self, descriptors: &'static [u8]) -> Self {
        self.descriptors.push(descriptors);
        self
    }

    /// Serves over mutual TLS, if that is what `security` is: then only peers with a certificate get in, and each calls what
    /// `callers` lets its role call. In plaintext, which is the default, everybody calls everything.
    #[must_use]
    pub fn secure(mut self, security: &Security, callers: Callers) -> Self {
        self.callers = security.is_mutual().then_some(callers);
        self.security = security.clone();
        self
    }

    /// The server's word on itself, for a port of its own ([`Health::listen`]).
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Hands readiness to the caller: the process is not ready until [`Health::ready`]. Without this it is ready as soon as
    /// it is served.
    pub fn take_health(&mut self) -> Health {
        self.starts_ready = false;
        self.health.clone()
    }

    /// Serves `routes` until `shutdown`; then refuses new connections, says so to health checks, and gives calls in
    /// progress their grace.
    ///
    /// # Errors
    /// [`ServeError`] when serving fails; being told to stop is not an error.
    pub async fn serve(self, routes: Routes, shutdown: Shutdown, config: &ServerConfig) -> Result<(), ServeError> {
        let Self { listener, addr, health, starts_ready, descriptors, security, callers } = self;
        if !security.is_mutual() && !addr.ip().is_loopback() {
            tracing::warn!(%addr, "serving in plaintext beyond this machine: whoever reaches the port can read and call everything; set tls");
        }
        let mut routes = routes.add_service(health.service());
        if config.reflection {
            let mut builder =
                tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
            for set in descriptors {
                builder = builder.register_encoded_file_descriptor_set(set);
            }
            routes = routes.add_service(builder.build_v1().map_err(|error| ServeError::Descriptors(error.to_string()))?);
        }
        let router = tonic::transport::Server::builder()
            .timeout(Duration::from_secs(config.timeout_secs))
            .concurrency_limit_per_connection(config.max_calls_per_connection)
            .load_shed(true)
            .max_concurrent_streams(config.max_streams_per_connection)
            .http2_keepalive_interval(Some(Duration::from_secs(config.keepalive_secs)))
            .http2_keepalive_timeout(Some(Duration::from_secs(config.keepalive_timeout_secs)))
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(8 << 20)
            .layer(Guard { callers })
            .layer(Weigh { room: Places::bytes("grpc", config.max_request_bytes, config.max_request_bytes / 2) })
            .add_routes(routes.prepare());
        if starts_ready {
            health.ready().await;
        }
        tracing::info!(%addr, ?security, "serving gRPC");
        let stopping = shutdown.clone();
        let leaving = health.clone();
        let serve = router.serve_with_incoming_shutdown(incoming(listener, &security, config.door()), async move {
            stopping.cancelled().await;
            leaving.not_ready().await;
        });
        let out_of_grace = async {
            shutdown.cancelled().await;
            tokio::time::sleep(Duration::from_secs(config.grace_secs)).await;
        };
        tokio::select! {
            served = serve => served.map_err(|source| ServeError::Transport { addr, source }),
            () = out_of_grace => {
                tracing::info!(%addr, grace_secs = config.grace_secs, "connections still open at the end of their grace are cut");
                counter!(DRAIN_CUT, "what" => "server").increment(1);
                Ok(())
            }
        }
    }
}
