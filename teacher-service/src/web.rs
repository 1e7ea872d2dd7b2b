//! HTTP clients that go where they may. In: where a source is and what the settings allow. Out: a client that connects to the
//! addresses that were looked at, and follows nobody elsewhere.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hypereyes_chassis::Reach;
use object_store::client::{HttpClient, HttpConnector};
use object_store::{ClientConfigKey, ClientOptions};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Client, ClientBuilder, Url};

use crate::access::Access;
use crate::source::Source;

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Most times that one is sent on.
const REDIRECTS: usize = 5;

/// A client for one address of a source and no other: no proxy, no redirect, and connections only to what was looked at.
///
/// # Errors
/// A text that says what is wrong.
pub fn client(url: &Url, reach: &Reach) -> Result<Client, String> {
    literal(url, reach)?;
    let resolver = Looked { own: (host(url), port(url), reach.clone()) };
    build(Client::builder().no_proxy().redirect(Policy::none()).dns_resolver(Arc::new(resolver)))
}

/// What brings the files of a model from an object store.
#[derive(Debug)]
pub struct Stores {
    source: Source,
    access: Arc<Access>,
}

impl Stores {
    /// For a source, within what the settings allow.
    ///
    /// # Errors
    /// A text that says why it may not be reached.
    pub fn new(source: &Source, access: &Arc<Access>) -> Result<Self, String> {
        let stores = Self { source: source.clone(), access: access.clone() };
        stores.client(true)?;
        Ok(stores)
    }

    fn client(&self, plaintext: bool) -> Result<Client, String> {
        let Source::Store(url) = &self.source else { return Err("it is no object store".into()) };
        if !matches!(url.scheme(), "http" | "https") {
            // The host is the provider's, or the environment's; requests carry credentials, so that they go nowhere else.
            return build(Client::builder().redirect(Policy::none()).https_only(!plaintext));
        }
        let reach = self.access.reach(&self.source);
        literal(url, &reach)?;
        let (start, access) = (url.clone(), self.access.clone());
        let follow = move |attempt: Attempt| follow(&start, &access, attempt);
        let resolver = Looking { own: (host(url), port(url), reach), access: self.access.clone() };
        let builder = Client::builder().no_proxy().redirect(Policy::custom(follow)).dns_resolver(Arc::new(resolver));
        build(builder.https_only(url.scheme() == "https"))
    }
}

impl HttpConnector for Stores {
    /// Of the library's own options one matters: whether plaintext is allowed. Every part of a file has its deadline elsewhere.
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let failed = |error: String| object_store::Error::Generic { store: "HTTP", source: error.into() };
        let plaintext = options.get_config_value(&ClientConfigKey::AllowHttp).is_some_and(|value| value == "true");
        Ok(HttpClient::new(self.client(plaintext).map_err(failed)?))
    }
}

/// Whether to go on where a store points to: within itself, or to where the settings allow, and never from `https` to `http`.
fn follow(start: &Url, access: &Access, attempt: Attempt) -> reqwest::redirect::Action {
    let (url, previous) = (attempt.url().clone(), attempt.previous().len());
    let within = url.origin() == start.origin();
    let down = start.scheme() == "https" && url.scheme() != "https";
    let named = access.redirects_to(&url) && literal(&url, &access.redirected()).is_ok();
    if previous > REDIRECTS || down || !url.username().is_empty() || url.password().is_some() || !(within || named) {
        let to = url.host_str().unwrap_or_default().to_owned();
        return attempt.error(format!("it sends us on to {to:?}, which the setting `redirects` does not allow"));
    }
    attempt.follow()
}

/// A host that is an address itself is never resolved; whether it may be reached is asked here.
fn literal(url: &Url, reach: &Reach) -> Result<(), String> {
    reach.admit(&host(url), port(url), &[]).map_err(|error| error.to_string())
}

/// Host and port of an address.
pub fn place(url: &Url) -> (String, u16) {
    (host(url), port(url))
}

fn host(url: &Url) -> String {
    url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned()
}

fn port(url: &Url) -> u16 {
    url.port_or_known_default().unwrap_or(0)
}

fn build(builder: ClientBuilder) -> Result<Client, String> {
    builder.connect_timeout(CONNECT).build().map_err(|error| format!("no HTTP client: {error}"))
}

/// Resolves one name, and no other.
struct Looked {
    own: (String, u16, Reach),
}

impl Resolve for Looked {
    fn resolve(&self, name: Name) -> Resolving {
        resolve(self.own.0.eq_ignore_ascii_case(name.as_str()).then(|| self.own.clone()), name)
    }
}

/// Resolves a store's own name, and those that it may send one on to.
struct Looking {
    own: (String, u16, Reach),
    access: Arc<Access>,
}

impl Resolve for Looking {
    fn resolve(&self, name: Name) -> Resolving {
        let own = self.own.0.eq_ignore_ascii_case(name.as_str()).then(|| self.own.clone());
        let on = || self.access.redirect_port(name.as_str()).map(|port| (name.as_str().to_owned(), port, self.access.redirected()));
        resolve(own.or_else(on), name)
    }
}

fn resolve(found: Option<(String, u16, Reach)>, name: Name) -> Resolving {
    Box::pin(async move {
        let (host, port, reach) = found.ok_or_else(|| format!("{:?} is not a host of this source", name.as_str()))?;
        let addresses: Vec<SocketAddr> = reach.resolve(&host, port).await?;
        // The port of the address is what is connected to, whatever port a resolver names.
        Ok(Box::new(addresses.into_iter().map(|address| SocketAddr::new(address.ip(), 0))) as Addrs)
    })
}
