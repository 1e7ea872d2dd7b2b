//! Clients that connect when first used, and again whenever the connection is gone.
//!
//! In: an address (`host:port`, or a URL: `https://` over mutual TLS, `http://` in plaintext) and how to speak. Out: tonic
//! clients with message limits, a connect timeout and keepalive, so that a peer that vanished is noticed. They do not retry:
//! the caller knows its deadline.

use std::time::Duration;

use hypereyes_chassis::{Reach, Security};
use tonic::codegen::http::Uri;
use tonic::transport::Endpoint;

use crate::limits::MAX_MESSAGE_BYTES;
use crate::v1;
use crate::wire::PeerChannel;

/// A learner client on a lazily opened channel.
pub type LearnerClient = v1::learner_client::LearnerClient<PeerChannel>;
/// A reward client on a lazily opened channel.
pub type RewardClient = v1::reward_client::RewardClient<PeerChannel>;
/// A teacher client on a lazily opened channel.
pub type TeacherClient = v1::teacher_client::TeacherClient<PeerChannel>;

/// How channels are opened and kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClientConfig {
    /// How long one attempt to connect may take. Default 5 s: far above any network that training runs on.
    pub connect_timeout: Duration,
    /// Longest wait for the head of any reply. Default 600 s: a bound of last resort, above the slowest honest call.
    pub request_timeout: Duration,
    /// Pause between pings on a silent connection. Default 10 s.
    pub keepalive: Duration,
    /// How long a ping may stay unanswered before the connection counts as gone. Default 20 s.
    pub keepalive_timeout: Duration,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(600),
            keepalive: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(20),
        }
    }
}

/// An address that no client can be made from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{address:?} is not an address of a service ({reason}): write host:port or {scheme}host:port")]
pub struct BadAddress {
    /// What was given.
    pub address: String,
    /// What is wrong with it.
    pub reason: String,
    /// How URLs begin here.
    pub scheme: &'static str,
}

/// Makes clients that all speak the same way. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Clients {
    security: Security,
    reach: Reach,
    config: ClientConfig,
}

/// Makes clients that speak as `security` says.
pub fn secure(security: &Security) -> Clients {
    Clients { security: security.clone(), reach: Reach::anywhere(), config: ClientConfig::default() }
}

/// Whether a client could be made from an address; nothing is opened.
///
/// # Errors
/// As [`Clients::channel`].
pub fn check_address(address: &str, mutual: bool) -> Result<(), BadAddress> {
    parse(address, mutual).map(drop)
}

/// Where to connect, and what the peer is called.
fn parse(address: &str, mutual: bool) -> Result<(Endpoint, Uri), BadAddress> {
    let scheme = if mutual { "https://" } else { "http://" };
    let bad = |reason: String| BadAddress { address: address.to_owned(), reason, scheme };
    let host = match address.split_once("://") {
        None => address,
        Some(_) => address
            .strip_prefix(scheme)
            .ok_or_else(|| bad(format!("only {scheme} is spoken {} tls settings", if mutual { "with" } else { "without" })))?,
    };
    // What stands before an @ may be a password, which must not be quoted.
    if host.contains('@') {
        let address = format!("...{}", &host[host.rfind('@').unwrap_or(0)..]);
        return Err(BadAddress { address, reason: "nobody logs in with a name here".into(), scheme });
    }
    // The connector does what TLS there is, so that to the channel every connection is a plain one.
    let endpoint = Endpoint::from_shared(format!("http://{host}")).map_err(|error| bad(error.to_string()))?;
    if endpoint.uri().host().is_none_or(str::is_empty) || endpoint.uri().port_u16().is_none_or(|port| port == 0) {
        return Err(bad("a host and a port above 0 are needed".into()));
    }
    let origin: Uri = format!("{scheme}{host}").parse().map_err(|error| bad(format!("{error}")))?;
    Ok((endpoint, origin))
}

impl Clients {
    /// The same with other timeouts.
    #[must_use]
    pub fn with(self, config: ClientConfig) -> Self {
        Self { config, ..self }
    }

    /// The same for addresses that somebody else named: only what is within `reach` is connected to.
    #[must_use]
    pub fn within(self, reach: Reach) -> Self {
        Self { reach, ..self }
    }

    /// A channel to `address` that connects when first used. Over TLS the server's certificate must be valid for the host in
    /// the address, name or IP. Must be called inside a tokio runtime.
    pub fn channel(&self, address: &str) -> Result<PeerChannel, BadAddress> {
        let (endpoint, origin) = parse(address, self.security.is_mutual())?;
        let endpoint = endpoint
            .origin(origin)
            .connect_timeout(self.config.connect_timeout)
            .timeout(self.config.request_timeout)
            .http2_keep_alive_interval(self.config.keepalive)
            .keep_alive_timeout(self.config.keepalive_timeout)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(8 << 20);
        Ok(endpoint.connect_with_connector_lazy(self.security.dial_within(self.reach.clone())).into())
    }

    /// A client of the learner. Must be called inside a tokio runtime.
    pub fn learner(&self, address: &str) -> Result<LearnerClient, BadAddress> {
        let client = LearnerClient::new(self.channel(address)?);
        Ok(client.max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES))
    }

    /// A client of the reward service. Must be called inside a tokio runtime.
    pub fn reward(&self, address: &str) -> Result<RewardClient, BadAddress> {
        let client = RewardClient::new(self.channel(address)?);
        Ok(client.max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES))
    }

    /// A client of the teacher service. Must be called inside a tokio runtime.
    pub fn teacher(&self, address: &str) -> Result<TeacherClient, BadAddress> {
        let client = TeacherClient::new(self.channel(address)?);
        Ok(client.max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES))
    }
}

/// A channel in plaintext to `address` that connects when first used. Must be called inside a tokio runtime.
pub fn channel(address: &str, config: &ClientConfig) -> Result<PeerChannel, BadAddress> {
    Clients::default().with(*config).channel(address)
}

/// A client of the learner, in plaintext. Must be called inside a tokio runtime.
pub fn learner(address: &str) -> Result<LearnerClient, BadAddress> {
    Clients::default().learner(address)
}

/// A client of the reward service, in plaintext. Must be called inside a tokio runtime.
pub fn reward(address: &str) -> Result<RewardClient, BadAddress> {
    Clients::default().reward(address)
}

/// A client of the teacher service, in plaintext. Must be called inside a tokio runtime.
pub fn teacher(address: &str) -> Result<TeacherClient, BadAddress> {
    Clients::default().teacher(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_are_checked_before_anything_is_sent() {
        assert!(learner("127.0.0.1:7000").is_ok());
        assert!(reward("http://learner-0.learner.rl.svc:7000").is_ok());
        assert!(teacher("[::1]:7000").is_ok());
        for bad in ["", "localhost", "https://x:1", "unix:///tmp/x", "127.0.0.1:0", "a b:1"] {
            let error = learner(bad).expect_err(bad);
            assert!(error.to_string().contains("host:port"), "{error}");
        }
    }

    #[tokio::test]
    async fn nobody_at_home_is_an_error_of_the_call_not_of_the_constructor() {
        let mut client = learner("127.0.0.1:1").expect("the address is well formed");
        let status = client.status(v1::StatusRequest {}).await.expect_err("nobody listens on port 1");
        assert_eq!(crate::failure::from_status(&status).0, hypereyes_domain::Failure::Infrastructure);
    }
}
