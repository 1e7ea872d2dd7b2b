//! Probes: gRPC health, HTTP, TCP and commands, from the node's side.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::amount::{count, seconds};
use crate::manifest::list;
use crate::pod::Pod;
use crate::scrape::{get, named};

/// One probe of one container.
struct Probe<'a> {
    pod: &'a Pod,
    container: &'a Value,
    ip: Ipv4Addr,
    spec: &'a Value,
    period: Duration,
    failures: u32,
}

/// Waits until a container has started, as its startup probe has it, if it has one; else says why it has not.
pub async fn startup(pod: &Pod, container: &Value, ip: Ipv4Addr, limit: Option<Duration>) -> Result<(), String> {
    let Some(startup) = Probe::new(pod, container, ip, &container["startupProbe"], limit) else { return Ok(()) };
    startup.settle().await.map_err(|error| format!("startup probe failed: {error:#}"))
}

/// Runs the probes of a container that has started: `mark` hears of readiness; it returns when the container has to be started
/// again, and why.
pub async fn watch(pod: &Pod, container: &Value, ip: Ipv4Addr, limit: Option<Duration>, mark: impl Fn(bool)) -> String {
    let probe = |kind: &str| Probe::new(pod, container, ip, &container[kind], limit);
    let readiness = async {
        match probe("readinessProbe") {
            Some(probe) => probe.follow(&mark).await,
            None => {
                mark(true);
                std::future::pending().await
            }
        }
    };
    let liveness = async {
        match probe("livenessProbe") {
            Some(probe) => probe.fails().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = readiness => unreachable!("readiness is followed for ever"),
        error = liveness => format!("liveness probe failed: {error:#}"),
    }
}

impl<'a> Probe<'a> {
    fn new(pod: &'a Pod, container: &'a Value, ip: Ipv4Addr, spec: &'a Value, limit: Option<Duration>) -> Option<Self> {
        let written = seconds(&spec["periodSeconds"], 10);
        let period = limit.map_or(written, |limit| limit.min(written));
        // The same patience in time, tried more often.
        let factor = written.as_secs_f64() / period.as_secs_f64().max(0.001);
        let failures = (f64::from(count(&spec["failureThreshold"], 3)) * factor).ceil() as u32;
        spec.is_object().then_some(Self { pod, container, ip, spec, period, failures })
    }

    /// Waits for the first success; fails after too many failures.
    async fn settle(&self) -> Result<()> {
        sleep(seconds(&self.spec["initialDelaySeconds"], 0)).await;
        for failures in 1.. {
            match self.check().await {
                Ok(()) => break,
                Err(error) if failures >= self.failures => return Err(error),
                Err(_) => sleep(self.period).await,
            }
        }
        Ok(())
    }

    /// Reports every change, for ever.
    async fn follow(&self, mark: impl Fn(bool)) {
        let needed = count(&self.spec["successThreshold"], 1);
        let patience = count(&self.spec["failureThreshold"], 3);
        let (mut ready, mut good, mut bad) = (false, 0, 0);
        sleep(seconds(&self.spec["initialDelaySeconds"], 0)).await;
        loop {
            (good, bad) = if self.check().await.is_ok() { (good + 1, 0) } else { (0, bad + 1) };
            let now = if ready { bad < patience } else { good >= needed };
            if now != ready {
                ready = now;
                mark(ready);
            }
            sleep(self.period).await;
        }
    }

    /// Returns after too many failures in a row.
    async fn fails(&self) -> anyhow::Error {
        let mut failures = 0;
        sleep(seconds(&self.spec["initialDelaySeconds"], 0)).await;
        loop {
            match self.check().await {
                Ok(()) => failures = 0,
                Err(error) => {
                    failures += 1;
                    if failures >= self.failures {
                        return error;
                    }
                }
            }
            sleep(self.period).await;
        }
    }

    async fn check(&self) -> Result<()> {
        let limit = seconds(&self.spec["timeoutSeconds"], 1);
        timeout(limit, self.ask(limit)).await.with_context(|| format!("no answer in {limit:?}"))?
    }

    async fn ask(&self, limit: Duration) -> Result<()> {
        if self.spec["grpc"].is_object() {
            let port = self.port(&self.spec["grpc"]["port"])?;
            let channel = Endpoint::from_shared(format!("http://{}:{port}", self.ip))?.connect_timeout(limit).connect().await?;
            let service = self.spec["grpc"]["service"].as_str().unwrap_or_default().to_owned();
            let status = HealthClient::new(channel).check(HealthCheckRequest { service }).await?.into_inner().status();
            ensure!(status == ServingStatus::Serving, "{}", status.as_str_name());
        } else if self.spec["httpGet"].is_object() {
            let request = &self.spec["httpGet"];
            let (status, _) = get(self.ip, self.port(&request["port"])?, request["path"].as_str().unwrap_or("/"), limit).await?;
            ensure!((200..400).contains(&status), "HTTP {status}");
        } else if self.spec["tcpSocket"].is_object() {
            TcpStream::connect((self.ip, self.port(&self.spec["tcpSocket"]["port"])?)).await?;
        } else if self.spec["exec"].is_object() {
            let argv: Vec<_> = list(&self.spec["exec"]["command"]).filter_map(|word| word.as_str().map(str::to_owned)).collect();
            let output = self.pod.exec(self.container["name"].as_str(), &argv)?.output().await?;
            ensure!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
        } else {
            bail!("this kind of probe is not simulated");
        }
        Ok(())
    }

    /// A number, or the name of one of the pod's ports (which a gRPC probe may not use in Kubernetes, nor here).
    fn port(&self, port: &Value) -> Result<u16> {
        let number = port.as_u64().and_then(|port| u16::try_from(port).ok());
        let grpc = self.spec["grpc"].is_object();
        number
            .or_else(|| named(self.pod.plan.spec(), port.as_str()?).filter(|_| !grpc))
            .with_context(|| format!("a probe's port {port} is neither a number nor the name of a port"))
    }
}
