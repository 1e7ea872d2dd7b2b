//! A service that is asked over HTTP: from queries to requests and back, within what it allows and what may be spent.
//!
//! In: queries. Out: an outcome for each, within the caller's time. Every request goes through the budget, the service's rate, its
//! breaker; one that fails in a way that passes is made again, later. Which requests these are is the [`Service`]'s alone.

pub mod call;
mod send;

use std::sync::Arc;
use std::time::Duration;

use hypereyes_chassis::backoff::{Backoff, BackoffConfig};
use hypereyes_chassis::breaker::{Breaker, BreakerConfig};
use hypereyes_environment::{Fault, Outcome, Query};
use tokio::time::{Instant, sleep_until, timeout_at};

use self::call::{Miss, Service};
use self::send::{Sender, Sent};
use crate::asked::{AskFuture, Asked, BackEnd, Key, normalised, parameters};
use crate::budget::Budget;
use crate::config::BackEndConfig;
use crate::metrics::{ATTEMPTS, WAITED};
use crate::rate::Rate;

pub use self::send::Secret;

/// A service, as it is asked.
pub struct Remote {
    name: &'static str,
    service: Box<dyn Service>,
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
        name: &'static str,
        service: Box<dyn Service>,
        url: &str,
        secret: Option<Secret>,
        config: &BackEndConfig,
        rate: Arc<Rate>,
        budget: Arc<Budget>,
    ) -> Result<Self, String> {
        Ok(Self {
            name,
            service,
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
    async fn request(&self, layer: u64, queries: &[Query], until: Instant) -> Vec<Outcome> {
        let done = timeout_at(until, self.attempts(layer, queries, until)).await;
        let all = |(fault, reason): Miss| {
            let reason = self.sender.without_secret(&format!("{}: {reason}", self.name));
            queries.iter().map(|query| Err(query.failed(fault, &reason))).collect()
        };
        match done {
            Ok(Ok(lists)) => {
                let outcome = |(list, query): (Result<_, Miss>, &Query)| {
                    list.map_err(|(fault, reason)| query.failed(fault, self.sender.without_secret(&format!("{}: {reason}", self.name))))
                };
                lists.into_iter().zip(queries).map(outcome).collect()
            }
            Ok(Err(miss)) => all(miss),
            Err(_) => all((Fault::Timeout, "no answer before the search's deadline (search.deadline_s)".to_owned())),
        }
    }

    async fn attempts(
        &self,
        layer: u64,
        queries: &[Query],
        until: Instant,
    ) -> Result<Vec<Result<Vec<hypereyes_environment::Hit>, Miss>>, Miss> {
        let call = self.service.call(layer, queries)?;
        let mut backoff = Backoff::new(&BackoffConfig { first_ms: 500, max_ms: 20_000, ..BackoffConfig::default() });
        let mut attempt = 1;
        loop {
            if !self.breaker.admits() {
                self.count("not_asked");
                return Err((Fault::Unavailable, "it failed several times in a row and is left alone for a while".to_owned()));
            }
            let waited = Instant::now();
            self.rate.until_free().await;
            metrics::histogram!(WAITED, "service" => self.name).record(waited.elapsed().as_secs_f64());
            // Taken before it is sent: whatever becomes of the request, it may be paid for.
            if let Err(miss) = self.budget.take(self.name, self.price) {
                self.breaker.answered();
                self.count("budget");
                return Err(miss);
            }
            let sent = timeout_at(Instant::now() + self.attempt, self.sender.send(&call)).await;
            let (miss, pause) = match sent {
                Ok(Sent::Reply(reply)) if (200..300).contains(&reply.status) => {
                    let _ = self.breaker.answered();
                    match self.service.read(&reply.body, queries) {
                        Ok(lists) if lists.len() == queries.len() => {
                            self.count("ok");
                            return Ok(lists);
                        }
                        Ok(lists) => ((Fault::Unavailable, format!("it answers {} of {} queries", lists.len(), queries.len())), None),
                        Err(miss) => (miss, None),
                    }
                }
                Ok(Sent::Reply(reply)) => {
                    let (fault, said) = self.service.refused(&reply);
                    let change = if fault == Fault::Unavailable { self.breaker.failed() } else { self.breaker.answered() };
                    self.note(change);
                    ((fault, format!("HTTP {}: {said}", reply.status)), reply.retry_after)
                }
                Ok(Sent::Nothing(reason)) => {
                    self.note(self.breaker.failed());
                    ((Fault::Unavailable, reason), None)
                }
                Err(_) => {
                    self.note(self.breaker.failed());
                    let reason = format!("no reply within {:.1} s (attempt_s)", self.attempt.as_secs_f64());
                    ((Fault::Timeout, reason), None)
                }
            };
            self.count(miss.0.label());
            let passes = matches!(miss.0, Fault::RateLimited | Fault::Unavailable | Fault::Timeout);
            // A pause that ends after the deadline is none that anybody waits for.
            let next = Instant::now() + pause.unwrap_or_default().max(backoff.next_delay());
            if !passes || attempt >= self.attempts || next >= until {
                return Err(miss);
            }
            if miss.0 == Fault::RateLimited {
                // Everybody's: the others would be refused, too.
                self.rate.stand_still(next);
            }
            attempt += 1;
            sleep_until(next).await;
        }
    }

    fn count(&self, outcome: &'static str) {
        metrics::counter!(ATTEMPTS, "service" => self.name, "outcome" => outcome).increment(1);
    }

    fn note(&self, change: hypereyes_chassis::breaker::Change) {
        if change == hypereyes_chassis::breaker::Change::Opened {
            tracing::warn!(service = self.name, "a search service fails again and again; it is left alone for a while");
        }
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

    fn ask<'a>(&'a self, Asked { layer, queries, until }: Asked<'a>) -> AskFuture<'a> {
        Box::pin(async move {
            let queries: Vec<Query> = queries.iter().map(plain).collect();
            let requests = queries.chunks(self.service.most().max(1)).map(|some| self.request(layer, some, until));
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
