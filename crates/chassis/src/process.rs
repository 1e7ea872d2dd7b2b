//! What every process has beside its work: logs, metrics, probes, a name that it proves, and a parent that is told.
//!
//! In: the `process` table of a service's settings. Out: the parts, started in the one order in which nothing is lost: logs first, then
//! what is wrong with the settings, then the certificate. It does not know what the process does, nor whether it serves anything.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::ready::{AnnounceError, announce};
use crate::{
    Announcement, BadInput, BindError, Callers, Findings, Health, Moved, Probes, Security, Server, Shutdown, Telemetry, TelemetryConfig,
    TlsConfig, telemetry,
};

/// Settings of every process, whatever it does.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct ProcessConfig {
    /// Where `/metrics` is served; port 0 takes any free port. Default none: a parent process may serve its own.
    pub metrics_listen: Option<SocketAddr>,
    /// Where health is served in plaintext on a port of its own, for probes that show no certificate. Default none.
    pub health_listen: Option<SocketAddr>,
    /// Certificate with which peers prove who they are to each other. Default none: plaintext, for one machine.
    pub tls: Option<TlsConfig>,
    /// File in which the addresses taken are announced, once the process takes calls (an actor: once its policy is loaded; it serves no
    /// gRPC, and the address in it is that of the metrics, or 0.0.0.0:0). Default none: with a fixed port nobody needs to be told.
    pub announce: Option<PathBuf>,
    /// Logs.
    pub telemetry: TelemetryConfig,
}

impl ProcessConfig {
    /// The keys of the table, as they were before it: beside the service's own.
    pub fn moved() -> Vec<Moved> {
        ["metrics_listen", "health_listen", "tls", "announce", "telemetry"].map(|key| Moved::to(key, &format!("process.{key}"))).to_vec()
    }

    /// What is wrong with the settings of a process that serves gRPC at `listen`, if it does. Keys are named from the table that holds
    /// `process` and `listen`; no file but certificates is opened.
    pub fn findings(&self, listen: Option<SocketAddr>) -> Findings {
        let mut found = Findings::default();
        found.ports(&[("listen", listen), ("process.metrics_listen", self.metrics_listen), ("process.health_listen", self.health_listen)]);
        found.under("process.telemetry", self.telemetry.findings());
        if let Some(tls) = &self.tls {
            found.under("process.tls", tls.findings());
        }
        found
    }

    /// Starts logs and metrics, refuses the process's settings or warns of them, and reads the certificate.
    ///
    /// # Errors
    /// [`BadInput`] with everything that is refused.
    pub fn start(&self, found: &Findings) -> Result<Process, BadInput> {
        let telemetry = telemetry::init(&self.telemetry)?;
        found.admit()?;
        Ok(Process { config: self.clone(), telemetry, security: Security::new(self.tls.as_ref())? })
    }
}

/// A process that has begun.
pub struct Process {
    config: ProcessConfig,
    telemetry: Telemetry,
    security: Security,
}

impl Process {
    /// How it speaks with others.
    pub fn security(&self) -> &Security {
        &self.security
    }

    /// Takes the port of a gRPC server, which reflection describes and whose callers are let in by their roles.
    ///
    /// # Errors
    /// [`BindError`] when nothing can listen there.
    pub async fn bind(&self, listen: SocketAddr, descriptors: &'static [u8], callers: Callers) -> Result<Server, BindError> {
        Ok(Server::bind(listen).await?.describe(descriptors).secure(&self.security, callers))
    }

    /// Opens the ports of whoever watches over the process: probes and metrics, where they are asked for.
    ///
    /// # Errors
    /// [`BindError`] when a port cannot be had.
    pub async fn watched(self, health: &Health, shutdown: &Shutdown) -> Result<Watched, BindError> {
        let probes = health.listen(self.config.health_listen, shutdown).await?;
        let metrics = match self.config.metrics_listen {
            Some(addr) => Some(self.telemetry.metrics_listener(addr, shutdown.clone()).await?),
            None => None,
        };
        Ok(Watched { announce: self.config.announce, metrics, _probes: probes })
    }
}

/// A process that is watched; dropping it closes the probes' port.
#[derive(Debug)]
pub struct Watched {
    announce: Option<PathBuf>,
    metrics: Option<SocketAddr>,
    _probes: Option<Probes>,
}

impl Watched {
    /// Tells the parent, if one wants to know, where gRPC is served, if it is, and where metrics are.
    ///
    /// # Errors
    /// [`AnnounceError`] when the file cannot be written.
    pub fn announce(&self, grpc: Option<SocketAddr>) -> Result<(), AnnounceError> {
        let Some(path) = &self.announce else { return Ok(()) };
        let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        announce(path, &Announcement::new(grpc.or(self.metrics).unwrap_or(nowhere), self.metrics))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_is_watched_and_says_where_it_is() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (path, any) = (folder.path().join("ready.json"), SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let config =
            ProcessConfig { metrics_listen: Some(any), health_listen: Some(any), announce: Some(path.clone()), ..ProcessConfig::default() };
        let process = config.start(&config.findings(Some(any))).expect("sound settings");
        let watched = process.watched(&Health::new().await, &Shutdown::new()).await.expect("free ports");
        watched.announce(None).expect("the folder is there");
        let said: Announcement = serde_json::from_slice(&std::fs::read(&path).expect("written")).expect("an announcement");
        assert!(said.metrics.is_some_and(|at| at.port() != 0 && at == said.addr), "an actor's address is that of its metrics");
        watched.announce(Some("127.0.0.1:7000".parse().expect("an address"))).expect("the folder is there");
        let said: Announcement = serde_json::from_slice(&std::fs::read(&path).expect("written")).expect("an announcement");
        assert_eq!(said.addr.port(), 7000);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_table() {
        let at = |text: &str| text.parse().ok();
        let wrong = ProcessConfig {
            metrics_listen: at("127.0.0.1:9090"),
            health_listen: at("0.0.0.0:7000"),
            tls: Some(TlsConfig::default()),
            telemetry: TelemetryConfig { filter: "a=b=c".into(), ..TelemetryConfig::default() },
            ..ProcessConfig::default()
        };
        let found = wrong.findings(at("127.0.0.1:7000"));
        let keys: Vec<&str> = found.refused().iter().map(|finding| finding.key.as_str()).collect();
        assert_eq!(keys, ["process.health_listen", "process.telemetry.filter", "process.tls"]);
        assert!(wrong.start(&found).is_err());
    }
}
