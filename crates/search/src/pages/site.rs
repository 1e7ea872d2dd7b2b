//! One request for one address, within bounds. In: an address. Out: a page, where to go on, or why there is none.
//!
//! What a name means is looked up here, every address is checked, and these very addresses are what is connected to: a name that means
//! another address a moment later does not matter. Nothing is followed and nothing is unpacked on the way.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use hypereyes_chassis::Reach;
use hypereyes_environment::Fault;
use lru::LruCache;
use parking_lot::Mutex;
use reqwest::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Client, Response, Url};
use tokio::sync::{Mutex as Turn, Semaphore};
use tokio::time::{Instant, timeout};

use super::robots::Robots;
use super::{Failed, REDIRECTS};
use crate::http::send::{chain, pause};

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Bytes of a page.
const MOST_BYTES: usize = 8 << 20;
/// Bytes of a robots.txt; of a larger one the beginning counts.
const MOST_ROBOTS: usize = 512 << 10;
/// Longest wait for a robots.txt.
const ROBOTS: Duration = Duration::from_secs(10);
/// How long a robots.txt counts, and how long that none could be read.
const ROBOTS_COUNT: Duration = Duration::from_secs(3600);
const ROBOTS_MISSED: Duration = Duration::from_secs(60);
/// Sites that are remembered.
const SITES: NonZeroUsize = NonZeroUsize::new(4096).expect("some");
/// Pages of one site that are fetched at the same moment.
const AT_ONCE: usize = 2;
/// Ports below this that pages are served at; the others speak something else.
const PRIVILEGED: u16 = 1024;
const OF_PAGES: [u16; 2] = [80, 443];

/// What came of a request.
pub(super) enum Got {
    /// A page: its type as HTTP has it, its bytes.
    Page {
        /// The header.
        kind: Option<String>,
        /// As they came.
        bytes: Vec<u8>,
    },
    /// It is elsewhere.
    Moved(Url),
    /// There is no such page.
    Nothing,
}

/// A site's robots.txt, or why there is none, and since when that is known.
type Known = (Instant, Result<Arc<Robots>, Failed>);

/// A site, as far as it is remembered.
struct Site {
    /// Whoever looks for its robots.txt keeps the others waiting for it.
    robots: Turn<Option<Known>>,
    places: Semaphore,
}

/// The net, as far as it is reached.
pub(super) struct Net {
    reach: Reach,
    agent: HeaderValue,
    /// What robots.txt knows us by.
    product: String,
    sites: Mutex<LruCache<String, Arc<Site>>>,
}

impl Net {
    /// Public addresses and what is named, asked under a name.
    ///
    /// # Errors
    /// What is wrong with the name.
    pub(super) fn new(reach: Reach, agent: &str) -> Result<Self, String> {
        let product: String = agent.chars().take_while(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_')).collect();
        let header = HeaderValue::from_str(agent).ok().filter(|_| !product.is_empty());
        let agent = header.ok_or("write name/version, as HTTP has it")?;
        Ok(Self { reach, agent, product, sites: Mutex::new(LruCache::new(SITES)) })
    }

    fn site(&self, url: &Url) -> Arc<Site> {
        let new = || Arc::new(Site { robots: Turn::default(), places: Semaphore::new(AT_ONCE) });
        self.sites.lock().get_or_insert(url.origin().ascii_serialization(), new).clone()
    }

    /// Whether a site lets us have a page.
    pub(super) async fn allows(&self, url: &Url) -> Result<(), Failed> {
        let site = self.site(url);
        let mut known = site.robots.lock().await;
        let is_fresh = |(at, robots): &(Instant, Result<_, _>)| at.elapsed() < if robots.is_ok() { ROBOTS_COUNT } else { ROBOTS_MISSED };
        let (at, robots) = match known.as_ref().filter(|known| is_fresh(known)) {
            Some(known) => known.clone(),
            None => {
                let late = |_| Err(Failed::new(Fault::Timeout, "its robots.txt does not come"));
                let robots = timeout(ROBOTS, self.robots(url)).await.unwrap_or_else(late);
                known.insert((Instant::now(), robots)).clone()
            }
        };
        // Nobody is asked before it is forgotten.
        let robots = robots.map_err(|failed| Failed { pause: Some(ROBOTS_MISSED.saturating_sub(at.elapsed())), ..failed })?;
        let path = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
        if robots.allows(&path) { Ok(()) } else { Err(Failed::new(Fault::Refused, "its robots.txt does not let programs have this page")) }
    }

    /// The robots.txt of a site. One that is missing forbids nothing; one that cannot be had forbids everything for a while.
    async fn robots(&self, of: &Url) -> Result<Arc<Robots>, Failed> {
        let mut url = of.join("/robots.txt").map_err(|error| Failed::new(Fault::Refused, error.to_string()))?;
        for _ in 0..=REDIRECTS {
            let mut response = self.send(&url, "text/plain, */*;q=0.1").await?;
            match response.status().as_u16() {
                200..=299 => {
                    let bytes = match body(&mut response, MOST_ROBOTS).await? {
                        Body::Whole(bytes) | Body::Begun(bytes) => bytes,
                    };
                    return Ok(Arc::new(Robots::of(&String::from_utf8_lossy(&bytes), &self.product)));
                }
                300..=399 => url = moved(&url, &response)?,
                400..=499 => return Ok(Arc::default()),
                status => return Err(Failed::new(Fault::Unavailable, format!("its robots.txt cannot be had: HTTP {status}"))),
            }
        }
        Ok(Arc::default())
    }

    /// Asks for a page.
    pub(super) async fn get(&self, url: &Url) -> Result<Got, Failed> {
        let site = self.site(url);
        let _place = site.places.acquire().await.expect("it is never closed");
        let mut response = self.send(url, "text/html, application/xhtml+xml, text/plain;q=0.9, text/*;q=0.8").await?;
        let status = response.status().as_u16();
        let said = |fault| Failed { pause: waits(&response), ..Failed::new(fault, format!("HTTP {status}")) };
        match status {
            200..=299 => {}
            300..=399 => return moved(url, &response).map(Got::Moved),
            404 | 410 => return Ok(Got::Nothing),
            408 | 504 => return Err(said(Fault::Timeout)),
            429 => return Err(said(Fault::RateLimited)),
            400..=499 => return Err(said(Fault::Refused)),
            _ => return Err(said(Fault::Unavailable)),
        }
        let header = |name| response.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let kind = header(CONTENT_TYPE).map(str::to_owned);
        super::main_text::check(kind.as_deref())?;
        if header(CONTENT_ENCODING).is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
            return Err(Failed::new(Fault::Refused, "the page is compressed, which was not asked for"));
        }
        let too_large = || Failed::new(Fault::Refused, format!("the page has more than {MOST_BYTES} bytes"));
        if response.content_length().is_some_and(|length| length > MOST_BYTES as u64) {
            return Err(too_large());
        }
        match body(&mut response, MOST_BYTES).await? {
            Body::Whole(bytes) => Ok(Got::Page { kind, bytes }),
            Body::Begun(_) => Err(too_large()),
        }
    }

    /// Sends one request to one of the addresses that were looked at.
    async fn send(&self, url: &Url, accept: &'static str) -> Result<Response, Failed> {
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = url.port_or_known_default().unwrap_or(0);
        if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some() {
            return Err(Failed::new(Fault::Refused, "it leads to what is no page"));
        }
        if port < PRIVILEGED && !OF_PAGES.contains(&port) {
            return Err(Failed::new(Fault::Refused, format!("it leads to port {port}, where no pages are")));
        }
        let addresses: Vec<SocketAddr> = self.reach.resolve(&host, port).await.map_err(|error| match error.kind() {
            std::io::ErrorKind::PermissionDenied => {
                Failed::new(Fault::Refused, format!("{host:?} leads to an address that is not public (parameters: allow={host})"))
            }
            _ => Failed::new(Fault::Unavailable, format!("{host:?} means no address: {error}")),
        })?;
        let builder = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).connect_timeout(CONNECT);
        let client = builder.user_agent(self.agent.clone()).resolve_to_addrs(&host, &addresses).build();
        let client = client.map_err(|error| Failed::new(Fault::Unavailable, format!("no HTTP client: {error}")))?;
        let sent = client.get(url.clone()).header(ACCEPT, accept).header("accept-encoding", "identity").send().await;
        sent.map_err(|error| Failed::new(Fault::Unavailable, format!("cannot be asked: {}", chain(&error.without_url()))))
    }
}

/// Where a reply sends one on.
fn moved(from: &Url, response: &Response) -> Result<Url, Failed> {
    let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok()).and_then(|to| from.join(to).ok());
    let mut to =
        to.ok_or_else(|| Failed::new(Fault::Unavailable, format!("HTTP {}, and it does not say where to", response.status().as_u16())))?;
    if from.scheme() == "https" && to.scheme() != "https" {
        return Err(Failed::new(Fault::Refused, "it sends us on from https to what is none"));
    }
    to.set_fragment(None);
    Ok(to)
}

/// The pause that a reply asks for.
fn waits(response: &Response) -> Option<Duration> {
    response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).and_then(pause)
}

/// Bytes of a reply.
enum Body {
    /// All.
    Whole(Vec<u8>),
    /// As many as are read.
    Begun(Vec<u8>),
}

async fn body(response: &mut Response, most: usize) -> Result<Body, Failed> {
    let mut bytes = vec![];
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                let takes = chunk.len().min(most - bytes.len());
                bytes.extend_from_slice(&chunk[..takes]);
                if takes < chunk.len() {
                    return Ok(Body::Begun(bytes));
                }
            }
            Ok(None) => return Ok(Body::Whole(bytes)),
            Err(error) => return Err(Failed::new(Fault::Unavailable, format!("it breaks off: {}", chain(&error.without_url())))),
        }
    }
}
