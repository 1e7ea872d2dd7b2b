//! An actor: leases tasks, rolls them out on its own engine, has them scored and taught, and hands them to the learner.
//!
//! In: a policy folder, a world, the addresses of the peers. Out: groups, each owned by this actor from its lease to the
//! learner's receipt. Leases are pulled; peers that are away are waited for; an actor that dies loses only what was in flight.
//!
//! It knows no gradient and no reward formula. Protobuf messages are in [`service`] only.

pub mod config;
pub mod heartbeat;
pub mod leases;
pub mod leasing;
pub mod metrics;
pub mod pictures;
pub mod service;
pub mod teaching;
pub mod weights;
pub mod worker;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use hypereyes_chassis::{BadInput, Health, ServiceProcess, ServiceProgram, Shutdown, Work};
use hypereyes_engines::{Engine, OpenError, Opened, open_folder};
use hypereyes_pictures::{Limits, Store};
use hypereyes_policy::checkpoint::Snapshot;
use hypereyes_rollout::{RolloutConfig, Setup};
use hypereyes_weights::{Announcements, Held};
use hypereyes_world::World;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use crate::config::Config;
use crate::leases::Leases;
use crate::service::Peers;
use crate::teaching::Teaching;
use crate::weights::Follower;
use crate::worker::Worker;

/// The service, for a process of its own or somebody else's.
pub struct Actor;

impl ServiceProcess for Actor {
    const NAME: &'static str = "hypereyes-actor";
    const ABOUT: &'static str = "Leases tasks from a learner, rolls them out and hands the groups in";
    const ENV: &'static str = "HYPEREYES_ACTOR";
    type Config = Config;

    fn run(config: Config, shutdown: Shutdown) -> Work {
        run(config, shutdown)
    }
}

/// An actor as a program.
pub static PROGRAM: ServiceProgram = ServiceProgram::of::<Actor>(env!("CARGO_PKG_VERSION"));

/// Works until the learner says that the run is over, or `shutdown`. Must be called inside a multi-threaded tokio runtime.
///
/// # Errors
/// [`BadInput`] when a setting, the policy or the world cannot be used; other errors when a port cannot be taken. A peer
/// that is away is not an error.
pub fn run(config: Config, shutdown: Shutdown) -> Work {
    Box::pin(work(config, shutdown))
}

async fn work(config: Config, shutdown: Shutdown) -> anyhow::Result<()> {
    let process = config.process.start(&config.findings())?;
    metrics::describe();
    hypereyes_rollout::metrics::describe();
    hypereyes_environment::metrics::describe();
    hypereyes_search::metrics::describe();
    hypereyes_weights::metrics::describe();
    hypereyes_engines::metrics::describe();
    hypereyes_pictures::metrics::describe();
    // A pool that is there already is as good.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(config.threads).build_global();
    let health = Health::new().await;
    let security = process.security().clone();
    let watched = process.watched(&health, &shutdown).await?;
    let id = format!("{}-{}-{:08x}", config.id, std::process::id(), RandomState::new().hash_one(&config.id) as u32);
    let peers = Peers::secure(&security, &id, &config.learner, &config.reward, config.teacher.as_deref())?;
    let peers = peers.with_teacher_top(config.teacher_top_k);
    let loading = config.clone();
    let loaded = tokio::task::spawn_blocking(move || Loaded::new(&loading)).await;
    let Loaded { setup, engine, base } = loaded.expect("loading does not panic")?;
    match shutdown.race(engine.ready()).await {
        Some(ready) => ready.map_err(OpenError::from)?,
        None => return Ok(()),
    }
    watched.announce(None)?;
    // It serves nothing, so that ready means: it leases.
    health.ready().await;
    tracing::info!(id, learner = config.learner, reward = config.reward, teacher = config.teacher, "actor up");

    let (over, stop_now) = (shutdown.child(), CancellationToken::new());
    let leases = Leases::default();
    let (installed, installed_now) = watch::channel(None);
    let follower = Follower {
        announcements: Announcements::new(peers.learner(), &config.backoff),
        held: Held::new(peers.learner(), engine.clone(), base, Duration::from_millis(config.fetch_ms)),
        installed,
    };
    let worker = Arc::new(Worker {
        peers: peers.clone(),
        store: setup.pictures.clone(),
        setup,
        engine,
        installed: installed_now,
        teacher: Teaching::new(peers.clone(), Duration::from_millis(config.teacher_ms), &config),
        backoff: config.backoff.clone(),
        stop_now: stop_now.clone(),
    });
    // Heartbeats and weights go on while groups in flight get their grace.
    tokio::select! {
        leased = leasing::lease(&worker, &leases, config.groups_in_flight, config.grace(), &over, &shutdown) => leased?,
        never = heartbeat::beat(&peers, &leases, config.heartbeat(), &over, &stop_now) => match never {},
        Err(misfit) = follower.follow() => return Err(misfit.into()),
    }
    tracing::info!("actor done");
    Ok(())
}

/// What is read from disk before the first lease.
struct Loaded {
    setup: Setup,
    engine: Engine,
    base: Snapshot,
}

impl Loaded {
    fn new(config: &Config) -> anyhow::Result<Self> {
        let world = || {
            match &config.world {
                Some(folder) => World::load(folder),
                None => World::embedded(),
            }
            .map(Arc::new)
        };
        let search = hypereyes_search::open(&config.search, world);
        let search = search.map_err(|error| BadInput::new(format!("{}: {error}", error.key())))?;
        let pictures = Arc::new(Store::new(config.pictures_bytes, Limits::default()));
        let Opened { chat, engine, base } = open_folder(&config.engine, &config.policy, 0, &pictures)?;
        let context = config.rollout.max_context_tokens.min(config.engine.max_context);
        // An episode that knows of the engine's limit ends as `context_full`; one that runs into it would be masked.
        let rollout = RolloutConfig { max_context_tokens: context, ..config.rollout.clone() };
        Ok(Self { setup: Setup { chat, search, pictures, config: rollout }, engine, base })
    }
}

#[cfg(test)]
mod tests {
    use hypereyes_domain::PolicyVersion;
    use hypereyes_engines::EngineConfig;
    use hypereyes_miniature::shipped::Shipped;
    use hypereyes_policy::checkpoint::{self, PolicyFolder, StoredDtype};

    use super::*;

    #[test]
    fn the_default_config_survives_json_and_refuses_unknown_keys() {
        let text = serde_json::to_string(&Config::default()).expect("a config is plain data");
        assert_eq!(serde_json::from_str::<Config>(&text).expect("reads back"), Config::default());
        assert!(serde_json::from_str::<Config>(r#"{"groups_in_fligt":1}"#).is_err());
    }

    #[test]
    fn an_actor_goes_on_with_what_its_servers_had_last() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let start = folder.path().join("start");
        Shipped::Policy.unpack(&start).expect("is shipped");
        let engine = EngineConfig {
            kind: "vllm".into(),
            url: vec!["http://127.0.0.1:1".into()],
            policy_folder: folder.path().join("policies"),
            ..EngineConfig::default()
        };
        let config = Config { policy: start.clone(), engine, ..Config::default() };
        let begun = |config: &Config| Loaded::new(config).expect("loads").base;
        let (_, weights) = checkpoint::read(&start).expect("sound");
        let first = Snapshot::exact(weights, PolicyVersion(0));
        assert_eq!(begun(&config), first);
        let newest = Snapshot::stored(&first.weights().expect("sound"), PolicyVersion(7), StoredDtype::Bf16);
        PolicyFolder::open(&config.engine.policy_folder, &start).expect("nobody is there").write(&newest).expect("written");
        assert_eq!(begun(&config), newest);
        let current = std::fs::canonicalize(config.engine.policy_folder.join("current")).expect("a generation");
        assert!(current.ends_with(format!("7-{}", &newest.digest.to_hex()[..16])), "{}", current.display());
        // What was lost is the start's again.
        std::fs::remove_file(current.join("generation.json")).expect("it was there");
        assert_eq!(begun(&config), first);
        let alone = Config { engine: EngineConfig::default(), ..config };
        assert_eq!(begun(&alone), first);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_policy_or_an_address_that_is_wrong_is_bad_input() {
        let nowhere = Config { policy: "/nowhere/policy".into(), ..Config::default() };
        let addressless = Config { learner: "learner".into(), ..Config::default() };
        for (config, part) in [(nowhere, "/nowhere/policy"), (addressless, "host:port")] {
            let error = run(config, Shutdown::new()).await.expect_err(part);
            assert_eq!(hypereyes_chassis::exit::code_of(error.as_ref()), hypereyes_chassis::exit::BAD_INPUT);
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
