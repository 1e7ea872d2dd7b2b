//! Searches that are charged to the rollout that makes them. In: a searcher, its settings. Out: the same searches, and what each rollout
//! spent on them, as far as anybody knows.

use std::sync::Arc;

use hypereyes_environment::{Query, Search, SearchFuture};
use hypereyes_eval::{Spent, bill};
use hypereyes_search::{How, SearchConfig, Searcher, Step, backends};

/// A searcher whose steps are charged.
pub struct Billed {
    searcher: Arc<Searcher>,
    nothing: Spent,
}

impl Billed {
    /// Around a searcher that was opened with `config`.
    pub fn new(searcher: Arc<Searcher>, config: &SearchConfig) -> Self {
        Self { searcher, nothing: nothing(config) }
    }

    /// What no search costs: zeros where it is known what searches cost, and nothing where it is not.
    pub fn nothing(&self) -> Spent {
        self.nothing
    }

    /// Why the budget has refused a request, once it has.
    pub fn spent(&self) -> Option<&str> {
        self.searcher.spent()
    }
}

impl Search for Billed {
    fn search<'a>(&'a self, layer: u64, queries: &'a [Query]) -> SearchFuture<'a> {
        Box::pin(async move {
            let (outcomes, steps) = self.searcher.told(layer, queries).await;
            bill::charge(of_steps(&steps, self.nothing));
            outcomes
        })
    }
}

fn is_service(name: &str) -> bool {
    backends::named(name).is_some_and(|kind| kind.is_service)
}

/// Requests are counted where a service is asked, dollars where settings price one.
fn nothing(config: &SearchConfig) -> Spent {
    let asks = config.all().any(|(_, side)| is_service(&side.backend));
    let is_priced = config.all().any(|(_, side)| side.usd_per_request > 0.0);
    Spent { requests: asks.then_some(0), usd: is_priced.then_some(0.0) }
}

fn of_steps(steps: &[Step], nothing: Spent) -> Spent {
    let asked = || steps.iter().filter(|step| step.how == How::Asked && is_service(step.service));
    Spent { requests: nothing.requests.map(|_| asked().count() as u64), usd: nothing.usd.map(|_| asked().map(|step| step.usd).sum()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_prices_is_not_known_and_what_this_process_answers_is_no_request() {
        let mut config = SearchConfig::default();
        assert_eq!(nothing(&config), Spent::default(), "the world is asked for nothing");
        config.text.backend = "serper".into();
        assert_eq!(nothing(&config), Spent { requests: Some(0), usd: None });
        config.text.usd_per_request = 0.001;
        let priced = nothing(&config);
        assert_eq!(priced, Spent { requests: Some(0), usd: Some(0.0) });
        let step = |service, how, usd| Step { service, how, usd, fault: None };
        let steps = [
            step("serper", How::Asked, 0.5),
            step("serper", How::Kept, 0.0),
            step("serper", How::Asked, 0.25),
            step("world", How::Asked, 0.0),
        ];
        assert_eq!(of_steps(&steps, priced), Spent { requests: Some(2), usd: Some(0.75) });
        assert_eq!(of_steps(&steps, Spent::default()), Spent::default());
    }
}
