//! What may be asked and spent. In: bounds, and requests that are about to be sent. Out: leave to send them, or none. What is spent is
//! written down before a request is sent, so that neither a crash nor many at once go beyond a bound by one.

use std::sync::{Arc, OnceLock};

use hypereyes_environment::Fault;
use serde::{Deserialize, Serialize};

use crate::config::BudgetConfig;
use crate::http::call::Miss;
use crate::metrics::{SPENT_REQUESTS, SPENT_USD};
use crate::store::Store;

/// What was spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spent {
    /// Requests that were sent.
    pub requests: u64,
    /// Millionths of a dollar that they cost.
    pub micro_usd: u64,
}

/// A budget: bounds, and where what was spent is written down. Without bounds nothing is.
pub struct Budget {
    bounds: BudgetConfig,
    kept: Option<Arc<Store>>,
    /// Why the first request was refused that was.
    refused: OnceLock<String>,
}

impl Budget {
    /// Goes on from what `kept` says was spent.
    pub fn new(bounds: &BudgetConfig, kept: Option<Arc<Store>>) -> Self {
        Self { bounds: bounds.clone(), kept: kept.filter(|_| *bounds != BudgetConfig::default()), refused: OnceLock::new() }
    }

    /// Takes one request of a price.
    ///
    /// # Errors
    /// [`Miss`] when a bound would be passed, or what is spent cannot be written down.
    pub async fn take(&self, service: &'static str, usd: f64) -> Result<(), Miss> {
        let Some(kept) = self.kept.clone() else { return Ok(()) };
        let bounds = self.bounds.clone();
        // It waits for the disk: not on the runtime's threads.
        let taken = tokio::task::spawn_blocking(move || kept.spend(|spent| next(&bounds, spent, usd))).await;
        let broken = |why: String| (Fault::Unavailable, format!("what is spent cannot be written down: {why}"));
        let taken = taken.map_err(|died| broken(died.to_string()))?.map_err(broken)?;
        let spent = taken.inspect_err(|(_, why)| drop(self.refused.set(why.clone())))?;
        metrics::counter!(SPENT_REQUESTS, "service" => service).increment(1);
        metrics::gauge!(SPENT_USD).set(spent.micro_usd as f64 / 1e6);
        Ok(())
    }

    /// Whether one request of a price could be taken. It takes nothing.
    ///
    /// # Errors
    /// As [`Budget::take`].
    pub async fn allows(&self, usd: f64) -> Result<(), Miss> {
        let Some(kept) = self.kept.clone() else { return Ok(()) };
        let spent = tokio::task::spawn_blocking(move || kept.spent()).await;
        let broken = |why: String| (Fault::Unavailable, format!("what is spent cannot be read: {why}"));
        let spent = spent.map_err(|died| broken(died.to_string()))?.map_err(broken)?;
        next(&self.bounds, spent, usd).map(drop).inspect_err(|(_, why)| drop(self.refused.set(why.clone())))
    }

    /// Why a request was refused, once a bound would have been passed.
    pub fn spent(&self) -> Option<&str> {
        self.refused.get().map(String::as_str)
    }
}

/// What is spent with one request more, if the bounds allow it.
fn next(bounds: &BudgetConfig, spent: Spent, usd: f64) -> Result<Spent, Miss> {
    let BudgetConfig { requests, usd: most } = bounds;
    let next = Spent { requests: spent.requests + 1, micro_usd: spent.micro_usd.saturating_add((usd * 1e6).round() as u64) };
    if *requests > 0 && next.requests > *requests {
        return Err((Fault::Quota, format!("search.budget.requests is {requests} and used up; raise it to go on")));
    }
    if *most > 0.0 && next.micro_usd > (most * 1e6).round() as u64 {
        let so_far = spent.micro_usd as f64 / 1e6;
        return Err((Fault::Quota, format!("search.budget.usd is {most} and {so_far:.4} is spent; raise it to go on")));
    }
    Ok(next)
}
