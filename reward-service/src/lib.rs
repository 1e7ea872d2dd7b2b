//! The reward service: accuracy, TRACE bonus and route for groups of rollouts, and the keeper of the TRACE references.
//!
//! In: groups with their tasks, over gRPC; epoch commits; references of a checkpoint. Out: scores that name the reference
//! and epoch they were computed against. It is request and reply: it holds no group, and can be restarted at any moment
//! without losing a reference that it has acknowledged.
//!
//! It knows no tensor, no actor and no learner.

pub mod backup;
pub mod change;
pub mod metrics;
pub mod references;
pub mod scorer;
pub mod service;
pub mod store;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::BoxFuture;
use hypereyes_chassis::ready::AnnounceError;
use hypereyes_chassis::server::ServeError;
use hypereyes_chassis::{
    BadInput, BindError, Findings, Moved, ProcessConfig, ServerConfig, ServiceProcess, ServiceProgram, Settings, Shutdown, Work,
};
use hypereyes_judge::{JudgeChoice, ModelConfig};
use hypereyes_proto::ports;
use hypereyes_scoring::{Distilled, ReferenceMode, TraceConfig};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tonic::service::Routes;

use crate::references::References;
use crate::scorer::Scorer;
use crate::service::Service;
use crate::store::StoreError;

/// Settings of the reward service.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where gRPC is served; port 0 takes any free port. Default 127.0.0.1:7001: only this machine, until somebody decides
    /// otherwise.
    pub listen: SocketAddr,
    /// What every process has: metrics, health, certificates, logs, and a parent that is told.
    pub process: ProcessConfig,
    /// Who judges answers: `exact`, `alias`, `contains`, `em`, `token_f1`, `option` or `model` (docs/judges.md). Default `alias`: tasks
    /// carry aliases.
    pub judge: JudgeChoice,
    /// The model that judges, if one does.
    pub judge_model: ModelConfig,
    /// Constants of the efficiency bonus.
    pub trace: TraceConfig,
    /// Which judged rollouts go to the teacher: `failed`, or `all`, right ones as well. Default `failed`, as in the paper; `all` is what it
    /// is compared with.
    pub distilled: Distilled,
    /// When a cheaper success becomes the reference: `epoch`, `immediate` or `static`. Default `epoch`, so that scoring
    /// within an epoch is a pure function.
    pub references: ReferenceMode,
    /// Folder in which references are kept. Default none: they live as long as the process.
    pub store: Option<PathBuf>,
    /// Backups of the committed references kept beside the store, one per epoch; 0 keeps none. Default 3.
    pub backups: usize,
    /// A backup whose references are taken in at the start. Default none.
    pub restore_from: Option<PathBuf>,
    /// Groups whose scores are remembered, so that a repeated call gets the same answer. Default 4096: far more than are in
    /// flight, a few MiB.
    pub remember_groups: usize,
    /// Groups scored at the same moment; others wait. Default 256: those that wait for the disk or a judge cost no core.
    pub in_flight: usize,
    /// Limits of the gRPC server.
    pub server: ServerConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: ports::here(ports::REWARD),
            process: ProcessConfig::default(),
            judge: JudgeChoice::default(),
            judge_model: ModelConfig::default(),
            trace: TraceConfig::default(),
            distilled: Distilled::default(),
            references: ReferenceMode::default(),
            store: None,
            backups: 3,
            restore_from: None,
            remember_groups: 4096,
            in_flight: 256,
            server: ServerConfig::default(),
        }
    }
}

impl Settings for Config {
    fn moved() -> Vec<Moved> {
        ProcessConfig::moved()
    }
}

/// Rewards beyond this swallow what they are compared with.
const MOST_REWARD: f64 = 1e6;
/// More groups than this at the same moment are a slip.
const MOST_IN_FLIGHT: usize = 1 << 20;

impl Config {
    /// What is wrong with the settings, all of it on one line.
    ///
    /// # Errors
    /// [`BadInput`] that names the keys.
    pub fn check(&self) -> Result<(), BadInput> {
        self.findings().result()
    }

    /// What is wrong with the settings. Certificates and a backup that is to be taken in are read; nobody is called.
    pub fn findings(&self) -> Findings {
        let mut found = Findings::default();
        found.told("", self.trace.check());
        found.extend(self.judge.findings(&self.judge_model));
        if let Some(store) = self.store.as_deref().filter(|store| store.exists() && !store.is_dir()) {
            found.refuse("store", format!("is {}, which is no folder", store.display()));
        }
        if let Some(backup) = &self.restore_from
            && let Err(error) = backup::read(backup)
        {
            found.refuse("restore_from", format!("cannot be taken in: {error}"));
        }
        let trace = &self.trace;
        for (key, value) in [
            ("trace.gamma", trace.gamma),
            ("trace.wrong_penalty", trace.wrong_penalty.abs()),
            ("trace.wrong_in_band_bonus", trace.wrong_in_band_bonus.abs()),
        ] {
            if value > MOST_REWARD {
                found.refuse(key, format!("is beyond {MOST_REWARD}, where no reward can be compared any more"));
            }
        }
        found.within("in_flight", self.in_flight, 1..=MOST_IN_FLIGHT);
        found.under("server", self.server.findings());
        found.extend(self.process.findings(Some(self.listen)));
        found
    }
}

/// The service, for a process of its own or somebody else's.
pub struct RewardService;

impl ServiceProcess for RewardService {
    const NAME: &'static str = "hypereyes-reward";
    const ABOUT: &'static str = "Scores groups of rollouts over gRPC and keeps the TRACE references";
    const ENV: &'static str = "HYPEREYES_REWARD";
    type Config = Config;

    fn run(config: Config, shutdown: Shutdown) -> Work {
        Box::pin(async { Ok(run(config, shutdown).await?) })
    }
}

/// The reward service as a program.
pub static PROGRAM: ServiceProgram = ServiceProgram::of::<RewardService>(env!("CARGO_PKG_VERSION"));

/// Why the service ended without being told to.
#[derive(Debug, Error)]
pub enum RunError {
    /// A setting cannot be used.
    #[error("the reward service cannot start: {0}")]
    Input(#[from] BadInput),
    /// No port.
    #[error("the reward service cannot start: {0}")]
    Bind(#[from] BindError),
    /// The references cannot be read.
    #[error("the reward service cannot start: {0}")]
    Store(#[from] StoreError),
    /// The addresses cannot be announced.
    #[error("the reward service cannot start: {0}")]
    Announce(#[from] AnnounceError),
    /// Serving failed.
    #[error("the reward service ended: {0}")]
    Serve(#[from] ServeError),
}

/// Serves until `shutdown`. Must be called inside a tokio runtime.
///
/// # Errors
/// [`RunError`]; being told to stop is not an error.
pub fn run(config: Config, shutdown: Shutdown) -> BoxFuture<'static, Result<(), RunError>> {
    Box::pin(work(config, shutdown))
}

async fn work(config: Config, shutdown: Shutdown) -> Result<(), RunError> {
    let process = config.process.start(&config.findings())?;
    metrics::describe();
    hypereyes_judge::metrics::describe();
    // The port comes first: whoever calls while the references are read waits instead of being refused.
    let server = process.bind(config.listen, hypereyes_proto::FILE_DESCRIPTOR_SET, hypereyes_proto::roles::callers).await?;
    let watched = process.watched(&server.health(), &shutdown).await?;
    let judge = config.judge.build(&config.judge_model)?;
    let backup = config.restore_from.as_deref().map(backup::read).transpose()?;
    let (mode, store, backups) = (config.references, config.store.clone(), config.backups);
    let opened = tokio::task::spawn_blocking(move || References::open(mode, store.as_deref(), backups)).await;
    let references = opened.expect("reading the store does not panic").map_err(damage_is_input)?;
    if let Some((epoch, known)) = backup {
        let outcome = references.import(epoch, known.into_iter().collect()).await?;
        tracing::info!(epoch, adopted = outcome.adopted, tightened = outcome.tightened, "backup taken in");
    }
    let label = judge.label();
    let scorer = Arc::new(Scorer::new(judge, config.trace, config.distilled, references.clone(), config.remember_groups));
    let service = Service::new(scorer, references.clone(), config.in_flight);
    watched.announce(Some(server.addr()))?;
    tracing::info!(addr = %server.addr(), judge = label, references = ?config.references, store = ?config.store, "reward service up");
    let served = server.serve(Routes::new(hypereyes_proto::server::reward(service)), shutdown, &config.server).await;
    references.close().await;
    Ok(served?)
}

/// A damaged store stays damaged, so an orchestrator must not try again.
fn damage_is_input(error: StoreError) -> RunError {
    match error {
        StoreError::Damaged { .. } | StoreError::Later { .. } => BadInput::new(error.to_string()).into(),
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_config_survives_json_and_refuses_unknown_keys() {
        let text = serde_json::to_string(&Config::default()).expect("a config is plain data");
        assert_eq!(serde_json::from_str::<Config>(&text).expect("reads back"), Config::default());
        assert!(serde_json::from_str::<Config>(r#"{"judg":"alias"}"#).is_err());
        assert!(serde_json::from_str::<Config>(r#"{"trace":{"gama":1}}"#).is_err());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn bad_constants_end_as_bad_input_before_a_port_is_taken() {
        let config = Config { trace: TraceConfig { gamma: 0.0, ..TraceConfig::default() }, ..Config::default() };
        let error = run(config, Shutdown::new()).await.expect_err("gamma 0");
        assert_eq!(hypereyes_chassis::exit::code_of(&error), hypereyes_chassis::exit::BAD_INPUT);
        assert!(error.to_string().contains("trace.gamma"), "{error}");
    }
}
