//! A service that is asked over HTTP: from queries to requests and back, within what it allows and what may be spent.
//!
//! In: queries. Out: an outcome for each, within the caller's time. Every request goes through the budget, the service's rate, its
//! breaker; one that fails in a way that passes is made again, later. Which requests these are is the [`Service`]'s alone.

pub mod call;
pub mod send;
mod stream;

use std::borrow::Cow;
use std::future::Future;
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
use crate::publisher::{Crop, Publisher};
use crate::rate::{Rate, Turn};
use crate::steps::{How, Steps};

pub use self::send::Secret;

/// What is said of a request that was cut off.
const LATE: &str = "no answer before the search's deadline (search.deadline_s)";
/// Shortest pause before somebody who was asked too often is asked again: a second is what most services count in.
const BUSY: Duration = Duration::from_millis(500);

/// How long after its deadline a request is still told of, that what was sent of it is written down.
const SLACK: Duration = Duration::from_millis(200);

/// Why a request failed, and the pause that the service asks for.
type Failed = (Miss, Option<Duration>);

/// What came of the queries of one request: hits of each, or why it has none.
type Lists = Vec<Result<Vec<Hit>, Miss>>;

/// A service, as it is asked.
pub struct Remote {
    name: &'static str,
    pages: bool,
    service: Arc<dyn Service>,
    /// Of a service that is told where a picture is.
    publisher: Option<Arc<Publisher>>,
    sender: Sender,
    rate: Arc<Rate>,
    budget: Arc<Budget>,
    breaker: Breaker,
    attempts: u32,
    attempt: Duration,
    price: f64,
}

/// What back ends share.
pub struct Shared {
    /// The service's rate.
    pub rate: Arc<Rate>,
    /// What may be spent.
    pub budget: Arc<Budget>,
    /// Who publishes pictures.
    pub publisher: Option<Arc<Publisher>>,
}

/// What is sent, before it is.
enum Asks {
    /// A request.
    Call(Call),
    /// A request about a picture, once it can be fetched.
    Crop(Crop),
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
        shared: Shared,
    ) -> Result<Self, String> {
        let Shared { rate, budget, publisher } = shared;
        Ok(Self {
            name: kind.name,
            pages: kind.pages,
            service: service.into(),
            publisher: publisher.filter(|_| kind.by_address),
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
    async fn request(&self, layer: u64, queries: Vec<Query>, until: Instant, steps: &Steps) -> Vec<Outcome> {
        let done = timeout_at(until + SLACK, self.attempts(layer, &queries, until, steps)).await;
        let late = || Err((Fault::Timeout, LATE.to_owned()));
        let lists = done.unwrap_or_else(|_| late()).unwrap_or_else(|miss| vec![Err(miss); queries.len()]);
        let failed = |query: &Query, (fault, reason): Miss| query.failed(fault, format!("{}: {reason}", self.name));
        lists.into_iter().zip(&queries).map(|(list, query)| list.map_err(|miss| failed(query, miss))).collect()
    }

    /// What is sent for queries. Pictures are encoded, which is no work for the runtime's threads.
    async fn asks(&self, layer: u64, queries: &[Query]) -> Result<Asks, Miss> {
        if !matches!(queries[0], Query::Picture(_)) {
            return self.service.call(layer, queries).map(Asks::Call);
        }
        let (service, queries, is_published) = (self.service.clone(), queries.to_vec(), self.publisher.is_some());
        let asks = move || match &queries[..] {
            [Query::Picture(picture)] if is_published => {
                Crop::of(picture).map(Asks::Crop).map_err(|why| (Fault::Refused, format!("a picture cannot be sent: {why}")))
            }
            queries => service.call(layer, queries).map(Asks::Call),
        };
        tokio::task::spawn_blocking(asks).await.unwrap_or_else(|died| Err((Fault::Refused, died.to_string())))
    }

    /// The request about a crop, which is published now, and not before: it was not kept, there is time, and it may be spent. That it
    /// cannot be published is no fault of the service, which is not asked then.
    async fn published(&self, crop: &Crop, until: Instant) -> Result<Call, Miss> {
        let missed = |how: &'static str| {
            move |miss: Miss| {
                self.count(how);
                miss
            }
        };
        self.budget.allows(self.price).await.map_err(missed("budget"))?;
        let Some(publisher) = &self.publisher else {
            return Err((Fault::Refused, "nobody publishes pictures (search.publisher)".to_owned()));
        };
        let address = timeout_at(until, publisher.address(crop)).await.unwrap_or_else(|_| Err(LATE.to_owned()));
        let address = address.map_err(|why| (Fault::Unavailable, why)).map_err(missed("not_asked"))?;
        Ok(Call { hidden: Some(address.clone()), ..self.service.call_at(&address)? })
    }

    async fn attempts(&self, layer: u64, queries: &[Query], until: Instant, steps: &Steps) -> Result<Lists, Miss> {
        let asks = self.asks(layer, queries).await?;
        let mut backoff = Backoff::new(&BackoffConfig { first_ms: 500, max_ms: 20_000, ..BackoffConfig::default() });
        let mut failures = 0;
        let mut is_admitted = false;
        let turn = Turn { rate: &self.rate, until };
        loop {
            let left_alone = || {
                self.count("not_asked");
                Err((Fault::Unavailable, "it failed several times in a row and is left alone for a while".to_owned()))
            };
            // Nobody waits for a turn that does not come.
            if !is_admitted && self.breaker.is_open() {
                return left_alone();
            }
            self.turn(turn).await?;
            // Once for a request, however often it is made: one that nobody can answer opens nothing for the others.
            if !is_admitted && !self.breaker.admits() {
                return left_alone();
            }
            is_admitted = true;
            let call = match &asks {
                Asks::Call(call) => Cow::Borrowed(call),
                Asks::Crop(crop) => Cow::Owned(self.published(crop, until).await?),
            };
            let once = match self.prepare(&call, queries, turn).await {
                Err(failed) => Err(failed),
                Ok(is_late) => {
                    if is_late {
                        self.turn(turn).await?;
                    }
                    // Taken before it is sent: whatever becomes of the request, it may be paid for.
                    if let Err(miss) = self.budget.take(self.name, self.price).await {
                        self.count("budget");
                        return Err(miss);
                    }
                    let once = self.once(&call, queries, turn).await;
                    steps.note(self.name, How::Asked, self.price, once.as_ref().err().map(|(miss, _)| miss.0));
                    once
                }
            };
            let (miss, pause) = match once {
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
                // That nobody waits any more says nothing of the service.
                if miss.0 != Fault::Timeout || Instant::now() < until {
                    self.ended(miss.0);
                }
                return Err(miss);
            }
            sleep_until(next).await;
        }
    }

    /// Waits until the service may be asked.
    async fn turn(&self, turn: Turn<'_>) -> Result<(), Miss> {
        let waited = Instant::now();
        let in_time = turn.comes().await;
        metrics::histogram!(WAITED, "service" => self.name).record(waited.elapsed().as_secs_f64());
        if !in_time {
            self.count("not_asked");
            let why = "its turn would come after the search's deadline (per_second, or a pause it asked for)";
            return Err((Fault::RateLimited, why.to_owned()));
        }
        Ok(())
    }

    /// Readies the service for a call: whether that took a while.
    async fn prepare(&self, call: &Call, queries: &[Query], turn: Turn<'_>) -> Result<bool, Failed> {
        match self.within(turn.until, self.service.prepare(&self.sender, call, turn)).await? {
            Ok(is_late) => Ok(is_late),
            Err(sent) => {
                let nothing = ((Fault::Unavailable, "it answers before it is asked".to_owned()), None);
                self.lists(sent, queries).and(Err(nothing))
            }
        }
    }

    /// Makes the request once: its lists, or what was missed.
    async fn once(&self, call: &Call, queries: &[Query], turn: Turn<'_>) -> Result<Lists, Failed> {
        let sent = self.within(turn.until, self.service.exchange(&self.sender, call, turn)).await?;
        self.lists(sent, queries)
    }

    /// Waits for something as long as one attempt, and somebody who waits, allow.
    async fn within<T>(&self, until: Instant, what: impl Future<Output = T>) -> Result<T, Failed> {
        let own = Instant::now() + self.attempt;
        let late =
            || if until < own { LATE.to_owned() } else { format!("no reply within {:.1} s (attempt_s)", self.attempt.as_secs_f64()) };
        timeout_at(own.min(until), what).await.map_err(|_| ((Fault::Timeout, late()), None))
    }

    /// What was sent, as lists or as what was missed.
    fn lists(&self, sent: Sent, queries: &[Query]) -> Result<Lists, Failed> {
        let missed = |fault, reason: String| Err(((fault, reason), None));
        match sent {
            Sent::Reply(reply) if (200..300).contains(&reply.status) => match self.service.read(&reply.body, queries) {
                Ok(lists) if lists.len() == queries.len() => Ok(lists),
                Ok(lists) => missed(Fault::Unavailable, format!("it answers {} of {} queries", lists.len(), queries.len())),
                Err((fault, reason)) => missed(fault, reason),
            },
            Sent::Reply(reply) => {
                let (fault, said) = self.service.refused(&reply);
                Err(((fault, format!("HTTP {}: {said}", reply.status)), reply.retry_after))
            }
            Sent::Nothing(reason) => missed(Fault::Unavailable, reason),
            Sent::Missed((fault, reason)) => missed(fault, reason),
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

impl Drop for Remote {
    fn drop(&mut self) {
        self.service.close(&self.sender);
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
        match query {
            Query::Text(_) | Query::Picture(_) => true,
            Query::Page(_) => self.pages,
        }
    }

    fn most(&self) -> usize {
        self.service.most().max(1)
    }

    fn ask<'a>(&'a self, Asked { layer, queries, until, steps }: Asked<'a>) -> AskFuture<'a> {
        Box::pin(async move {
            let requests = queries.chunks(self.most()).map(|some| self.request(layer, some.iter().map(plain).collect(), until, steps));
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
