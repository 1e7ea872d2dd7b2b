//! Pictures at addresses that rows of strangers name. In: an address. Out: its bytes, of a bounded number and within a bounded time, or why
//! not. What a name means is looked up and checked here, and that very address is connected to; redirects are followed in the same way.

use std::time::Duration;

use anyhow::{Context, Result};
use hypereyes_chassis::{BadInput, Reach};
use reqwest::header::LOCATION;
use reqwest::redirect::Policy;
use reqwest::{Client, Response, Url};
use tokio::runtime::Runtime;

/// Longest wait for a picture, redirects included.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// Times that one is sent on at most.
const REDIRECTS: usize = 5;
/// What sites are told of who asks; some have nothing for who does not say.
const AGENT: &str = concat!("hypereyes/", env!("CARGO_PKG_VERSION"));
/// Times that a picture is asked for.
const TRIES: u32 = 3;

/// Gets pictures, one at a time.
pub struct Fetcher {
    reach: Reach,
    runtime: Runtime,
}

/// Why there is no picture.
struct Miss {
    why: String,
    /// Whether it may be there in a moment.
    passing: bool,
}

impl Miss {
    fn lasting(why: impl Into<String>) -> Self {
        Self { why: why.into(), passing: false }
    }
}

impl Fetcher {
    /// From public addresses and `hosts`.
    ///
    /// # Errors
    /// [`BadInput`] for a host that is none.
    pub fn new(hosts: &[String]) -> Result<Self> {
        let reach = Reach::public_and(hosts).map_err(|why| BadInput::new(format!("--fetch-host: {why}")))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the network's thread")?;
        Ok(Self { reach, runtime })
    }

    /// The bytes at an address, at most `most`.
    ///
    /// # Errors
    /// Why there are none.
    pub fn get(&self, address: &str, most: usize) -> Result<Vec<u8>, String> {
        self.runtime.block_on(async {
            let mut tries = 1;
            loop {
                let got = tokio::time::timeout(PATIENCE, self.follow(address, most)).await;
                let got = got.unwrap_or_else(|_| Err(Miss { why: format!("it does not come within {PATIENCE:?}"), passing: true }));
                match got {
                    Err(miss) if miss.passing && tries < TRIES => tokio::time::sleep(Duration::from_secs(1) * tries).await,
                    got => return got.map_err(|miss| miss.why),
                }
                tries += 1;
            }
        })
    }

    async fn follow(&self, address: &str, most: usize) -> Result<Vec<u8>, Miss> {
        let mut url = Url::parse(address).map_err(|error| Miss::lasting(format!("{address:?} is no address: {error}")))?;
        for _ in 0..=REDIRECTS {
            let response = self.ask(&url).await?;
            let status = response.status();
            if status.is_redirection() {
                let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok()).and_then(|to| url.join(to).ok());
                url = to.ok_or_else(|| Miss::lasting("it is elsewhere, and nobody says where"))?;
            } else if status.is_success() {
                return body(response, most).await;
            } else {
                return Err(Miss { why: format!("HTTP {status}"), passing: status.is_server_error() || status.as_u16() == 429 });
            }
        }
        Err(Miss::lasting(format!("it is sent on more than {REDIRECTS} times")))
    }

    async fn ask(&self, url: &Url) -> Result<Response, Miss> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Miss::lasting(format!("{url} is no http(s) address")));
        }
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return Err(Miss::lasting(format!("{url} names no host")));
        };
        let found = self.reach.resolve(host.trim_matches(['[', ']']), port).await;
        let found = found.map_err(|error| Miss { passing: error.kind() == std::io::ErrorKind::TimedOut, why: error.to_string() })?;
        let client = Client::builder().no_proxy().redirect(Policy::none()).connect_timeout(CONNECT).user_agent(AGENT);
        let client = client.resolve_to_addrs(host, &found).build().map_err(|error| Miss::lasting(error.to_string()))?;
        client.get(url.clone()).send().await.map_err(|error| Miss { why: error.without_url().to_string(), passing: true })
    }
}

async fn body(mut response: Response, most: usize) -> Result<Vec<u8>, Miss> {
    let mut bytes = Vec::new();
    while let Some(part) = response.chunk().await.map_err(|error| Miss { why: error.without_url().to_string(), passing: true })? {
        if bytes.len() + part.len() > most {
            return Err(Miss::lasting(format!("it has more than {most} bytes")));
        }
        bytes.extend_from_slice(&part);
    }
    Ok(bytes)
}
