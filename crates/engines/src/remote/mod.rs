//! Engines outside: servers that speak as vLLM or SGLang do. In: the `engine` settings and a policy. Out: an engine.
//!
//! A turn walks through `engine` (tokens of a sequence), `compact` (one placeholder per picture), `turn` (until it is answered), `pool` (a
//! server with a place), `exchange` and `link` (HTTP), a dialect (`vllm`, `sglang`), and `check`, which believes nothing. Weights walk
//! through `engine` (a folder), `pool` and `swap`. `admission` lets servers in, `probe` looks at them first.
//!
//! It knows no text, no task, and not how a policy is written to a folder.

mod admission;
mod attempts;
mod check;
mod compact;
mod convention;
mod dialect;
mod engine;
mod exchange;
mod link;
pub(crate) mod metrics;
mod outcome;
mod pictures;
mod pool;
mod probe;
mod request;
mod server;
mod sglang;
mod swap;
mod turn;
mod vllm;

use std::path::Path;
use std::sync::Arc;

use hypereyes_chassis::Reach;
use hypereyes_chassis::secret::SecretText;
use hypereyes_policy::Error;
use hypereyes_policy::checkpoint::{Generation, PolicyFolder, Snapshot};
use hypereyes_policy::config::ModelConfig;

pub use self::dialect::Dialect;
pub(crate) use self::engine::Remote;
use self::pool::{Limits, Pool};
use self::probe::Probe;
use self::server::Server;
pub(crate) use self::{
    attempts::Attempts,
    check::{place, scores},
    compact::compact,
    exchange::{Question, exchange},
    link::Link,
    outcome::{Miss, Outcome},
    pictures::{Unshown, shown},
    request::{Ask, Reads, Want},
};
use crate::command::EngineCommand;
use crate::config::server_root;
use crate::{Engine, EngineConfig, Policy, http};

/// The link in a policy folder that leads to the generation in force.
const CURRENT: &str = "current";

/// Opens an engine at vLLM servers.
pub(crate) fn vllm(config: &EngineConfig, policy: Policy<'_>) -> Result<Engine, Error> {
    open(Dialect::Vllm, config, policy)
}

/// Opens an engine at SGLang servers.
pub(crate) fn sglang(config: &EngineConfig, policy: Policy<'_>) -> Result<Engine, Error> {
    open(Dialect::Sglang, config, policy)
}

/// The newest policy that servers were given by an engine with these settings: its `policy_folder` keeps it when the process that wrote
/// it ends. `None` where there is none, or not one of the model in `start`: whoever begins does so with the start. To be asked before the
/// engine is opened.
pub fn kept(config: &EngineConfig, start: &Path) -> Option<Snapshot> {
    let newest = config.policy_folder.join(CURRENT);
    if config.policy_folder.as_os_str().is_empty() || !newest.exists() {
        return None;
    }
    let read = Generation::read(&newest).and_then(|(model, snapshot)| match ModelConfig::load(start)? {
        own if own == model => Ok(snapshot),
        _ => Err(Error::Input(format!("{}: is of another model than {}", newest.display(), start.display()))),
    });
    read.inspect_err(|error| tracing::warn!(%error, "the policy that servers had last is not gone on with")).ok()
}

/// Writes the first generation; servers are asked when the engine is to be ready.
fn open(dialect: Dialect, config: &EngineConfig, policy: Policy<'_>) -> Result<Engine, Error> {
    let Policy { model, snapshot, end_tokens, processor, pictures, folder } = policy;
    let key = SecretText::of_variable("api_key_env", &config.api_key_env).map_err(Error::Input)?;
    let key = key.map(|key| key.header("Bearer "));
    let server = |url: &String| {
        // The settings name them: they may be anywhere.
        let root = server_root(url).and_then(|root| http::client(&root, &Reach::anywhere()));
        let client = root.map_err(|reason| Error::Input(format!("url: {reason}")))?;
        Ok(Arc::new(Server::new(Link::new(url, key.clone(), client))))
    };
    let own = (!config.command.is_empty()).then(|| EngineCommand::new(&config.command, folder, &config.log));
    let own = own.transpose().map_err(Error::Input)?;
    let urls = own.as_ref().map_or(config.url.clone(), |own| vec![own.url().to_owned()]);
    let servers = urls.iter().map(server).collect::<Result<Vec<_>, Error>>()?;
    let reads = Arc::new(Reads { vocabulary: model.text.vocab_size, pad: model.image_token_id, end_tokens });
    let probe = Probe::of(&model, &processor, &reads).map_err(Error::Input)?;
    let named = |error: Error| Error::Input(format!("policy_folder: {error}"));
    let mut generations = PolicyFolder::open(&config.policy_folder, folder).map_err(named)?;
    let first = generations.write(&snapshot).map_err(named)?;
    let limits = Limits {
        model: config.model.clone(),
        context: config.max_context,
        places: config.max_sequences,
        request: config.request_timeout(),
        reload: config.reload_timeout(),
        health: config.health_interval(),
    };
    let pool = Pool::new(servers, dialect.speaker(), limits, probe, first);
    let remote = Remote::new(pool, reads, processor, pictures, generations, config.max_context, config.start_timeout());
    Ok(Engine::remote(remote.owning(own)))
}
