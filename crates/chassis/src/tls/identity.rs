//! Who a certificate says that its holder is.
//!
//! In: a certificate that was checked. Out: the namespace and the role in its URI
//! `spiffe://hypereyes/<namespace>/sa/<role>`, the way that names of workloads are written.

use tokio_rustls::rustls::pki_types::CertificateDer;

/// How every name begins.
const TRUST_DOMAIN: &str = "spiffe://hypereyes/";
/// Longer parts are no names.
const MAX_PART_BYTES: usize = 64;

/// Who somebody is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Where it runs.
    pub namespace: String,
    /// What it may do.
    pub role: String,
}

impl Identity {
    /// The one name of hypereyes in a certificate; `None` where there is none, or more than one: then it cannot be known
    /// which is meant.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let parsed = webpki::EndEntityCert::try_from(certificate).ok()?;
        let mut names = parsed.valid_uri_names().filter(|name| name.starts_with(TRUST_DOMAIN));
        let (first, None) = (names.next()?, names.next()) else { return None };
        Self::parse(first)
    }

    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix(TRUST_DOMAIN)?.split('/');
        let (namespace, kind, role) = (parts.next()?, parts.next()?, parts.next()?);
        let plain = |part: &str| {
            (1..=MAX_PART_BYTES).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        let sound = parts.next().is_none() && kind == "sa" && plain(namespace) && plain(role);
        sound.then(|| Self { namespace: namespace.to_owned(), role: role.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_names_of_the_house_are_read() {
        let role = |name: &str| Identity::parse(name).map(|identity| (identity.namespace, identity.role));
        assert_eq!(role("spiffe://hypereyes/rl/sa/actor"), Some(("rl".into(), "actor".into())));
        for wrong in [
            "spiffe://elsewhere/rl/sa/actor",
            "spiffe://hypereyes/rl/sa/",
            "spiffe://hypereyes/rl/sa",
            "spiffe://hypereyes//sa/actor",
            "spiffe://hypereyes/rl/ns/actor",
            "spiffe://hypereyes/rl/sa/actor/more",
            "spiffe://hypereyes/rl/sa/act or",
            "spiffe://hypereyes/rl/sa/actor?x",
            "https://hypereyes/rl/sa/actor",
        ] {
            assert_eq!(role(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_certificate_with_two_names_is_nobody() {
        let role = |names: &[&str]| {
            let mut asked = rcgen::CertificateParams::default();
            asked.subject_alt_names = names.iter().map(|name| rcgen::SanType::URI((*name).try_into().expect("ASCII"))).collect();
            let key = rcgen::KeyPair::generate().expect("a key");
            Identity::of(asked.self_signed(&key).expect("a certificate").der()).map(|identity| identity.role)
        };
        let (actor, learner) = ("spiffe://hypereyes/rl/sa/actor", "spiffe://hypereyes/rl/sa/learner");
        assert_eq!(role(&[actor]).as_deref(), Some("actor"));
        assert_eq!(role(&["spiffe://elsewhere/x", actor]).as_deref(), Some("actor"), "names of others are their affair");
        assert_eq!(role(&[actor, learner]), None);
        assert_eq!(role(&[]), None);
    }
}
