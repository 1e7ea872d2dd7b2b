//! From settings to one searchable thing: each side's back ends opened by name, with what is kept around each and the bounds around all.

use std::collections::HashMap;
use std::sync::Arc;

use hypereyes_chassis::secret::SecretText;
use hypereyes_environment::{Query, Search};
use hypereyes_world::{World, WorldError};

use crate::asked::{AskFuture, Asked, BackEnd};
use crate::backends::{self, Here, Kind, Open};
use crate::budget::Budget;
use crate::config::{BackEndConfig, Mode};
use crate::fallback::InOrder;
use crate::http::{Remote, Secret};
use crate::kept::{Keeper, Keeping, now};
use crate::limited::{Answers, Limited};
use crate::rate::Rate;
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
    Ok(Arc::new(Limited::new(sides(config, &world)?, config)))
}

fn sides(config: &SearchConfig, world: &dyn Fn() -> Result<Arc<World>, WorldError>) -> Result<Sides, OpenError> {
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
    let mut opening = Opening {
        config,
        here: Here { world },
        keeping: Keeping::new(config.mode, store, &config.cache),
        budget: Arc::new(Budget::new(&config.budget, ledger)),
        rates: HashMap::new(),
    };
    Ok(Sides { text: opening.side("text", &config.text)?, image: opening.side("image", &config.image)? })
}

/// What back ends are opened with.
struct Opening<'a> {
    config: &'a SearchConfig,
    here: Here<'a>,
    keeping: Keeping,
    budget: Arc<Budget>,
    /// By service and address: both sides may ask the same one.
    rates: HashMap<(&'static str, String), (f64, Arc<Rate>)>,
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
            Open::Here(open) => Ok(Box::new(Keeper::new(open(&self.here)?, self.keeping.clone(), 0.0))),
            Open::Service(service) => {
                let remote = self.remote(key, kind, service(side), side).map_err(|why| OpenError::Settings(format!("{key}.{why}")))?;
                Ok(Box::new(Keeper::new(Box::new(remote), self.keeping.clone(), side.usd_per_request)))
            }
        }
    }

    fn remote(&mut self, key: &str, kind: &Kind, service: Box<dyn http::call::Service>, side: &BackEndConfig) -> Result<Remote, String> {
        let url = if side.url.is_empty() { kind.url } else { side.url.trim_end_matches('/') };
        // Nobody is asked in a replay, so that nobody needs a key.
        let secret = if self.config.mode == Mode::Replay { None } else { secret(kind, side)? };
        let known = self.rates.entry((kind.name, url.to_owned()));
        let (per_second, rate) = known.or_insert_with(|| (side.per_second, Arc::new(Rate::new(side.per_second))));
        if *per_second != side.per_second {
            return Err(format!(
                "per_second is {}, and {per_second} on another side that asks the same service: give both the same ({key})",
                side.per_second
            ));
        }
        Remote::new(kind, service, url, secret, side, rate.clone(), self.budget.clone())
    }
}

/// A service's key, or none where it needs none.
fn secret(kind: &Kind, side: &BackEndConfig) -> Result<Option<Secret>, String> {
    let sent = kind.key.map_or(http::call::KeyIn::Bearer, |(sent, _)| sent);
    let text = match (&side.api_key_file, side.api_key_env.as_str(), kind.key) {
        (Some(path), "", _) => Some(SecretText::of_file("api_key_file", path)?),
        (Some(_), ..) => return Err("api_key_env and api_key_file are both given: one holds the key".into()),
        (None, "", Some((_, usual))) => SecretText::of_variable("api_key_env", usual).map_err(|_| {
            format!("api_key_env: {} needs a key: put it into {usual}, or name another variable or an api_key_file", kind.name)
        })?,
        (None, name, _) => SecretText::of_variable("api_key_env", name)?,
    };
    Ok(text.map(|text| Secret { text, sent }))
}

/// Texts searched in one place, pictures in another. Pages are read where texts are searched: its hits name them.
struct Sides {
    text: InOrder,
    image: InOrder,
}

impl Answers for Sides {
    fn ask<'a>(&'a self, asked: Asked<'a>) -> AskFuture<'a> {
        match asked.queries[0] {
            Query::Text(_) | Query::Page(_) => self.text.ask(asked),
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
