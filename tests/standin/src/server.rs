//! The server: a port, connections, a fresh start when it is told to. In: options. Out: an address, and a handle with which a test
//! orders lies and reads what was answered. Dropping the handle ends every connection.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};

use crate::audit::{Audit, Entry};
use crate::lies::Draws;
use crate::routes;
use crate::served::Served;
use crate::{Lie, Lies, Options};

/// What every request shares.
pub(crate) struct Server {
    pub(crate) options: Options,
    pub(crate) served: Served,
    pub(crate) draws: Mutex<Draws>,
    pub(crate) audit: Audit,
    /// Orders a fresh start; the sender is told when the server answers again.
    pub(crate) restarts: mpsc::Sender<oneshot::Sender<()>>,
}

/// A server that runs.
pub struct Standin {
    url: String,
    server: Arc<Server>,
    task: JoinHandle<()>,
}

impl Standin {
    /// Loads the model and serves. Must be called inside a multi-threaded tokio runtime.
    ///
    /// # Errors
    /// When the model cannot be read, the port is taken or the audit cannot be written.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let (restarts, orders) = mpsc::channel(1);
        let audit = Audit::new(options.audit.as_deref()).context("the audit cannot be written")?;
        let loading = options.clone();
        let served = tokio::task::spawn_blocking(move || Served::open(&loading)).await??;
        let draws = Mutex::new(Draws::new(options.lies.clone()));
        let listener = listen(options.port).await?;
        let address = listener.local_addr()?;
        let server = Arc::new(Server { options, served, draws, audit, restarts });
        let task = tokio::spawn(serve(listener, address, server.clone(), orders));
        Ok(Self { url: format!("http://{address}"), server, task })
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Has the next request that a lie is possible for meet it.
    pub fn lie_next(&self, lie: Lie) {
        self.server.draws.lock().order(lie);
    }

    /// Lies at these rates from now on.
    pub fn set_lies(&self, lies: Lies) {
        *self.server.draws.lock() = Draws::new(lies);
    }

    /// What was asked and answered so far.
    pub fn audit(&self) -> Vec<Entry> {
        self.server.audit.entries()
    }

    /// Starts again: connections end, weights and labels are those of the start. Returns when it listens again.
    pub async fn restart(&self) {
        let (done, waits) = oneshot::channel();
        if self.server.restarts.send(done).await.is_ok() {
            // A server that is gone has no fresh start.
            let _ = waits.await;
        }
    }

    /// Serves until the process ends.
    pub async fn forever(mut self) {
        // It ends only with this handle.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Standin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(port: u16) -> anyhow::Result<TcpListener> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpListener::bind(address).await.with_context(|| format!("cannot listen at {address}"))
}

/// One life after another.
async fn serve(first: TcpListener, address: SocketAddr, server: Arc<Server>, mut orders: mpsc::Receiver<oneshot::Sender<()>>) {
    let router = routes::of(server.clone());
    let mut listener = first;
    loop {
        let done = live(listener, &router, &mut orders).await;
        server.served.reset().await;
        tokio::time::sleep(server.options.down).await;
        listener = match listen(address.port()).await {
            Ok(listener) => listener,
            Err(error) => return eprintln!("{error:#}"),
        };
        // Whoever ordered it may be a request that has ended with its connection.
        let _ = done.send(());
    }
}

/// Serves until a fresh start is ordered; every connection has ended then.
async fn live(listener: TcpListener, router: &Router, orders: &mut mpsc::Receiver<oneshot::Sender<()>>) -> oneshot::Sender<()> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // One that was given up again is no matter.
                let Ok((stream, _)) = accepted else { continue };
                let service = TowerToHyperService::new(router.clone());
                connections.spawn(async move {
                    let builder = Builder::new(TokioExecutor::new()).http1_only();
                    // Broken connections are what this server is for.
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            order = orders.recv() => {
                let Some(done) = order else { return std::future::pending().await };
                connections.shutdown().await;
                return done;
            }
        }
    }
}
