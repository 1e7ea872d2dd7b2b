//! Why two processes did not come together.
//!
//! In: the error of a handshake. Out: a label for a counter, and a log line now and then: strangers can cause as many of
//! these as they like, and must not fill the log.

use std::io;

use ::metrics::counter;
use tokio_rustls::rustls::{CertificateError, Error};

use crate::metrics::TLS_REFUSED;
use crate::seldom::Seldom;

/// Counts refusals of one server or one client.
#[derive(Debug)]
pub(crate) struct Refusals {
    /// `serve` or `call`.
    side: &'static str,
    said: Seldom,
}

impl Refusals {
    pub(crate) fn new(side: &'static str) -> Self {
        Self { side, said: Seldom::default() }
    }

    pub(crate) fn note(&self, peer: &dyn std::fmt::Display, error: &io::Error) {
        let reason = reason(error);
        counter!(TLS_REFUSED, "side" => self.side, "reason" => reason).increment(1);
        if self.said.now() {
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
