//! The teacher service: log-probs of given tokens under a model that can be swapped while it serves.
//!
//! In: token sequences and pictures, over gRPC; model folders to load, promote and retire. Out: one log-prob per response
//! token, always with the name of the one model that gave them. It is request and reply: it holds no group and can be
//! restarted at any moment; callers then put their pictures again.
//!
//! It knows no reward, no actor and no learner.

pub mod access;
pub mod deadline;
pub mod digest;
pub mod error;
pub mod fair;
pub mod fetch;
pub mod folder;
pub mod ledger;
pub mod limits;
pub mod loader;
pub mod local;
pub mod memory;
pub mod metrics;
pub mod model;
pub mod peer;
pub mod pins;
pub mod registry;
pub mod scorer;
pub mod service;
pub mod source;
pub mod verify;
pub mod vocabulary;
pub mod web;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hypereyes_chassis::backoff::{Backoff, BackoffConfig};
use hypereyes_chassis::{BadInput, Findings, Moved, ProcessConfig, ServerConfig, ServiceProcess, ServiceProgram, Settings, Shutdown, Work};
use hypereyes_pictures::{Limits, Store};
use hypereyes_policy::device::Device;
use hypereyes_proto::convert::ids;
use hypereyes_proto::ports;
use serde::{Deserialize, Serialize};
use tonic::service::Routes;

use crate::access::{Access, KeyConfig};
use crate::ledger::Ledger;
use crate::limits::ModelLimits;
use crate::loader::Loader;
use crate::memory::Memory;
use crate::registry::{LoadRequest, Registry, RegistryError};
use crate::service::Service;
use crate::source::Source;

/// Settings of the teacher service.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where gRPC is served; port 0 takes any free port. Default 127.0.0.1:7002: only this machine, until somebody decides
    /// otherwise.
    pub listen: SocketAddr,
    /// What every process has: metrics, health, certificates, logs, and a parent that is told.
    pub process: ProcessConfig,
    /// The first model: a folder in Hugging Face layout, the same in an object store (`s3://bucket/prefix`), or a server (`grpc://`
    /// another teacher service, `sglang+http://`, `vllm+http://`). Not looked at where `store` knows of an active model.
    /// Default `teacher`.
    pub model: String,
    /// The name that the first model goes by. Default `teacher`.
    pub id: String,
    /// Folder in which the registry is kept: which models are loaded, and every promotion. A service that comes back goes on with
    /// what it said last. Default none: it begins with `model`.
    pub store: Option<PathBuf>,
    /// Folders below which `LoadModel` may name folders; links that lead out of them are refused. Default the folder that holds
    /// `model`, so that a new version can lie beside the old one; in a cache of Hugging Face that of all its versions.
    pub roots: Vec<PathBuf>,
    /// Hosts without a public address that `LoadModel` may name: `teacher-*:7002`, `*.svc`, `127.0.0.1`, `10.0.0.0/8`. Default
    /// none. What `model` names is always reached.
    pub hosts: Vec<String>,
    /// Servers that an `http` store may send us on to: `https://cdn.example.com`. Default none but the store itself.
    pub redirects: Vec<String>,
    /// Environment variables that `LoadModel` may name with `key_env`, each with the servers it is for. Default none. What `model`
    /// names is always used, for its own server.
    pub keys: Vec<KeyConfig>,
    /// Seconds within which a model is read or fetched. Default 3600.
    pub load_s: u64,
    /// Bytes that the weights of all models may take together; 0 takes four fifths of the machine's memory. Default 0.
    pub model_bytes: u64,
    /// Seconds after its last question that a group keeps to its model. Default 60: above the retries of an actor.
    pub keep_groups_s: u64,
    /// Where models compute: `cpu`, `cuda` or `cuda-bf16`. Default `cpu`.
    pub device: Device,
    /// Threads that compute; 0 takes all cores. Default 0. Has no effect where the process has set its pool up before.
    pub threads: usize,
    /// Tokens of one pass of a model, and of its longest sequence. Default 8192: it bounds memory, and more tokens in one pass
    /// do not make a CPU faster.
    pub max_batch_tokens: usize,
    /// Calls that wait for each model; more wait in front. Default 64: above the groups in flight of an actor.
    pub max_waiting: usize,
    /// Bytes of pictures held, encoded and decoded. Default 256 MiB: hundreds of mosaics.
    pub pictures_bytes: usize,
    /// Bytes of pictures held as patches, for each model. Default 256 MiB.
    pub patches_bytes: usize,
    /// Limits of the gRPC server.
    pub server: ServerConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: ports::here(ports::TEACHER),
            process: ProcessConfig::default(),
            model: "teacher".into(),
            id: "teacher".into(),
            store: None,
            roots: vec![],
            hosts: vec![],
            redirects: vec![],
            keys: vec![],
            load_s: 3600,
            model_bytes: 0,
            keep_groups_s: 60,
            device: Device::Cpu,
            threads: 0,
            max_batch_tokens: 8192,
            max_waiting: 64,
            pictures_bytes: 256 << 20,
            patches_bytes: 256 << 20,
            server: ServerConfig::default(),
        }
    }
}

impl Settings for Config {
    fn moved() -> Vec<Moved> {
        ProcessConfig::moved()
    }
}

/// Waiting calls and tokens of a pass above this are slips.
const MOST: usize = 1 << 24;

impl Config {
    /// What is wrong with the settings, all of it on one line.
    ///
    /// # Errors
    /// [`BadInput`] that names the keys.
    pub fn check(&self) -> Result<(), BadInput> {
        self.findings().result()
    }

    /// What is wrong with the settings, as far as they alone can tell: no file but certificates is opened, and nobody is called.
    pub fn findings(&self) -> Findings {
        let mut found = Findings::default();
        if let Err(error) = ids::teacher("id", self.id.clone()) {
            found.refuse("id", format!("is no name: {error}"));
        }
        match self.model.parse::<Source>() {
            Err(reason) => found.refuse("model", format!("cannot be meant: {reason}")),
            Ok(Source::Server(server)) if !server.key_env.is_empty() && std::env::var_os(&server.key_env).is_none() => {
                found.refuse("model", format!("has key_env={}, which is not set", server.key_env));
            }
            Ok(_) => {}
        }
        if let Some(store) = self.store.as_deref().filter(|store| store.exists() && !store.is_dir()) {
            found.refuse("store", format!("is {}, which is no folder", store.display()));
        }
        found.span("keep_groups_s", self.keep_groups_s, 0, 1);
        found.span("load_s", self.load_s, 1, 1);
        // Without the model: where it lies may not be there yet.
        found.told("", Access::new("", &self.roots, &self.hosts, &self.redirects, &self.keys).map(drop));
        if let Err(error) = self.device.check() {
            found.refuse("device", format!("cannot be had: {error}"));
        }
        found.threads("threads", self.threads);
        // A sequence has a prompt and a response.
        found.within("max_batch_tokens", self.max_batch_tokens, 2..=MOST);
        found.within("max_waiting", self.max_waiting, 1..=MOST);
        found.at_least_one("pictures_bytes", self.pictures_bytes as u64);
        found.under("server", self.server.findings());
        found.extend(self.process.findings(Some(self.listen)));
        found
    }
}

/// The service, for a process of its own or somebody else's.
pub struct TeacherService;

impl ServiceProcess for TeacherService {
    const NAME: &'static str = "hypereyes-teacher";
    const ABOUT: &'static str = "Gives log-probs of given tokens under a model that can be swapped while serving";
    const ENV: &'static str = "HYPEREYES_TEACHER";
    type Config = Config;

    fn run(config: Config, shutdown: Shutdown) -> Work {
        run(config, shutdown)
    }
}

/// The teacher service as a program.
pub static PROGRAM: ServiceProgram = ServiceProgram::of::<TeacherService>(env!("CARGO_PKG_VERSION"));

/// Serves until `shutdown`. Must be called inside a tokio runtime.
///
/// # Errors
/// [`BadInput`] when a setting or the model folder cannot be used; other errors when a port cannot be taken or serving fails.
/// Being told to stop is not an error.
pub fn run(config: Config, shutdown: Shutdown) -> Work {
    Box::pin(work(config, shutdown))
}

async fn work(config: Config, shutdown: Shutdown) -> anyhow::Result<()> {
    let process = config.process.start(&config.findings())?;
    metrics::describe();
    hypereyes_pictures::metrics::describe();
    let access = Access::new(&config.model, &config.roots, &config.hosts, &config.redirects, &config.keys)?;
    // A pool that is there already is as good.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(config.threads).build_global();
    // The port comes first: whoever calls while the model is read waits instead of being refused.
    let mut server = process.bind(config.listen, hypereyes_proto::FILE_DESCRIPTOR_SET, hypereyes_proto::roles::callers).await?;
    let health = server.take_health();
    let security = process.security().clone();
    let watched = process.watched(&health, &shutdown).await?;
    let limits = ModelLimits {
        device: config.device,
        max_batch_tokens: config.max_batch_tokens,
        max_waiting: config.max_waiting,
        patches_bytes: config.patches_bytes,
        security,
        loader: Loader::start()?,
        memory: Memory::new(config.model_bytes),
        access: Arc::new(access),
        patience: Duration::from_secs(config.load_s),
        fetched: config.store.as_ref().map(|store| store.join("fetched")),
    };
    let ledger = Ledger::open(config.store.as_deref())?;
    let access = limits.access.clone();
    let registry = Registry::new(limits, ledger, Duration::from_secs(config.keep_groups_s));
    let Some(first) = shutdown.race(first(&registry, &config, &access)).await else { return Ok(()) };
    first?;
    watched.announce(Some(server.addr()))?;
    let active = registry.roster().active().map(|active| active.to_string());
    tracing::info!(addr = %server.addr(), active, "teacher service up");
    health.ready().await;
    let store = Arc::new(Store::new(config.pictures_bytes, Limits::default()));
    let routes = Routes::new(hypereyes_proto::server::teacher(Service::new(registry.clone(), store, config.max_waiting / 2)));
    tokio::select! {
        served = server.serve(routes, shutdown, &config.server) => served?,
        () = registry.sweep() => {}
    }
    Ok(())
}

/// What served last, or else the model of the configuration. A model of this machine that is wrong will be as wrong at the next
/// try, and so will one that the settings forbid; one behind a server is waited for.
async fn first(registry: &Arc<Registry>, config: &Config, access: &Access) -> Result<(), BadInput> {
    let mut backoff = Backoff::new(&BackoffConfig::default());
    loop {
        let Err((error, patient)) = try_first(registry, config, access).await else { return Ok(()) };
        let text = format!("the teacher service cannot start: {error}");
        if !patient {
            return Err(BadInput::new(text));
        }
        tracing::warn!("{text}; trying again");
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

/// One try, and whether another may help.
async fn try_first(registry: &Arc<Registry>, config: &Config, access: &Access) -> Result<(), (String, bool)> {
    let wrong = |error: String| (error, false);
    let id = ids::teacher("id", config.id.clone()).map_err(|invalid| wrong(invalid.to_string()))?;
    let source: Source = config.model.parse().map_err(|reason| wrong(format!("model: {reason}")))?;
    if let Some(source) = registry.active_source() {
        let source: Source = source.parse().map_err(wrong)?;
        if let Some(reason) = access.forbids(&source).await {
            return Err(wrong(format!("what served last may not any more: {reason}")));
        }
        let restored = registry.restore().await;
        return restored.map(drop).map_err(|error| (error.to_string(), source.is_away()));
    }
    let patient = source.is_away();
    let said = |error: RegistryError| (error.to_string(), patient);
    registry.load(LoadRequest { id: id.clone(), source, digest: String::new() }).await.map_err(said)?;
    registry.promote(&id).map(drop).map_err(|error| wrong(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_config_survives_json_and_refuses_unknown_keys() {
        let text = serde_json::to_string(&Config::default()).expect("a config is plain data");
        assert_eq!(serde_json::from_str::<Config>(&text).expect("reads back"), Config::default());
        assert!(serde_json::from_str::<Config>(r#"{"modell":"x"}"#).is_err());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_model_that_is_not_there_is_bad_input() {
        let listen = "127.0.0.1:0".parse().expect("an address");
        let error =
            run(Config { listen, model: "/nowhere/teacher".into(), ..Config::default() }, Shutdown::new()).await.expect_err("no model");
        assert_eq!(hypereyes_chassis::exit::code_of(error.as_ref()), hypereyes_chassis::exit::BAD_INPUT);
        assert!(error.to_string().contains("/nowhere/teacher"), "{error}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_served_last_and_is_not_allowed_any_more_ends_the_service_with_its_reason() {
        for (source, names) in [
            ("grpc://10.0.0.7:7002", "`hosts`"),
            ("vllm+https://models.example.org?tokenizer=/t&model=m&key_env=TEACHER_KEY", "keys = [{ env"),
        ] {
            let store = tempfile::tempdir().expect("a temporary folder");
            let mut ledger = Ledger::open(Some(store.path())).expect("a fresh one");
            let kept = ledger::Kept { id: "old".into(), source: source.into(), digest: String::new() };
            ledger.loaded(kept).expect("writes");
            ledger.promoted(&"old".into(), 1).expect("writes");
            drop(ledger);
            let (listen, store) = ("127.0.0.1:0".parse().expect("an address"), Some(store.path().to_owned()));
            let config = Config { listen, store, model: "/models/teacher".into(), ..Config::default() };
            let ended =
                tokio::time::timeout(Duration::from_secs(60), run(config, Shutdown::new())).await.expect("it does not go on trying");
            let error = ended.expect_err("it may not be asked");
            assert_eq!(hypereyes_chassis::exit::code_of(error.as_ref()), hypereyes_chassis::exit::BAD_INPUT);
            assert!(error.to_string().contains("what served last may not any more") && error.to_string().contains(names), "{error}");
        }
    }
}
