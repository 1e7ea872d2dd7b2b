//! Whether a process lives, has started and takes calls, for whoever watches over it.
//!
//! In: the process's own word. Out: `grpc.health.v1`, beside the services of a [`Server`](crate::Server) or on a port of its
//! own: an orchestrator's probes show no certificate, so that where peers must, health is asked for elsewhere, in plaintext.

use std::net::SocketAddr;
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use crate::bind::listen;
use crate::incoming::{Door, incoming};
use crate::{BindError, Security, Shutdown};

/// Health name: the process runs; answers as soon as the port is open and until the end.
pub const LIVE: &str = "live";
/// Health name: the process has started and takes calls. The empty name says the same.
pub const READY: &str = "ready";
/// Health name: the same as [`READY`], except that it stays once it was reached.
pub const STARTUP: &str = "startup";

/// Few ask, and each of them now and then.
const DOOR: Door = Door { name: "health", most: 64, most_of_peer: 32, lifetime: None };

/// What the port is for, in messages.
const WHAT: &str = "the health address";

/// Whether the process takes calls, as health checks see it. Clones are one and the same.
#[derive(Clone, Debug)]
pub struct Health {
    reporter: HealthReporter,
}

impl Health {
    /// A process that lives and is not ready yet.
    pub async fn new() -> Self {
        let health = Self { reporter: HealthReporter::new() };
        health.set(&[LIVE], true).await;
        health.set(&["", READY, STARTUP], false).await;
        health
    }

    /// The process takes calls from now on.
    pub async fn ready(&self) {
        self.set(&["", READY, STARTUP], true).await;
    }

    /// The process takes no calls for the moment, or ever again.
    pub async fn not_ready(&self) {
        self.set(&["", READY], false).await;
    }

    /// Serves health alone, in plaintext, at `addr`, if there is one; port 0 takes any free port. The process is not ready
    /// any more once it is told to stop, but lives: it is served until what this returns is dropped.
    ///
    /// # Errors
    /// [`BindError`] when nothing can listen there.
    pub async fn listen(&self, addr: Option<SocketAddr>, shutdown: &Shutdown) -> Result<Option<Probes>, BindError> {
        let Some(addr) = addr else { return Ok(None) };
        let listener = listen(addr, WHAT).await?;
        let bound = listener.local_addr().map_err(|source| BindError::new(addr, WHAT, source))?;
        let serve = tonic::transport::Server::builder()
            .timeout(Duration::from_secs(10))
            .concurrency_limit_per_connection(16)
            .max_concurrent_streams(16)
            .http2_keepalive_interval(Some(Duration::from_secs(5)))
            .http2_keepalive_timeout(Some(Duration::from_secs(20)))
            .add_service(self.service())
            .serve_with_incoming(incoming(listener, &Security::plaintext(), DOOR));
        let (leaving, shutdown) = (self.clone(), shutdown.clone());
        let stop = async move {
            shutdown.cancelled().await;
            leaving.not_ready().await;
            std::future::pending::<()>().await;
        };
        let serving = tokio::spawn(async move {
            tokio::select! {
                ended = serve => if let Err(error) = ended {
                    tracing::warn!(%error, "the health listener ended");
                },
                () = stop => {}
            }
        });
        tracing::info!(addr = %bound, "serving health");
        Ok(Some(Probes { addr: bound, _serving: AbortOnDropHandle::new(serving) }))
    }

    /// The gRPC service.
    pub(crate) fn service(&self) -> HealthServer<HealthService> {
        HealthServer::new(HealthService::from_health_reporter(self.reporter.clone()))
    }

    async fn set(&self, names: &[&str], serving: bool) {
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        for name in names {
            self.reporter.set_service_status(name, status).await;
        }
    }
}

/// Health on a port of its own; dropping it closes the port.
#[derive(Debug)]
pub struct Probes {
    addr: SocketAddr,
    _serving: AbortOnDropHandle<()>,
}

impl Probes {
    /// The address that was taken.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}
