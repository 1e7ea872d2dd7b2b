//! What may be asked and spent. In: bounds, and requests that are about to be sent. Out: leave to send them, or none. What is spent is
//! written down before a request is sent, so that neither a crash nor many at once go beyond a bound by one.

use std::sync::Arc;

use hypereyes_environment::Fault;
use parking_lot::Mutex;
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

/// A run's budget.
pub struct Budget {
    bounds: BudgetConfig,
    spent: Mutex<Spent>,
    /// Where it is written down.
    kept: Option<Arc<Store>>,
}

impl Budget {
    /// Goes on from what `kept` says was spent.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn new(bounds: &BudgetConfig, kept: Option<Arc<Store>>) -> Result<Self, String> {
        let spent = kept.as_ref().map(|kept| kept.spent()).transpose()?.unwrap_or_default();
        Ok(Self { bounds: bounds.clone(), spent: Mutex::new(spent), kept })
    }

    /// Takes one request of a price.
    ///
    /// # Errors
    /// [`Miss`] when a bound would be passed, or what is spent cannot be written down.
    pub fn take(&self, service: &'static str, usd: f64) -> Result<(), Miss> {
        let price = (usd * 1e6).round() as u64;
        let mut spent = self.spent.lock();
        let next = Spent { requests: spent.requests + 1, micro_usd: spent.micro_usd.saturating_add(price) };
        let BudgetConfig { requests, usd: most } = self.bounds;
        if requests > 0 && next.requests > requests {
            return Err((Fault::Quota, format!("search.budget.requests is {requests} and used up; raise it to go on")));
        }
        if most > 0.0 && next.micro_usd > (most * 1e6).round() as u64 {
            let so_far = spent.micro_usd as f64 / 1e6;
            return Err((Fault::Quota, format!("search.budget.usd is {most} and {so_far:.4} is spent; raise it to go on")));
        }
        if let Some(kept) = &self.kept {
            kept.spend(next).map_err(|why| (Fault::Unavailable, format!("what is spent cannot be written down: {why}")))?;
        }
        *spent = next;
        metrics::counter!(SPENT_REQUESTS, "service" => service).increment(1);
        metrics::gauge!(SPENT_USD).set(next.micro_usd as f64 / 1e6);
        Ok(())
    }
}
