//! `hypereyes index serve`: searches answered over HTTP until a signal, in our shape, in the retriever's and by MCP. Each layer of a world has a
//! path of its own.
//!
//! In: settings, and what is to be searched. Out: an address, on the first line. It searches nothing itself.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::{ArgGroup, Args};
use hypereyes_chassis::{BadInput, Shutdown, TelemetryConfig, telemetry};
use hypereyes_corpus::Corpus;
use hypereyes_environment::Search;
use hypereyes_search::serve::Server;
use hypereyes_search::{Mode, SearchConfig};
use serde::Serialize;

use super::build;
use crate::config::Config;
use crate::{output, parts};

/// Arguments of `index serve`.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("what").required(true))]
#[command(
    after_help = "Examples:\n  hypereyes index serve --world                         the world of `world`, the embedded countries by default\n  \
    hypereyes index serve --world worlds/mine --listen 0.0.0.0:8090\n  \
    hypereyes index serve --index corpus                  an index that `hypereyes index build` made\n  \
    hypereyes index serve --cache-only --config search.toml     services of [search], asked once for everybody\n\n\
    Whoever searches names it so:  --set search.text.backend=http --set search.text.url=http://127.0.0.1:8090"
)]
pub struct ServeArgs {
    /// Serve a world pack, texts and pictures; without a folder the one of `world`, else the embedded one.
    #[arg(long, value_name = "DIR", num_args = 0..=1, group = "what")]
    pub world: Option<Option<PathBuf>>,
    /// Serve an index of your own; pictures in it are seen by the policy of `policy`, by default the shipped one.
    #[arg(long, value_name = "DIR", group = "what")]
    pub index: Option<PathBuf>,
    /// Serve what `[search]` names: its services, cache, budget and rates, shared by all who ask.
    #[arg(long, group = "what")]
    pub cache_only: bool,
    /// Where searches are taken; port 0 takes any free one. Anybody who reaches it can search, and spend.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8090")]
    pub listen: SocketAddr,
    /// Where `/metrics` is served. Default nowhere.
    #[arg(long, value_name = "ADDRESS")]
    pub metrics_listen: Option<SocketAddr>,
}

/// The first line of the JSON.
#[derive(Serialize)]
struct Told {
    url: String,
}

/// Serves.
///
/// # Errors
/// [`BadInput`] where there is nothing to search; else those of the port.
pub fn run(config: &Config, args: &ServeArgs, json: bool) -> Result<()> {
    let telemetry = telemetry::init(&TelemetryConfig { filter: "warn".into(), ..TelemetryConfig::default() })?;
    hypereyes_search::metrics::describe();
    hypereyes_corpus::metrics::describe();
    let (search, what) = opened(config, args)?;
    let runtime = parts::runtime()?;
    let served = runtime.block_on(async {
        let shutdown = Shutdown::on_signal().context("cannot listen for signals")?;
        let server = Server::bind(args.listen).await.map_err(|error| BadInput::new(error.to_string()))?;
        if let Some(address) = args.metrics_listen {
            let at = telemetry.metrics_listener(address, shutdown.clone()).await.map_err(|error| BadInput::new(error.to_string()))?;
            output::note(&format!("metrics at http://{at}/metrics"));
        }
        let url = format!("http://{}", server.address());
        if json {
            output::json(&Told { url });
        } else {
            output::say(&format!("{what} at {url}: POST /layers/LAYER/search, /retrieve; GET /healthz"));
        }
        let end = shutdown.clone();
        server.serve(search, async move { end.cancelled().await }).await.context("the server ended")
    });
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    served
}

/// What is searched, and what people are told that it is.
fn opened(config: &Config, args: &ServeArgs) -> Result<(Arc<dyn Search>, String)> {
    if let Some(folder) = &args.index {
        let corpus = Corpus::open(folder, || build::sight(config)).map_err(build::refusal)?;
        let what = format!("index {} ({} documents, {} pictures)", folder.display(), corpus.documents(), corpus.pictures());
        return Ok((Arc::new(corpus), what));
    }
    if args.cache_only {
        config.search.check().map_err(|why| BadInput::new(format!("search.{why}")))?;
        let world = parts::world(config)?;
        return Ok((parts::search(config, &world)?, services(&config.search)));
    }
    let named = args.world.clone().flatten();
    let config = Config { world: named.unwrap_or_else(|| config.world.clone()), search: of_world(&config.search), ..config.clone() };
    let world = parts::world(&config)?;
    let what = format!("world {} ({} entities)", world.name(), world.entities().len());
    Ok((parts::search(&config, &world)?, what))
}

/// Within the same bounds, the world alone.
fn of_world(search: &SearchConfig) -> SearchConfig {
    SearchConfig { concurrency: search.concurrency, deadline_s: search.deadline_s, ..SearchConfig::default() }
}

fn services(search: &SearchConfig) -> String {
    let how = match search.mode {
        Mode::Live => "",
        Mode::Record => ", recorded",
        Mode::Replay => ", replayed",
    };
    format!("texts by {}, pictures by {}{how}", search.text.backend, search.image.backend)
}
