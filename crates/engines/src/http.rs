//! HTTP clients that go where they may. In: an address and what may be reached. Out: a client that connects to the addresses that were
//! looked at, and follows nobody elsewhere.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hypereyes_chassis::Reach;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Url};

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// A client for one address and no other: no proxy, no redirect, and connections only to what was looked at.
///
/// # Errors
/// A text that says what is wrong.
pub fn client(url: &Url, reach: &Reach) -> Result<Client, String> {
    admit(url, reach)?;
    let (host, port) = place(url);
    let resolver = Looked { own: (host, port, reach.clone()) };
    build(Client::builder().no_proxy().redirect(Policy::none()).dns_resolver(Arc::new(resolver)))
}

/// Whether the host of an address may be reached, as far as can be told without resolving it: one that is an address itself never is.
///
/// # Errors
/// A text that names the host.
pub fn admit(url: &Url, reach: &Reach) -> Result<(), String> {
    let (host, port) = place(url);
    reach.admit(&host, port, &[]).map_err(|error| error.to_string())
}

/// Host and port of an address.
pub fn place(url: &Url) -> (String, u16) {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    (host, url.port_or_known_default().unwrap_or(0))
}

/// Makes a client with the deadline for connections that all have.
///
/// # Errors
/// A text that says what is wrong.
pub fn build(builder: ClientBuilder) -> Result<Client, String> {
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

/// Resolves a name to what may be reached of it; `found` is the host, port and reach that it stands for, if it stands for any.
pub fn resolve(found: Option<(String, u16, Reach)>, name: Name) -> Resolving {
    Box::pin(async move {
        let (host, port, reach) = found.ok_or_else(|| format!("{:?} is not a host of this source", name.as_str()))?;
        let addresses: Vec<SocketAddr> = reach.resolve(&host, port).await?;
        // The port of the address is what is connected to, whatever port a resolver names.
        Ok(Box::new(addresses.into_iter().map(|address| SocketAddr::new(address.ip(), 0))) as Addrs)
    })
}
