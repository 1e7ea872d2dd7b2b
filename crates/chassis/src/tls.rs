//! Mutual TLS: who serves and who calls prove who they are with certificates of one authority.
//!
//! In: three files, which may be replaced at any moment. Out: [`Security`], which servers and clients are given. New
//! connections take what the files hold now; connections that are open go on. Files that cannot be used change nothing,
//! except at the start, where they are [`BadInput`].
//!
//! Certificates are checked in full at every connection: nothing is resumed, so that an authority that is no longer trusted
//! is believed by nobody who connects.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock, Weak};
use std::time::Duration;

use ::metrics::counter;
use serde::{Deserialize, Serialize};

use crate::metrics::TLS_RELOADS;
use crate::{BadInput, Findings};

mod dial;
mod files;
mod identity;
mod link;
mod refusal;

pub use dial::Dial;
pub use identity::Identity;
pub use link::{Link, Peer};

pub(crate) use refusal::Refusals;

use files::{Contents, Material};

/// Pause between looks at the files. Certificates live for hours at least, and looking costs three small reads.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Where the certificate of a process lies. All files are PEM, and are read again when they change.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// The process's certificate, followed by those between it and the authority. No default.
    pub certificate: PathBuf,
    /// Its private key. No default.
    pub key: PathBuf,
    /// Certificates of those who may sign a peer's certificate. No default: the system's are not trusted.
    pub authority: PathBuf,
}

impl TlsConfig {
    /// What is wrong with the files, as far as can be known before anybody connects.
    pub fn findings(&self) -> Findings {
        let mut found = Findings::default();
        if let Err(reason) = Contents::read(self).material(self) {
            found.refuse("", format!("cannot be used: {reason}"));
        }
        found
    }
}

/// How a process speaks with others: in plaintext, or over mutual TLS. Clones are one and the same.
#[derive(Clone, Default)]
pub struct Security {
    live: Option<Arc<Live>>,
}

/// What connections that are opened now take.
struct Live {
    /// A plain lock: it is held for as long as it takes to clone or replace a pointer.
    material: RwLock<Arc<Material>>,
    /// How many times files were taken.
    taken: AtomicU64,
    /// How many times they were not.
    refused: AtomicU64,
}

impl Live {
    fn material(&self) -> Arc<Material> {
        self.material.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn take(&self, material: Material) {
        *self.material.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(material);
        self.taken.fetch_add(1, Ordering::Release);
    }
}

impl Security {
    /// Everybody is believed, everything can be read by whoever listens. For one machine, and for tests.
    pub fn plaintext() -> Self {
        Self::default()
    }

    /// What the settings say: mutual TLS, or plaintext where there are none. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`BadInput`] that names the file and what is wrong with it.
    pub fn new(config: Option<&TlsConfig>) -> Result<Self, BadInput> {
        match config {
            Some(config) => Self::looking_every(config, LOOK_EVERY),
            None => Ok(Self::plaintext()),
        }
    }

    /// Mutual TLS whose files are looked at every `pause`. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn looking_every(config: &TlsConfig, pause: Duration) -> Result<Self, BadInput> {
        let contents = Contents::read(config);
        let seen = contents.fingerprint();
        let material = contents.material(config).map_err(|reason| BadInput::new(format!("tls: {reason}")))?;
        let live = Arc::new(Live { material: RwLock::new(Arc::new(material)), taken: AtomicU64::new(1), refused: AtomicU64::new(0) });
        tokio::spawn(watch(config.clone(), Arc::downgrade(&live), seen, pause));
        Ok(Self { live: Some(live) })
    }

    /// Whether peers prove who they are.
    pub fn is_mutual(&self) -> bool {
        self.live.is_some()
    }

    /// How many times files were taken, the first time included; 0 in plaintext.
    pub fn taken(&self) -> u64 {
        self.live.as_ref().map_or(0, |live| live.taken.load(Ordering::Acquire))
    }

    /// How many times changed files were refused; 0 in plaintext.
    pub fn refused(&self) -> u64 {
        self.live.as_ref().map_or(0, |live| live.refused.load(Ordering::Acquire))
    }

    /// What shakes hands with those who connect now; `None` in plaintext.
    pub(crate) fn acceptor(&self) -> Option<Arc<tokio_rustls::rustls::ServerConfig>> {
        self.material().map(|material| material.server.clone())
    }

    fn material(&self) -> Option<Arc<Material>> {
        self.live.as_ref().map(|live| live.material())
    }
}

impl fmt::Debug for Security {
    /// Says nothing of what the files hold.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_mutual() { "Security(mutual TLS)" } else { "Security(plaintext)" })
    }
}

/// Looks at the files until nobody uses them any more. What is wrong with them is said once, until they change again.
async fn watch(config: TlsConfig, live: Weak<Live>, mut seen: u64, pause: Duration) {
    loop {
        tokio::time::sleep(pause).await;
        let reading = config.clone();
        // Files may lie on a slow disk.
        let Ok(contents) = tokio::task::spawn_blocking(move || Contents::read(&reading)).await else { continue };
        // Who stops using the files may take them away at once: a look that was under way is then about nothing.
        let Some(live) = live.upgrade() else { return };
        if contents.fingerprint() == seen {
            continue;
        }
        seen = contents.fingerprint();
        let outcome = match contents.material(&config) {
            Ok(material) => {
                live.take(material);
                tracing::info!(certificate = %config.certificate.display(), "new certificate taken");
                "taken"
            }
            Err(reason) => {
                live.refused.fetch_add(1, Ordering::Release);
                tracing::warn!(reason, "new certificate refused; the old one stays in use");
                "refused"
            }
        };
        counter!(TLS_RELOADS, "outcome" => outcome).increment(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
    #[serde(deny_unknown_fields, default)]
    struct Service {
        tls: Option<TlsConfig>,
    }

    impl crate::config::Settings for Service {}

    #[test]
    fn settings_may_be_said_one_by_one_and_none_is_plaintext() {
        let load = |env: &[(&str, &str)], sets: &[&str]| {
            let env = env.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            crate::config::load_from(
                Service::default(),
                None,
                "SERVICE",
                env,
                &sets.iter().map(|set| (*set).to_owned()).collect::<Vec<_>>(),
            )
        };
        assert_eq!(load(&[], &[]).expect("nothing is said").tls, None);
        let tls =
            load(&[("SERVICE__TLS__CERTIFICATE", "/a"), ("SERVICE__TLS__KEY", "/b")], &["tls.authority=/c"]).expect("all is said").tls;
        assert_eq!(tls, Some(TlsConfig { certificate: "/a".into(), key: "/b".into(), authority: "/c".into() }));
        assert!(load(&[], &["tls.certificat=/a"]).expect_err("no such key").to_string().contains("did you mean tls.certificate"));
        let text = crate::config::to_toml(&Service { tls }).expect("plain data");
        assert!(text.contains("[tls]") && text.contains("authority = \"/c\""), "{text}");
    }
}
