//! Search services, each asked once. In: settings. Out: of each what it answered, how fast and for how much, or what is wrong with it.
//! It spends what one request costs, within `search.budget`, and looks at nothing that is kept.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use hypereyes_environment::Query;
use hypereyes_pictures::RgbImage;
use hypereyes_search::store::Store;
use hypereyes_search::{Apart, BudgetConfig, Mode, backends};
use tokio::time::Instant;

use crate::config::Config;

/// Longest wait for one that is busy.
const PATIENCE: Duration = Duration::from_secs(20);
/// What a text service is asked.
const TEXT: &str = "capital of France";
/// What a reader of pages is asked: a page that is there to be asked for.
const PAGE: &str = "https://example.com/";

/// What each service of `[search]` says, in the order of the table; nothing where there is none.
pub async fn asked(config: &Config) -> Vec<Result<String>> {
    let search = &config.search;
    if search.mode == Mode::Replay {
        let path = search.cache.path.clone().unwrap_or_default();
        let entries = Store::read(&path).and_then(|store| store.entries());
        let told = entries.map(|entries| format!("replay: nobody is asked; {} holds {entries} searches", path.display()));
        return vec![told.map_err(|why| anyhow!("search.cache.path: {why}"))];
    }
    let mut search = search.clone();
    if search.budget == BudgetConfig::default() {
        // Without bounds nothing is written down, and no file is made or waited for.
        (search.mode, search.cache.path) = (Mode::Live, None);
    }
    let opened = hypereyes_search::apart(&search, || hypereyes_world::World::embedded().map(Arc::new));
    let services = match opened {
        Ok(services) => services,
        Err(error) => return vec![Err(anyhow!("{}.{error}", error.key()))],
    };
    let mut told = vec![];
    for service in &services {
        told.push(one(config, service).await);
    }
    told
}

async fn one(config: &Config, service: &Apart) -> Result<String> {
    let query = match service.key.split(['.', '[']).next() {
        Some("image") => Query::Picture(Arc::new(picture())),
        Some("page") => Query::Page(PAGE.to_owned()),
        _ => Query::Text(TEXT.to_owned()),
    };
    let (key, name, url) = (&service.key, &service.settings.backend, &service.url);
    let began = Instant::now();
    let wait = Duration::from_secs_f64(service.settings.attempt_s).min(PATIENCE);
    let hits = service.ask(&query, began + wait).await.map_err(|error| anyhow!("search.{key}: {name} at {url}: {error}"))?;
    let took = began.elapsed().as_secs_f64();
    Ok(format!("search.{key}: {name} at {url}: {} hits in {took:.2} s; {}", hits.len(), costs(config, service)))
}

/// What the request cost, and what a run may.
fn costs(config: &Config, service: &Apart) -> String {
    let usd = service.settings.usd_per_request;
    if usd > 0.0 {
        let (steps, groups) = (config.learner.steps as f64, config.learner.groups_per_step as f64);
        let rollouts = steps * groups * f64::from(config.learner.group_size);
        return format!(
            "this one request cost ${usd:.4}; one for each of the {rollouts} rollouts of `up` would cost ${:.2}",
            usd * rollouts
        );
    }
    let is_paid = backends::named(&service.settings.backend).is_some_and(|kind| kind.is_paid);
    if is_paid {
        return format!("this one request is paid for; how much, search.{}.usd_per_request does not say", service.key);
    }
    "this one request cost nothing".to_owned()
}

/// Something to be looked at: no picture of anybody's.
fn picture() -> RgbImage {
    RgbImage::from_fn(64, 64, |x, y| [(4 * x) as u8, (4 * y) as u8, 128].into())
}
