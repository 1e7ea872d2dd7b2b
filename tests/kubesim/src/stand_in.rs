//! A program for the tests' pods: gRPC health and metrics that files in `/tmp` steer, and signals that it writes down.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tonic_health::ServingStatus;

/// How it behaves.
#[derive(Args)]
pub struct StandIn {
    /// gRPC health: services `ready` (until /tmp/unready exists), `live` (until /tmp/dead exists) and `startup`.
    #[arg(long, default_value_t = 8086)]
    health: u16,
    /// Metrics: `load` has the value that is in /tmp/load, or 0.
    #[arg(long, default_value_t = 9090)]
    metrics: u16,
    /// Milliseconds before it is ready.
    #[arg(long, default_value_t = 0)]
    warm_up: u64,
    /// Milliseconds from SIGTERM to the end.
    #[arg(long, default_value_t = 0)]
    drain: u64,
}

/// Serves until SIGTERM.
pub async fn run(options: StandIn) -> Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let (reporter, service) = tonic_health::server::health_reporter();
    tokio::spawn(async move {
        let begun = std::time::Instant::now();
        loop {
            let warm = begun.elapsed() >= Duration::from_millis(options.warm_up);
            for (name, good) in
                [("ready", warm && !Path::new("/tmp/unready").exists()), ("live", !Path::new("/tmp/dead").exists()), ("startup", warm)]
            {
                let status = if good { ServingStatus::Serving } else { ServingStatus::NotServing };
                reporter.set_service_status(name, status).await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    tokio::spawn(tonic::transport::Server::builder().add_service(service).serve(([0, 0, 0, 0], options.health).into()));
    tokio::spawn(pages(TcpListener::bind(("0.0.0.0", options.metrics)).await?));
    println!("up");
    term.recv().await;
    println!("SIGTERM");
    tokio::time::sleep(Duration::from_millis(options.drain)).await;
    println!("drained");
    Ok(())
}

async fn pages(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let load = std::fs::read_to_string("/tmp/load").unwrap_or_else(|_| "0".to_owned());
        let mut lines = BufReader::new(&mut stream).lines();
        // A caller that goes away is no reason to stop.
        while lines.next_line().await.is_ok_and(|line| line.is_some_and(|line| !line.is_empty())) {}
        let _ = stream.write_all(format!("HTTP/1.0 200 OK\r\n\r\n# TYPE load gauge\nload {}\n", load.trim()).as_bytes()).await;
    }
}
