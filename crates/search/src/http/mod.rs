//! A service that is asked over HTTP: from queries to requests and back, within what it allows and what may be spent.
//!
//! In: queries. Out: an outcome for each, within the caller's time. Every request goes through the budget, the service's rate, its
//! breaker; one that fails in a way that passes is made again, later. Which requests these are is the [`Service`]'s alone.

pub mod call;
mod send;

use std::sync::Arc;
use std::time::Duration;

use hypereyes_chassis::backoff::{Backoff, BackoffConfig};
use hypereyes_chassis::breaker::{Breaker, BreakerConfig, Change};
use hypereyes_environment::{Fault, Hit, Outcome, Query};
use tokio::time::{Instant, sleep_until, timeout_at};

use self::call::{Call, Miss, Service};
use self::send::{Sender, Sent};
use crate::asked::{AskFuture, Asked, BackEnd, Key, normalised, parameters};
use crate::backends::Kind;
use crate::budget::Budget;
use crate::config::BackEndConfig;
use crate::metrics::{ATTEMPTS, WAITED};
use crate::rate::Rate;

pub use self::send::Secret;

/// Shortest pause before somebody who was asked too often is asked again: a second is what most services count in.
const BUSY: Duration = Duration::from_millis(500);

/// What came of the queries of one request: hits of each, or why it has none.
type Lists = Vec<Result<Vec<Hit>, Miss>>;

/// A service, as it is asked.
pub struct Remote {
    name: &'static str,
    pages: bool,
    service: Arc<dyn Service>,
    sender: Sender,
    rate: Arc<Rate>,
    budget: Arc<Budget>,
    breaker: Breaker,
    attempts: u32,
    attempt: Duration,
    price: f64,
}

impl Remote {
    /// A service at `url`, asked as settings say that were checked.
    ///
    /// # Errors
    /// A sentence that begins with the key of [`BackEndConfig`] that cannot be used.
    pub fn new(
        kind: &Kind,
        service: Box<dyn Service>,
        url: &str,
        secret: Option<Secret>,
        config: &BackEndConfig,
        rate: Arc<Rate>,
        budget: Arc<Budget>,
    ) -> Result<Self, String> {
        Ok(Self {
            name: kind.name,
            pages: kind.pages,
            service: service.into(),
            sender: Sender::new(url, secret)?,
            rate,
            budget,
            breaker: Breaker::new(BreakerConfig::default()),
            attempts: config.attempts.max(1),
            attempt: Duration::from_secs_f64(config.attempt_s),
            price: config.usd_per_request,
        })
    }

    /// One request, made until it succeeds, can not, or nobody waits any more.
    async fn request(&self, layer: u64, queries: Vec<Query>, until: Instant) -> Vec<Outcome> {
        let done = timeout_at(until, self.attempts(layer, &queries, until)).await;
        let late = || Err((Fault::Timeout, "no answer before the search's deadline (search.deadline_s)".to_owned()));
        let lists = done.unwrap_or_else(|_| late()).unwrap_or_else(|miss| vec![Err(miss); queries.len()]);
        let failed = |query: &Query, (fault, reason): Miss| query.failed(fault, format!("{}: {reason}", self.name));
        lists.into_iter().zip(&queries).map(|(list, query)| list.map_err(|miss| failed(query, miss))).collect()
    }

    /// The call for queries. Pictures are encoded, which is no work for the runtime's threads.
    async fn call(&self, layer: u64, queries: &[Query]) -> Result<Call, Miss> {
        if !matches!(queries[0], Query::Picture(_)) {
            return self.service.call(layer, queries);
        }
        let (service, queries) = (self.service.clone(), queries.to_vec());
        let called = tokio::task::spawn_blocking(move || service.call(layer, &queries)).await;
        called.unwrap_or_else(|died| Err((Fault::Refused, died.to_string())))
    }

    async fn attempts(&self, layer: u64, queries: &[Query], until: Instant) -> Result<Lists, Miss> {
        let call = self.call(layer, queries).await?;
        let mut backoff = Backoff::new(&BackoffConfig { first_ms: 500, max_ms: 20_000, ..BackoffConfig::default() });
        let mut failures = 0;
        let mut is_admitted = false;
        loop {
            let waited = Instant::now();
            let in_time = self.rate.until_free(until).await;
            metrics::histogram!(WAITED, "service" => self.name).record(waited.elapsed().as_secs_f64());
            if !in_time {
                self.count("not_asked");
                return Err((
                    Fault::RateLimited,
                    "its turn would come after the search's deadline (per_second, or a pause it asked for)".into(),
                ));
            }
            // Once for a request, however often it is made: one that nobody can answer opens nothing for the others.
            if !is_admitted && !self.breaker.admits() {
                self.count("not_asked");
                return Err((Fault::Unavailable, "it failed several times in a row and is left alone for a while".to_owned()));
            }
            is_admitted = true;
            // Taken before it is sent: whatever becomes of the request, it may be paid for.
            if let Err(miss) = self.budget.take(self.name, self.price).await {
                self.count("budget");
                return Err(miss);
            }
            let (miss, pause) = match self.once(&call, queries).await {
                Ok(lists) => {
                    self.count("ok");
                    self.breaker.answered();
                    return Ok(lists);
                }
                Err(failed) => failed,
            };
            self.count(miss.0.label());
            let pause = pause.unwrap_or_default().max(backoff.next_delay());
            let next = Instant::now() + if miss.0 == Fault::RateLimited { pause.max(BUSY) } else { pause };
            if miss.0 == Fault::RateLimited {
                // Everybody's: the others would be refused, too. Being early is no failure of the query.
                self.rate.stand_still(next);
            } else {
                failures += 1;
            }
            let passes = matches!(miss.0, Fault::RateLimited | Fault::Unavailable | Fault::Timeout);
            if !passes || failures >= self.attempts || next >= until {
                self.ended(miss.0);
                return Err(miss);
            }
            sleep_until(next).await;
        }
    }

    /// Makes the request once: its lists, or what was missed and the pause that the service asks for.
    async fn once(&self, call: &Call, queries: &[Query]) -> Result<Lists, (Miss, Option<Duration>)> {
        let missed = |fault, reason: String| Err(((fault, reason), None));
        match timeout_at(Instant::now() + self.attempt, self.sender.send(call)).await {
            Ok(Sent::Reply(reply)) if (200..300).contains(&reply.status) => match self.service.read(&reply.body, queries) {
                Ok(lists) if lists.len() == queries.len() => Ok(lists),
                Ok(lists) => missed(Fault::Unavailable, format!("it answers {} of {} queries", lists.len(), queries.len())),
                Err((fault, reason)) => missed(fault, reason),
            },
            Ok(Sent::Reply(reply)) => {
                let (fault, said) = self.service.refused(&reply);
                Err(((fault, format!("HTTP {}: {said}", reply.status)), reply.retry_after))
            }
            Ok(Sent::Nothing(reason)) => missed(Fault::Unavailable, reason),
            Err(_) => missed(Fault::Timeout, format!("no reply within {:.1} s (attempt_s)", self.attempt.as_secs_f64())),
        }
    }

    /// Tells the breaker how a request ended.
    fn ended(&self, fault: Fault) {
        if !matches!(fault, Fault::Unavailable | Fault::Timeout) {
            self.breaker.answered();
        } else if self.breaker.failed() == Change::Opened {
            tracing::warn!(service = self.name, "a search service fails again and again; it is left alone for a while");
        }
    }

    fn count(&self, outcome: &'static str) {
        metrics::counter!(ATTEMPTS, "service" => self.name, "outcome" => outcome).increment(1);
    }
}

impl BackEnd for Remote {
    fn name(&self) -> &'static str {
        self.name
    }

    fn key(&self, layer: u64, query: &Query) -> Key {
        let path = self.service.path(layer, &plain(query));
        Key {
            service: self.name.to_owned(),
            endpoint: format!("{}{path}", self.sender.url()),
            parameters: parameters(query, self.service.says(layer)),
        }
    }

    fn can(&self, query: &Query) -> bool {
        self.pages || !matches!(query, Query::Page(_))
    }

    fn most(&self) -> usize {
        self.service.most().max(1)
    }

    fn ask<'a>(&'a self, Asked { layer, queries, until }: Asked<'a>) -> AskFuture<'a> {
        Box::pin(async move {
            let requests = queries.chunks(self.most()).map(|some| self.request(layer, some.iter().map(plain).collect(), until));
            futures::future::join_all(requests).await.concat()
        })
    }
}

/// A query as it is asked.
fn plain(query: &Query) -> Query {
    match query {
        Query::Text(text) => Query::Text(normalised(text)),
        Query::Page(address) => Query::Page(normalised(address)),
        Query::Picture(picture) => Query::Picture(picture.clone()),
    }
}
