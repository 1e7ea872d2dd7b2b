//! Why two processes did not come together.
//!
//! In: the error of a handshake. Out: a label for a counter, and a log line now and then: strangers can cause as many of
//! these as they like, and must not fill the log.

use std::io;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use ::metrics::counter;
use tokio_rustls::rustls::{CertificateError, Error};

use crate::metrics::TLS_REFUSED;

/// Pause between log lines.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Counts refusals of one server or one client.
#[derive(Debug)]
pub(super) struct Refusals {
    /// `serve` or `call`.
    side: &'static str,
    /// When the log last heard of one. A plain mutex: it is held for a comparison.
    said: Mutex<Option<Instant>>,
}

impl Refusals {
    pub(super) fn new(side: &'static str) -> Self {
        Self { side, said: Mutex::new(None) }
    }

    pub(super) fn note(&self, peer: &dyn std::fmt::Display, error: &io::Error) {
        let reason = reason(error);
        counter!(TLS_REFUSED, "side" => self.side, "reason" => reason).increment(1);
        let mut said = self.said.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if said.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
            *said = Some(Instant::now());
            tracing::warn!(%peer, reason, %error, side = self.side, "no secure connection; more of these are counted, not said");
        }
    }
}

/// The counter's label.
pub(super) fn reason(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::TimedOut {
        return "timeout";
    }
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::NoCertificatesPresented) => "no_certificate",
        Some(Error::InvalidCertificate(wrong)) => match wrong {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "expired",
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "not_valid_yet",
            CertificateError::UnknownIssuer | CertificateError::BadSignature => "unknown_authority",
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => "wrong_name",
            _ => "bad_certificate",
        },
        Some(Error::InvalidMessage(_)) => "not_tls",
        Some(Error::PeerIncompatible(_) | Error::NoApplicationProtocol) => "incompatible",
        Some(Error::AlertReceived(_)) => "refused_by_peer",
        Some(_) => "other",
        None => "closed",
    }
}
