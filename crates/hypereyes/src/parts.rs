//! Parts that several commands start with: the world, the chat of a model folder, what episodes run with.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use hypereyes_chassis::{BadInput, TelemetryConfig, telemetry};
use hypereyes_chat::Chat;
use hypereyes_domain::PolicyVersion;
use hypereyes_engines::{Engine, Policy};
use hypereyes_environment::Search;
use hypereyes_miniature::shipped::{Shipped, Unpacked};
use hypereyes_pictures::{Limits, Store};
use hypereyes_policy::backend::Cpu;
use hypereyes_policy::checkpoint::{self, HostWeights, Snapshot};
use hypereyes_policy::config::ModelConfig;
use hypereyes_policy::models::{Model, Vlm};
use hypereyes_rollout::{Player, Setup, TokenPlayer};
use hypereyes_search::Searcher;
use hypereyes_world::World;

pub use hypereyes_offline::refusal;

use crate::config::Config;

/// The world of the configuration; a bad path is bad input.
pub fn world(config: &Config) -> Result<Arc<World>> {
    let loaded = if config.world.as_os_str().is_empty() { World::embedded() } else { World::load(&config.world) };
    Ok(Arc::new(loaded.map_err(|error| BadInput::new(error.to_string()))?))
}

/// Tokenizer and template of a model folder.
pub fn chat(model: &Path) -> Result<Arc<Chat>> {
    Ok(Arc::new(Chat::load(model).map_err(|error| BadInput::new(error.to_string()))?))
}

/// Where searches go.
///
/// # Errors
/// [`BadInput`] where the `[search]` table names what cannot be opened.
pub fn search(config: &Config, world: &Arc<World>) -> Result<Arc<dyn Search>> {
    Ok(searcher(config, world)?)
}

/// The same, of which can be asked what was done.
///
/// # Errors
/// As [`search`].
pub fn searcher(config: &Config, world: &Arc<World>) -> Result<Arc<Searcher>> {
    let search = hypereyes_search::searcher(&config.search, || Ok(world.clone()));
    Ok(search.map_err(|error| BadInput::new(format!("{}: {error}", error.key())))?)
}

/// What episodes of this process run with.
pub fn setup_with(config: &Config, search: Arc<dyn Search>, chat: Arc<Chat>) -> Setup {
    let pictures = Arc::new(Store::new(config.actor.pictures_bytes, Limits::default()));
    Setup { chat, search, pictures, config: config.rollout.clone() }
}

/// In what a policy is opened otherwise than settings say.
#[derive(Clone, Default)]
pub struct Particulars {
    /// Where its searches go; none is where `[search]` says.
    pub search: Option<Arc<dyn Search>>,
    /// Visual tokens of a picture at most; 0 is what its folder says.
    pub max_picture_tokens: usize,
}

/// A policy that can be asked, in this process or at servers that hold it, and what its episodes run with.
pub async fn engine(config: &Config, world: &Arc<World>, model: &Path, version: PolicyVersion) -> Result<(Setup, Engine)> {
    engine_with(config, world, model, version, Particulars::default()).await
}

async fn engine_with(
    config: &Config,
    world: &Arc<World>,
    model: &Path,
    version: PolicyVersion,
    particulars: Particulars,
) -> Result<(Setup, Engine)> {
    let (config, world, model) = (config.clone(), world.clone(), model.to_owned());
    // Models are gigabytes: not on the async threads.
    let opened = tokio::task::spawn_blocking(move || opened(&config, &world, &model, version, particulars)).await;
    let (setup, engine) = opened.context("a policy could not be loaded")??;
    engine.ready().await.map_err(refusal)?;
    Ok((setup, engine))
}

fn opened(config: &Config, world: &Arc<World>, model: &Path, version: PolicyVersion, particulars: Particulars) -> Result<(Setup, Engine)> {
    let Particulars { search: given, max_picture_tokens } = particulars;
    let chat = Chat::load(model).map_err(|error| BadInput::new(error.to_string()))?;
    let search = given.map_or_else(|| search(config, world), Ok)?;
    let setup = setup_with(config, search, Arc::new(chat.seeing_at_most(max_picture_tokens)));
    config.engine.device.admits_folder(model).map_err(refusal)?;
    let (shape, weights) = checkpoint::read(model).map_err(refusal)?;
    let policy = Policy {
        model: shape,
        snapshot: Snapshot::exact(weights, version),
        end_tokens: vec![setup.chat.end_token()],
        processor: setup.chat.processor().clone(),
        pictures: setup.pictures.clone(),
        folder: model,
    };
    let engine = hypereyes_engines::open(&config.engine, policy).map_err(refusal)?;
    Ok((setup, engine))
}

/// Whoever plays the tasks of a command.
pub struct Chosen {
    /// The policy, however it is reached.
    pub player: Arc<dyn Player>,
    /// Its tokenizer; none where it speaks text.
    pub chat: Option<Arc<Chat>>,
    /// What it is called in results.
    pub name: String,
    /// Its name at the server that has it; none where it is a folder.
    pub served: Option<String>,
}

/// The policy of a folder, with whatever engine samples from it.
///
/// # Errors
/// As [`engine`].
pub async fn tokens(config: &Config, world: &Arc<World>, model: &Path, name: String) -> Result<Chosen> {
    tokens_with(config, world, model, name, Particulars::default()).await
}

/// The same with particulars.
///
/// # Errors
/// As [`engine`].
pub async fn tokens_with(config: &Config, world: &Arc<World>, model: &Path, name: String, particulars: Particulars) -> Result<Chosen> {
    let (setup, generator) = engine_with(config, world, model, PolicyVersion(0), particulars).await?;
    let chat = Some(setup.chat.clone());
    Ok(Chosen { player: Arc::new(TokenPlayer { setup, generator }), chat, name, served: None })
}

/// Puts a model that is compiled in into `folder`, and says so where another one is there and stays.
pub fn unpack(model: Shipped, folder: &Path) -> Result<()> {
    if model.unpack(folder)? == Unpacked::Another {
        let note = format!("{} holds another model than the shipped {}: it stays as it is", folder.display(), model.label());
        crate::output::note(&note);
    }
    Ok(())
}

/// The shape of a model folder.
pub fn shape(model: &Path) -> Result<ModelConfig> {
    Ok(ModelConfig::load(model).map_err(|error| BadInput::new(error.to_string()))?)
}

/// Reads a whole model folder: what is wrong with it is said before anything else is done.
pub fn check_model(model: &Path) -> Result<(ModelConfig, HostWeights)> {
    let bad = |error: hypereyes_policy::Error| BadInput::new(error.to_string());
    chat(model)?;
    let (config, weights) = checkpoint::read(model).map_err(bad)?;
    let built = checkpoint::from_host(Model::<Cpu>::init(&config, 0, &Default::default()), &weights);
    built.map_err(|error| BadInput::new(format!("{}: {error}", model.display())))?;
    Ok((config, weights))
}

/// Logs of this process (warnings and worse) and metrics; the services have their own.
pub fn telemetry() -> Result<()> {
    telemetry::init(&TelemetryConfig { filter: "warn".into(), ..TelemetryConfig::default() })?;
    crate::metrics::describe();
    hypereyes_judge::metrics::describe();
    hypereyes_engines::metrics::describe();
    hypereyes_eval::metrics::describe();
    Ok(())
}

/// A tokio runtime for commands that are not services.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the async runtime")
}
