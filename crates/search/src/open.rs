//! From settings to one searchable thing: each side's back ends opened by name, with what is kept around each and the bounds around all.

use std::collections::HashMap;
use std::sync::Arc;

use hypereyes_chassis::secret::SecretText;
use hypereyes_environment::{Outcome, Query, Search, SearchFuture};
use hypereyes_world::{World, WorldError};
use tokio::time::{Instant, timeout_at};

use crate::asked::{AskFuture, Asked, BackEnd, late};
use crate::backends::{self, Here, Kind, Open};
use crate::budget::Budget;
use crate::config::{AS_TEXT, BackEndConfig, Mode};
use crate::fallback::InOrder;
use crate::http::{Remote, Secret, Shared};
use crate::kept::{Keeper, Keeping, now};
use crate::limited::{Answers, Limited};
use crate::publisher::Publisher;
use crate::rate::Rate;
use crate::steps::{Step, Steps};
use crate::store::Store;
use crate::{SearchConfig, http};

/// Why nothing can be searched.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The `[search]` table names what does not exist, or what is not complete: a sentence that begins with the key within the table.
    #[error("{0}")]
    Settings(String),
    /// The world that a back end answers from cannot be read.
    #[error(transparent)]
    World(#[from] WorldError),
}

impl OpenError {
    /// The setting or table that it is about.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Settings(_) => "search",
            Self::World(_) => "world",
        }
    }
}

/// Opens what `config` names. `world` is asked for the world pack only by back ends that answer from one.
///
/// # Errors
/// [`OpenError`]; a service that does not answer is none: its searches fail one by one.
pub fn open(config: &SearchConfig, world: impl Fn() -> Result<Arc<World>, WorldError>) -> Result<Arc<dyn Search>, OpenError> {
    Ok(searcher(config, world)?)
}

/// The same, of which can be asked what was done.
///
/// # Errors
/// As [`open`].
pub fn searcher(config: &SearchConfig, world: impl Fn() -> Result<Arc<World>, WorldError>) -> Result<Arc<Searcher>, OpenError> {
    let mut opening = shared(config, &world)?;
    let page = (config.page.backend != AS_TEXT).then(|| opening.side("page", &config.page)).transpose()?;
    let sides = Sides { text: opening.side("text", &config.text)?, image: opening.side("image", &config.image)?, page };
    Ok(Arc::new(Searcher { limited: Limited::new(sides, config), budget: opening.budget }))
}

/// What settings name, open.
pub struct Searcher {
    limited: Limited<Sides>,
    budget: Arc<Budget>,
}

impl Searcher {
    /// Searches, and tells what was done for it, in order.
    pub async fn told(&self, layer: u64, queries: &[Query]) -> (Vec<Outcome>, Vec<Step>) {
        let steps = Steps::default();
        let outcomes = self.limited.noted(layer, queries, &steps).await;
        (outcomes, steps.into_inner())
    }

    /// Why `search.budget` has refused a request, once it has.
    pub fn spent(&self) -> Option<&str> {
        self.budget.spent()
    }
}

impl Search for Searcher {
    fn search<'a>(&'a self, layer: u64, queries: &'a [Query]) -> SearchFuture<'a> {
        self.limited.search(layer, queries)
    }
}

/// A service of settings by itself: without what is kept of it, without its fallbacks.
pub struct Apart {
    /// Its place within the table, such as `text.fallbacks[0]`.
    pub key: String,
    /// Its settings.
    pub settings: BackEndConfig,
    /// Where it is.
    pub url: String,
    back_end: Box<dyn BackEnd>,
}

impl Apart {
    /// Asks it, once, and again only where it is busy; what that costs counts against the budget.
    pub async fn ask(&self, query: &Query, until: Instant) -> Outcome {
        let (queries, steps) = ([query.clone()], Steps::default());
        let asked = self.back_end.ask(Asked { layer: 0, queries: &queries, until, steps: &steps });
        timeout_at(until, asked).await.unwrap_or_else(|_| late(&queries)).pop().expect("one outcome of one query")
    }
}

/// Each service that `config` names, in the order of its table: what answers in this process is none.
///
/// # Errors
/// As [`open`].
pub fn apart(config: &SearchConfig, world: impl Fn() -> Result<Arc<World>, WorldError>) -> Result<Vec<Apart>, OpenError> {
    let mut opening = shared(config, &world)?;
    let mut apart = vec![];
    for (key, side) in config.all() {
        let kind = backends::named(&side.backend).expect("it was checked");
        if let Open::Service(service) = &kind.open {
            let settings = BackEndConfig { attempts: 1, ..side.clone() };
            let remote = opening.remote(&key, kind, service(side), &settings).map_err(|why| OpenError::Settings(format!("{key}.{why}")))?;
            apart.push(Apart { key, url: url_of(kind, side).to_owned(), settings, back_end: Box::new(remote) });
        }
    }
    Ok(apart)
}

fn url_of<'a>(kind: &Kind, side: &'a BackEndConfig) -> &'a str {
    if side.url.is_empty() { kind.url } else { side.url.trim_end_matches('/') }
}

/// What of settings several back ends share.
fn shared<'a>(config: &'a SearchConfig, world: &'a dyn Fn() -> Result<Arc<World>, WorldError>) -> Result<Opening<'a>, OpenError> {
    config.check().map_err(OpenError::Settings)?;
    let store = config.cache.path.as_deref().map(|path| match config.mode {
        Mode::Replay => Store::read(path).map(Arc::new),
        Mode::Live | Mode::Record => Store::shared(path),
    });
    let in_cache = |why: String| OpenError::Settings(format!("cache.path: {why}"));
    let store = store.transpose().map_err(in_cache)?;
    if let Some(store) = store.as_ref().filter(|_| config.mode == Mode::Live) {
        let days = config.cache.days.max(config.cache.empty_hours / 24.0);
        store.prune(now(), (days * 86_400.0) as u64).map_err(in_cache)?;
    }
    // A replay spends nothing.
    let ledger = store.clone().filter(|_| config.mode != Mode::Replay);
    Ok(Opening {
        config,
        here: Here { world },
        keeping: Keeping::new(config.mode, store, &config.cache),
        budget: Arc::new(Budget::new(&config.budget, ledger)),
        rates: HashMap::new(),
        // A replay publishes nothing.
        publisher: match config.mode {
            Mode::Replay => None,
            Mode::Live | Mode::Record => Publisher::open(&config.publisher).map_err(OpenError::Settings)?.map(Arc::new),
        },
    })
}

/// What back ends are opened with.
struct Opening<'a> {
    config: &'a SearchConfig,
    here: Here<'a>,
    keeping: Keeping,
    budget: Arc<Budget>,
    /// By service and address: both sides may ask the same one.
    rates: HashMap<(&'static str, String), (f64, Arc<Rate>)>,
    /// Of this process; there is one, whoever is asked.
    publisher: Option<Arc<Publisher>>,
}

impl Opening<'_> {
    fn side(&mut self, key: &str, side: &BackEndConfig) -> Result<InOrder, OpenError> {
        let mut in_order = vec![self.one(key, side)?];
        for (at, fallback) in side.fallbacks.iter().enumerate() {
            in_order.push(self.one(&format!("{key}.fallbacks[{at}]"), fallback)?);
        }
        Ok(InOrder(in_order))
    }

    fn one(&mut self, key: &str, side: &BackEndConfig) -> Result<Box<dyn BackEnd>, OpenError> {
        let kind = backends::named(&side.backend).expect("it was checked");
        match &kind.open {
            // A world answers faster than anything that is kept, and the same.
            Open::Here(open) if self.config.mode == Mode::Live => open(&self.here),
            Open::Here(open) => Ok(Box::new(Keeper::new(open(&self.here)?, self.keeping.clone()))),
            Open::Service(service) => {
                let remote = self.remote(key, kind, service(side), side).map_err(|why| OpenError::Settings(format!("{key}.{why}")))?;
                Ok(Box::new(Keeper::new(Box::new(remote), self.keeping.clone())))
            }
            Open::Net(open) => {
                let named = |why| OpenError::Settings(format!("{key}.{why}"));
                let rate = self.rate(key, kind, "", side).map_err(named)?;
                let reader = open(side, rate, self.budget.clone()).map_err(named)?;
                Ok(Box::new(Keeper::new(reader, self.keeping.clone())))
            }
        }
    }

    fn remote(&mut self, key: &str, kind: &Kind, service: Box<dyn http::call::Service>, side: &BackEndConfig) -> Result<Remote, String> {
        let url = url_of(kind, side);
        // Nobody is asked in a replay, so that nobody needs a key.
        let secret = if self.config.mode == Mode::Replay { None } else { secret(kind, side)? };
        let rate = self.rate(key, kind, url, side)?;
        let shared = Shared { rate, budget: self.budget.clone(), publisher: self.publisher.clone() };
        Remote::new(kind, service, url, secret, side, shared)
    }

    /// The rate of a service, whichever sides ask it.
    fn rate(&mut self, key: &str, kind: &Kind, url: &str, side: &BackEndConfig) -> Result<Arc<Rate>, String> {
        let known = self.rates.entry((kind.account(), url.to_owned()));
        let (per_second, rate) = known.or_insert_with(|| (side.per_second, Arc::new(Rate::new(side.per_second))));
        if *per_second != side.per_second {
            return Err(format!(
                "per_second is {}, and {per_second} on another side that asks the same service: give both the same ({key})",
                side.per_second
            ));
        }
        Ok(rate.clone())
    }
}

/// A service's key, or none where it needs none.
fn secret(kind: &Kind, side: &BackEndConfig) -> Result<Option<Secret>, String> {
    let sent = kind.key.map_or(http::call::KeyIn::Bearer, |(sent, _)| sent);
    let text = match (&side.api_key_file, side.api_key_env.as_str(), kind.key) {
        (Some(path), "", _) => Some(SecretText::of_file("api_key_file", path)?),
        (Some(_), ..) => return Err("api_key_env and api_key_file are both given: one holds the key".into()),
        (None, "", Some((_, usual))) if kind.is_open && std::env::var_os(usual).is_none() => None,
        (None, "", Some((_, usual))) => SecretText::of_variable("api_key_env", usual).map_err(|_| {
            format!("api_key_env: {} needs a key: put it into {usual}, or name another variable or an api_key_file", kind.name)
        })?,
        (None, name, _) => SecretText::of_variable("api_key_env", name)?,
    };
    Ok(text.map(|text| Secret { text, sent }))
}

/// Texts searched in one place, pictures in another. Pages are read where texts are searched, whose hits name them, or in a third.
struct Sides {
    text: InOrder,
    image: InOrder,
    page: Option<InOrder>,
}

impl Answers for Sides {
    fn ask<'a>(&'a self, asked: Asked<'a>) -> AskFuture<'a> {
        match asked.queries[0] {
            Query::Text(_) => self.text.ask(asked),
            Query::Page(_) => self.page.as_ref().unwrap_or(&self.text).ask(asked),
            Query::Picture(_) => self.image.ask(asked),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_world_is_opened_by_its_name_and_an_unreadable_one_is_told_from_settings() {
        let world = || World::embedded().map(Arc::new);
        let search = open(&SearchConfig::default(), world).expect("opens");
        let found = search.search(0, &[Query::Text("Mexico currency".into())]).await.remove(0);
        assert_eq!(found.expect("searches")[0].title, "currency");
        let error = open(&SearchConfig::default(), || World::load("/nowhere".as_ref()).map(Arc::new)).map(|_| ()).expect_err("none");
        assert_eq!(error.key(), "world");
        let error = open(&SearchConfig { concurrency: 0, ..SearchConfig::default() }, world).map(|_| ()).expect_err("bounds");
        assert!(error.key() == "search" && error.to_string().starts_with("concurrency"), "{error}");
    }
}
