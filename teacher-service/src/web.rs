//! HTTP clients for object stores that go where they may. In: where a source is and what the settings allow. Out: a client that
//! connects to the addresses that were looked at, and follows nobody elsewhere.

use std::sync::Arc;

use hypereyes_chassis::Reach;
use hypereyes_engines::http::{admit, build, place, resolve};
use object_store::client::{HttpClient, HttpConnector};
use object_store::{ClientConfigKey, ClientOptions};
use reqwest::dns::{Name, Resolve, Resolving};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Client, Url};

use crate::access::Access;
use crate::source::Source;

/// Most times that one is sent on.
const REDIRECTS: usize = 5;

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
        admit(url, &reach)?;
        let (start, access) = (url.clone(), self.access.clone());
        let follow = move |attempt: Attempt| follow(&start, &access, attempt);
        let resolver = Looking { own: of(url, reach), access: self.access.clone() };
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
    let named = access.redirects_to(&url) && admit(&url, &access.redirected()).is_ok();
    if previous > REDIRECTS || down || !url.username().is_empty() || url.password().is_some() || !(within || named) {
        let to = url.host_str().unwrap_or_default().to_owned();
        return attempt.error(format!("it sends us on to {to:?}, which the setting `redirects` does not allow"));
    }
    attempt.follow()
}

/// A host, its port, and what of it may be reached.
fn of(url: &Url, reach: Reach) -> (String, u16, Reach) {
    let (host, port) = place(url);
    (host, port, reach)
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
