//! Pages of the net, fetched by ourselves. In: an address that a policy names. Out: one hit with the page's title and main text.
//!
//! What is fetched is what anybody may: sites are asked by robots.txt first, addresses that are not public are refused, also where a
//! redirect or a name leads to one, and everything that a page can be made of has a bound: its bytes, its time, its depth, its nodes.

mod charset;
mod main_text;
mod robots;
mod site;

use std::sync::Arc;
use std::time::Duration;

use hypereyes_chassis::Reach;
use hypereyes_chassis::backoff::{Backoff, BackoffConfig};
use hypereyes_environment::{Fault, Hit, Query};
use reqwest::Url;
use tokio::time::{Instant, sleep_until, timeout_at};

use self::main_text::Read;
use self::site::{Got, Net};
use crate::asked::{AskFuture, Asked, BackEnd, Key};
use crate::budget::Budget;
use crate::config::BackEndConfig;
use crate::http::call::Miss;
use crate::metrics::{ATTEMPTS, FETCHED, PAGES_CUT};
use crate::rate::Rate;

/// What settings call it.
pub const NAME: &str = "fetch";
/// Characters of a page that are kept; a policy is shown fewer (`rollout.env.max_hit_chars`).
const MOST_TEXT: usize = 100_000;
/// Most times that one is sent on.
const REDIRECTS: usize = 5;
/// Letters of an address.
const MOST_ADDRESS: usize = 2000;

/// Pages as a back end.
pub struct Pages {
    net: Net,
    rate: Arc<Rate>,
    budget: Arc<Budget>,
    attempts: u32,
    attempt: Duration,
}

impl Pages {
    /// As settings say that were checked.
    ///
    /// # Errors
    /// A sentence that begins with a key of [`BackEndConfig`].
    pub fn open(config: &BackEndConfig, rate: Arc<Rate>, budget: Arc<Budget>) -> Result<Box<dyn BackEnd>, String> {
        let (said, mut agent) = (config.said(), "hypereyes/0.1".to_owned());
        let mut named = vec![];
        for (name, value) in &said {
            match name.as_str() {
                "user_agent" => agent.clone_from(value),
                _ => named.push(value.as_str()),
            }
        }
        let reach = Reach::public_and(named).map_err(|why| format!("parameters: allow: {why}"))?;
        let net = Net::new(reach, &agent).map_err(|why| format!("parameters: user_agent: {why}"))?;
        let attempt = Duration::from_secs_f64(config.attempt_s);
        Ok(Box::new(Self { net, rate, budget, attempts: config.attempts.max(1), attempt }))
    }

    /// A page, asked for until it is there, can not be, or nobody waits any more.
    async fn page(&self, address: &str, until: Instant) -> Result<Vec<Hit>, Miss> {
        let url = parsed(address)?;
        let mut backoff = Backoff::new(&BackoffConfig { first_ms: 500, max_ms: 10_000, ..BackoffConfig::default() });
        let mut failures = 0;
        loop {
            if !self.rate.until_free(until).await {
                self.count("not_asked");
                return Err((Fault::RateLimited, "its turn would come after the search's deadline (per_second)".to_owned()));
            }
            if let Err(miss) = self.budget.take(NAME, 0.0).await {
                self.count("budget");
                return Err(miss);
            }
            let late = || Failed::new(Fault::Timeout, format!("no whole page within {:.1} s (attempt_s)", self.attempt.as_secs_f64()));
            let fetched = timeout_at(until.min(Instant::now() + self.attempt), self.visit(url.clone())).await;
            let Failed { fault, why, pause } = match fetched.unwrap_or_else(|_| Err(late())) {
                Ok(hits) => {
                    self.count("ok");
                    metrics::counter!(FETCHED, "outcome" => if hits.is_empty() { "none" } else { "ok" }).increment(1);
                    return Ok(hits);
                }
                Err(failed) => failed,
            };
            self.count(fault.label());
            metrics::counter!(FETCHED, "outcome" => fault.label()).increment(1);
            failures += 1;
            let next = Instant::now() + pause.unwrap_or_default().max(backoff.next_delay());
            let passes = matches!(fault, Fault::RateLimited | Fault::Unavailable | Fault::Timeout);
            if !passes || failures >= self.attempts || next >= until {
                return Err((fault, why));
            }
            sleep_until(next).await;
        }
    }

    /// Fetches a page once, wherever it sends one on.
    async fn visit(&self, mut url: Url) -> Result<Vec<Hit>, Failed> {
        for _ in 0..=REDIRECTS {
            self.net.allows(&url).await?;
            match self.net.get(&url).await? {
                Got::Moved(next) => url = next,
                Got::Nothing => return Ok(vec![]),
                Got::Page { kind, bytes } => return read(url, kind, bytes).await,
            }
        }
        Err(Failed::new(Fault::Refused, format!("it sends us on more than {REDIRECTS} times")))
    }

    fn count(&self, outcome: &'static str) {
        metrics::counter!(ATTEMPTS, "service" => NAME, "outcome" => outcome).increment(1);
    }
}

/// Why there is no page.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Failed {
    /// In which way.
    fault: Fault,
    /// What happened.
    why: String,
    /// The pause that the site asks for.
    pause: Option<Duration>,
}

impl Failed {
    fn new(fault: Fault, why: impl Into<String>) -> Self {
        Self { fault, why: why.into(), pause: None }
    }
}

/// The address of a page; what is none is the policy's mistake, and asked of nobody.
fn parsed(address: &str) -> Result<Url, Miss> {
    let refused = |why: &str| (Fault::Refused, format!("{why}: a page is named by its http or https address"));
    if address.len() > MOST_ADDRESS {
        return Err(refused("the address is too long"));
    }
    let mut url = Url::parse(address).map_err(|_| refused("it is no address"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(refused("it is no address of the net"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refused("it holds a password"));
    }
    url.set_fragment(None);
    Ok(url)
}

/// The hit of a page. It is taken apart on a thread of its own.
async fn read(url: Url, kind: Option<String>, bytes: Vec<u8>) -> Result<Vec<Hit>, Failed> {
    let taken = tokio::task::spawn_blocking(move || {
        let read = main_text::of(kind.as_deref(), &bytes, &url)?;
        Ok::<_, Failed>((url, read))
    });
    let (url, read) = taken.await.unwrap_or_else(|died| Err(Failed::new(Fault::Refused, format!("the page cannot be read: {died}"))))?;
    let Read { title, text, site, date, is_cut } = read;
    let end = text.char_indices().nth(MOST_TEXT).map(|(end, _)| end);
    if is_cut || end.is_some() {
        metrics::counter!(PAGES_CUT).increment(1);
    }
    let content = text[..end.unwrap_or(text.len())].to_owned();
    if content.is_empty() && title.is_empty() {
        return Ok(vec![]);
    }
    let source = site.or_else(|| url.host_str().map(str::to_owned));
    Ok(vec![Hit { title, content, url: Some(url.into()), source, date, ..Hit::default() }])
}

impl BackEnd for Pages {
    fn name(&self) -> &'static str {
        NAME
    }

    fn can(&self, query: &Query) -> bool {
        matches!(query, Query::Page(_))
    }

    /// Page by page: each is kept and told when it is there.
    fn most(&self) -> usize {
        1
    }

    fn key(&self, _layer: u64, query: &Query) -> Key {
        let Query::Page(address) = query else { unreachable!("it reads pages alone") };
        // As it is fetched: what follows a # is no other page.
        let address = parsed(address.trim()).map_or_else(|_| address.trim().to_owned(), String::from);
        Key { service: NAME.to_owned(), endpoint: String::new(), parameters: serde_json::json!({ "page": address }).to_string() }
    }

    fn ask<'a>(&'a self, Asked { queries, until, .. }: Asked<'a>) -> AskFuture<'a> {
        Box::pin(async move {
            let one = async |query: &'a Query| {
                let Query::Page(address) = query else { return Err(query.failed(Fault::Refused, "it reads pages alone")) };
                let page = timeout_at(until, self.page(address.trim(), until)).await;
                let late = || Err((Fault::Timeout, "no page before the search's deadline (search.deadline_s)".to_owned()));
                page.unwrap_or_else(|_| late()).map_err(|(fault, why)| query.failed(fault, format!("{NAME}: {why}")))
            };
            futures::future::join_all(queries.iter().map(one)).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_address_of_a_page_is_refused() {
        for bad in
            ["Mexico", "", "ftp://x/", "file:///etc/passwd", "data:text/html,x", "http://a:b@x/", &format!("http://x/{}", "a".repeat(3000))]
        {
            assert_eq!(parsed(bad).expect_err(bad).0, Fault::Refused);
        }
        assert_eq!(parsed("https://x/a?b=c#d").expect("a page").as_str(), "https://x/a?b=c");
        assert_eq!(parsed("http://2130706433/").expect("an address").host_str(), Some("127.0.0.1"), "it is what it is");
    }
}
