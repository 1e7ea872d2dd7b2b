//! What the three files hold, and whether it can be used.
//!
//! In: their paths. Out: settings for both ends of new connections, or a sentence that names the file and says what is wrong
//! with it. No sentence quotes from the key's file.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::TlsConfig;

/// A larger file is none of these.
const MAX_BYTES: u64 = 1 << 20;
/// Readings that may differ from the one before; files change once in hours.
const TRIES: usize = 5;
/// The one protocol that is spoken.
const HTTP2: &[u8] = b"h2";

/// What new connections take.
pub(super) struct Material {
    pub(super) server: Arc<ServerConfig>,
    pub(super) client: Arc<ClientConfig>,
}

/// The files as they were at one moment, or why they cannot be read.
pub(super) struct Contents {
    certificate: Result<Vec<u8>, String>,
    key: Result<Vec<u8>, String>,
    authority: Result<Vec<u8>, String>,
}

impl Contents {
    /// Reads until two readings agree, or two files of an old moment might come with one of a new.
    pub(super) fn read(config: &TlsConfig) -> Self {
        let once = || Self { certificate: read(&config.certificate), key: read(&config.key), authority: read(&config.authority) };
        let mut last = once();
        for _ in 0..TRIES {
            let next = once();
            if next.fingerprint() == last.fingerprint() {
                return next;
            }
            last = next;
        }
        last
    }

    /// Tells contents apart, to notice a change. Nothing is proved with it.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.certificate, &self.key, &self.authority).hash(&mut hasher);
        hasher.finish()
    }

    /// Checks everything that can be known before anybody connects.
    pub(super) fn material(&self, config: &TlsConfig) -> Result<Material, String> {
        let provider = Arc::new(ring::default_provider());
        let roots = Arc::new(roots(self.authority.as_deref(), &config.authority)?);
        let chain = chain(self.certificate.as_deref(), &config.certificate)?;
        let own = Arc::new(own(chain, self.key.as_deref(), config, &provider)?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|error| format!("authority {}: {error}", config.authority.display()))?;
        believed(&own.cert, &roots, verifier.as_ref(), &provider).map_err(|error| {
            format!("certificate {} is not valid under {}: {error}", show(&config.certificate), show(&config.authority))
        })?;

        let resolver = Arc::new(SingleCertAndKey::from((*own).clone()));
        let impossible = |error: tokio_rustls::rustls::Error| format!("TLS 1.3 is not to be had: {error}");
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(impossible)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(resolver.clone());
        server.alpn_protocols = vec![HTTP2.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(impossible)?
            .with_root_certificates(roots)
            .with_client_cert_resolver(resolver);
        client.alpn_protocols = vec![HTTP2.to_vec()];
        client.resumption = Resumption::disabled();
        Ok(Material { server: Arc::new(server), client: Arc::new(client) })
    }
}

fn show(path: &Path) -> String {
    path.display().to_string()
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    if path.as_os_str().is_empty() {
        return Err("the setting is missing: certificate, key and authority are needed together".to_owned());
    }
    hypereyes_outside::files::read(path, MAX_BYTES).map_err(|error| error.to_string())
}

fn roots(pem: Result<&[u8], &String>, path: &Path) -> Result<RootCertStore, String> {
    let bad = |reason: String| format!("authority {}: {reason}", show(path));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.map_err(|reason| bad(reason.clone()))?) {
        let certificate = certificate.map_err(|error| bad(format!("it is not PEM: {error}")))?;
        roots.add(certificate).map_err(|error| bad(error.to_string()))?;
    }
    if roots.is_empty() { Err(bad("it holds no certificate in PEM".into())) } else { Ok(roots) }
}

fn chain(pem: Result<&[u8], &String>, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bad = |reason: String| format!("certificate {}: {reason}", show(path));
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.map_err(|reason| bad(reason.clone()))?).collect();
    let chain = chain.map_err(|error| bad(format!("it is not PEM: {error}")))?;
    if chain.is_empty() { Err(bad("it holds no certificate in PEM".into())) } else { Ok(chain) }
}

fn own(
    chain: Vec<CertificateDer<'static>>,
    pem: Result<&[u8], &String>,
    config: &TlsConfig,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, String> {
    let bad = |reason: &str| format!("key {}: {reason}", show(&config.key));
    let pem = pem.map_err(|reason| bad(reason))?;
    // What exactly is wrong with a key might quote it.
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| bad("it holds no private key in PEM"))?;
    let key = provider.key_provider.load_private_key(key).map_err(|_| bad("its key is of no kind that is known"))?;
    let own = CertifiedKey::new(chain, key);
    own.keys_match().map_err(|error| {
        let reason = if matches!(error, tokio_rustls::rustls::Error::InconsistentKeys(_)) {
            "it does not belong to the certificate".to_owned()
        } else {
            error.to_string()
        };
        format!("key {} and certificate {}: {reason}", show(&config.key), show(&config.certificate))
    })?;
    Ok(own)
}

/// Whether peers with the same authority will believe this chain, as a caller's or as a server's: some processes are only one.
fn believed(
    chain: &[CertificateDer<'static>],
    roots: &RootCertStore,
    callers: &dyn ClientCertVerifier,
    provider: &CryptoProvider,
) -> Result<(), tokio_rustls::rustls::Error> {
    let (first, between) = chain.split_first().expect("a chain that was read has a certificate");
    let now = UnixTime::now();
    let Err(as_caller) = callers.verify_client_cert(first, between, now) else { return Ok(()) };
    let algorithms = provider.signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&ParsedCertificate::try_from(first)?, roots, between, now, algorithms).map_err(|_| as_caller)
}
