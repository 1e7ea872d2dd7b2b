//! An authority for tests: makes certificates, and lays them out the way an orchestrator mounts them, where all files of a
//! folder change at one moment. In: who somebody is. Out: settings.

#![allow(dead_code)]

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use hypereyes_chassis::TlsConfig;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Signs.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate.
    pub pem: String,
}

/// A certificate and its key.
pub struct Issued {
    pub certificate: String,
    pub key: String,
}

/// What a certificate says.
pub struct Asked<'a> {
    /// Hosts and IPs.
    pub hosts: &'a [&'a str],
    /// URIs.
    pub names: &'a [String],
    /// When it ends, seen from now: false is yesterday, true tomorrow.
    pub valid: bool,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut asked = CertificateParams::default();
        asked.distinguished_name = DistinguishedName::new();
        asked.distinguished_name.push(DnType::CommonName, name);
        asked.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = asked.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(asked, key), pem }
    }

    pub fn issue(&self, asked: &Asked<'_>) -> Issued {
        let mut params = CertificateParams::new(asked.hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>()).expect("hosts");
        params.subject_alt_names.extend(asked.names.iter().map(|name| SanType::URI(name.as_str().try_into().expect("ASCII"))));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let now = SystemTime::now();
        params.not_before = (now - 2 * DAY).into();
        params.not_after = if asked.valid { now + DAY } else { now - DAY }.into();
        let key = KeyPair::generate().expect("a key");
        Issued { certificate: params.signed_by(&key, &self.issuer).expect("a certificate").pem(), key: key.serialize_pem() }
    }

    /// A certificate for this machine in a role.
    pub fn role(&self, role: &str) -> Issued {
        self.issue(&Asked { hosts: &["127.0.0.1", "localhost"], names: &[name_of(role)], valid: true })
    }
}

/// How a role is written in a certificate.
pub fn name_of(role: &str) -> String {
    format!("spiffe://hypereyes/tests/sa/{role}")
}

/// Puts files into a folder, or others in their place, all at one moment.
pub fn place(folder: &Path, issued: &Issued, authorities: &[&Authority]) -> TlsConfig {
    let bundle: String = authorities.iter().map(|authority| authority.pem.as_str()).collect();
    place_text(folder, &issued.certificate, &issued.key, &bundle)
}

/// The same with any text.
pub fn place_text(folder: &Path, certificate: &str, key: &str, authority: &str) -> TlsConfig {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let version = format!("..{}", COUNT.fetch_add(1, Ordering::Relaxed));
    std::fs::create_dir_all(folder.join(&version)).expect("a folder");
    let mut paths = Vec::new();
    for (name, text) in [("tls.crt", certificate), ("tls.key", key), ("ca.crt", authority)] {
        std::fs::write(folder.join(&version).join(name), text).expect("a file");
        let path = folder.join(name);
        if path.symlink_metadata().is_err() {
            symlink(Path::new("..data").join(name), &path).expect("a link");
        }
        paths.push(path);
    }
    let new = folder.join("..data_new");
    symlink(&version, &new).expect("a link");
    std::fs::rename(new, folder.join("..data")).expect("one step");
    let [certificate, key, authority] = paths.try_into().expect("three");
    TlsConfig { certificate, key, authority }
}
