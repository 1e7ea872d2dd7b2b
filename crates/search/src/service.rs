//! One search server for many who search: the services of its settings with one cache, one budget and one rate, answered over HTTP.
//!
//! In: settings. Out: the port of [`crate::serve`] until it is told to stop, or until the budget is spent where somebody wants to know:
//! then what could not be paid for is not answered at all, so that nobody learns from it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hypereyes_chassis::{BadInput, Findings, Health, ProcessConfig, ServiceProcess, ServiceProgram, Settings, Shutdown, Work};
use hypereyes_environment::{Query, Search, SearchFuture};
use hypereyes_world::World;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::serve::Server;
use crate::store::Store;
use crate::{Mode, SearchConfig, Searcher, metrics, searcher};

/// The port of a search server where nobody names another.
pub const PORT: u16 = 8090;
/// How long a server that ends may still have the cache open: requests under way, and some seconds to notice that its parent is gone.
const LETS_GO: Duration = Duration::from_secs(20);

/// Settings of a search server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where searches are taken; port 0 takes any free port. Default 127.0.0.1:8090: whoever reaches it can search, and spend.
    pub listen: SocketAddr,
    /// Folder of the world pack, where one is searched. Default none: the embedded one.
    pub world: Option<PathBuf>,
    /// Where searches go, and within which bounds.
    pub search: SearchConfig,
    /// Whether the server ends once a search fails because `search.budget` is spent. Default false: such searches fail, and what is kept
    /// is still answered.
    pub ends_when_spent: bool,
    /// What every process has: metrics, health, logs, and a parent that is told. There are no certificates: it speaks plain HTTP.
    pub process: ProcessConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], PORT)),
            world: None,
            search: SearchConfig::default(),
            ends_when_spent: false,
            process: ProcessConfig::default(),
        }
    }
}

impl Settings for Config {}

impl Config {
    /// What is wrong with the settings.
    pub fn findings(&self) -> Findings {
        let mut found = self.process.findings(Some(self.listen));
        found.told("search", self.search.check());
        if self.process.tls.is_some() {
            found.refuse("process.tls", "is set, but searches are answered over plain HTTP: leave it out");
        }
        found
    }
}

/// The service, for a process of its own.
pub struct SearchService;

impl ServiceProcess for SearchService {
    const NAME: &'static str = "hypereyes-search";
    const ABOUT: &'static str = "Answers searches over HTTP, with one cache, budget and rate for all who ask";
    const ENV: &'static str = "HYPEREYES_SEARCH";
    type Config = Config;

    fn run(config: Config, shutdown: Shutdown) -> Work {
        run(config, shutdown)
    }
}

/// The search server as a program.
pub static PROGRAM: ServiceProgram = ServiceProgram::of::<SearchService>(env!("CARGO_PKG_VERSION"));

/// Serves until `shutdown`. Must be called inside a tokio runtime.
///
/// # Errors
/// [`BadInput`] when a setting, the world or the cache cannot be used, and when the budget is spent and that ends it; other errors when
/// a port cannot be taken.
pub fn run(config: Config, shutdown: Shutdown) -> Work {
    Box::pin(work(config, shutdown))
}

async fn work(config: Config, shutdown: Shutdown) -> anyhow::Result<()> {
    let process = config.process.start(&config.findings())?;
    metrics::describe();
    let server = Server::bind(config.listen).await.context("the search server cannot start")?;
    let health = Health::new().await;
    let watched = process.watched(&health, &shutdown).await.context("the search server cannot start")?;
    let (settings, world) = (config.search.clone(), config.world.clone());
    let opened = tokio::task::spawn_blocking(move || {
        let world = || world.as_deref().map_or_else(World::embedded, World::load).map(Arc::new);
        let kept = settings.cache.path.as_deref().filter(|_| settings.mode != Mode::Replay);
        // Whoever served before, and was told to end, may still be on its way out.
        let _kept = kept.map(|path| Store::shared_within(path, LETS_GO)).transpose();
        searcher(&settings, world).map_err(|error| BadInput::new(format!("{}: {error}", error.key())))
    });
    let searching = opened.await.context("the search server cannot start")??;
    watched.announce(Some(server.address()))?;
    health.ready().await;
    let (text, image) = (config.search.text.backend.as_str(), config.search.image.backend.as_str());
    tracing::info!(address = %server.address(), text, image, mode = ?config.search.mode, cache = ?config.search.cache.path, "search server up");
    let (spent, mut is_spent) = watch::channel(None);
    let search: Arc<dyn Search> = if config.ends_when_spent { Arc::new(UntilSpent { searcher: searching, spent }) } else { searching };
    let (told, mut is_told) = (shutdown.clone(), is_spent.clone());
    let end = async move {
        tokio::select! {
            () = told.cancelled() => {}
            // It may be gone: then there is no budget to be told of.
            true = async { is_told.wait_for(Option::is_some).await.is_ok() } => {}
        }
    };
    server.serve(search, end).await.context("the search server ended")?;
    match is_spent.borrow_and_update().clone() {
        Some(why) => Err(BadInput::new(why).into()),
        None => Ok(()),
    }
}

/// A search that ends with its budget.
struct UntilSpent {
    searcher: Arc<Searcher>,
    /// Why it ends.
    spent: watch::Sender<Option<String>>,
}

impl Search for UntilSpent {
    fn search<'a>(&'a self, layer: u64, queries: &'a [Query]) -> SearchFuture<'a> {
        Box::pin(async move {
            let outcomes = self.searcher.search(layer, queries).await;
            // Whatever the outcomes are: a fallback may have answered what could not be paid for, and would answer all that follows.
            if let Some(why) = self.searcher.spent() {
                self.spent.send_replace(Some(why.to_owned()));
                // Nobody is answered: an agent would be told that searching fails, or what a weaker service finds.
                std::future::pending::<()>().await;
            }
            outcomes
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BackEndConfig, BudgetConfig, CacheConfig};

    #[tokio::test]
    async fn a_budget_that_is_spent_is_the_end_though_a_fallback_answers() {
        let folder = tempfile::tempdir().expect("a folder");
        let text = BackEndConfig {
            backend: "searxng".into(),
            url: "http://127.0.0.1:9".into(),
            usd_per_request: 0.01,
            fallbacks: vec![BackEndConfig::default()],
            ..BackEndConfig::default()
        };
        let cache = CacheConfig { path: Some(folder.path().join("cache.redb")), ..CacheConfig::default() };
        let budget = BudgetConfig { requests: 0, usd: 0.001 };
        let config = SearchConfig { text, cache, budget, ..SearchConfig::default() };
        let searcher = searcher(&config, || World::embedded().map(Arc::new)).expect("opens");
        let query = [Query::Text("Mexico currency".into())];
        assert!(searcher.search(0, &query).await[0].is_ok(), "by the world");
        let (spent, mut is_spent) = watch::channel(None);
        let ends = UntilSpent { searcher, spent };
        let why = tokio::select! {
            _ = ends.search(0, &query) => panic!("nobody learns from it"),
            told = is_spent.wait_for(Option::is_some) => told.expect("an end").clone().expect("a reason"),
        };
        assert!(why.starts_with("search.budget.usd is 0.001"), "{why}");
    }

    #[test]
    fn settings_survive_json_and_what_nobody_hears_is_refused() {
        let text = serde_json::to_string(&Config::default()).expect("plain data");
        assert_eq!(serde_json::from_str::<Config>(&text).expect("reads back"), Config::default());
        assert!(serde_json::from_str::<Config>(r#"{"listn":"x"}"#).is_err());
        let mut config = Config::default();
        assert!(!config.findings().is_refused());
        config.process.tls = Some(hypereyes_chassis::TlsConfig::default());
        config.search.text.backend = "bing".into();
        let keys: Vec<String> = config.findings().refused().iter().map(|finding| finding.key.clone()).collect();
        assert!(keys.iter().any(|key| key.starts_with("search")) && keys.iter().any(|key| key == "process.tls"), "{keys:?}");
    }
}
