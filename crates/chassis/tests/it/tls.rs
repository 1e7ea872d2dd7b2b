//! Real servers and real clients that prove who they are to each other, or fail to.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hypereyes_chassis::server::{LIVE, READY, STARTUP, ServeError};
use hypereyes_chassis::{Retryable, Security, Server, ServerConfig, Shutdown, TelemetryConfig, TlsConfig, exit, metrics, telemetry};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::authority::{Asked, Authority, Issued, name_of, place, place_text};

const SOON: Duration = Duration::from_secs(30);
/// Files are looked at more often than in earnest.
const OFTEN: Duration = Duration::from_millis(20);

/// Nothing but health and reflection is served here.
fn nobody(_: &str) -> Option<&'static [&'static str]> {
    None
}

/// A server in some role, and what it takes to end it.
struct Served {
    addr: SocketAddr,
    shutdown: Shutdown,
    task: JoinHandle<Result<(), ServeError>>,
}

impl Served {
    async fn new(security: &Security) -> Self {
        let server = Server::bind("127.0.0.1:0".parse().expect("an address")).await.expect("a free port");
        let (addr, shutdown) = (server.addr(), Shutdown::new());
        let (server, stop) = (server.secure(security, nobody), shutdown.clone());
        let task = tokio::spawn(async move { server.serve(Routes::default(), stop, &ServerConfig::default()).await });
        Self { addr, shutdown, task }
    }

    async fn stop(self) {
        self.shutdown.trigger();
        timeout(SOON, self.task).await.expect("it stops").expect("it does not panic").expect("stopping is no error");
    }
}

/// Settings of one more process: a folder of its own under `folder`.
fn files(folder: &TempDir, name: &str, issued: &Issued, authorities: &[&Authority]) -> TlsConfig {
    let folder = folder.path().join(name);
    std::fs::create_dir_all(&folder).expect("a folder");
    place(&folder, issued, authorities)
}

fn security(config: &TlsConfig) -> Security {
    Security::looking_every(config, OFTEN).expect("sound files")
}

fn channel(security: &Security, host: &str, port: u16) -> Channel {
    Endpoint::from_shared(format!("http://{host}:{port}")).expect("a URL").connect_with_connector_lazy(security.dial())
}

/// Asks for health, which every peer with a name may.
async fn ask(channel: &Channel) -> Result<ServingStatus, Status> {
    let mut client = HealthClient::new(channel.clone());
    Ok(timeout(SOON, client.check(HealthCheckRequest { service: LIVE.into() })).await.expect("in time")?.into_inner().status())
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(OFTEN).await;
        }
    };
    timeout(SOON, waiting).await.unwrap_or_else(|_| panic!("{what} does not happen"));
}

/// Connects without any help of ours, and gets as far as the first bytes of HTTP/2.
async fn raw(addr: SocketAddr, trusted: &Authority, shown: Option<&Issued>) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusted.pem.as_bytes()).expect("PEM")).expect("a certificate");
    let asked = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let mut config = match shown {
        None => asked.with_no_client_auth(),
        Some(issued) => {
            let chain = vec![CertificateDer::from_pem_slice(issued.certificate.as_bytes()).expect("PEM")];
            asked.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).expect("PEM")).expect("they match")
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let talk = async {
        let stream = TcpStream::connect(addr).await?;
        let name = ServerName::try_from("127.0.0.1").expect("an IP");
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
        stream.read_u8().await
    };
    timeout(SOON, talk).await.expect("in time").map(drop).map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_proves_who_they_are_is_served_and_nobody_else() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (ours, strangers) = (Authority::new("ours"), Authority::new("strangers"));
    let served = Served::new(&security(&files(&folder, "server", &ours.role("reward"), &[&ours]))).await;
    let port = served.addr.port();

    let actor = security(&files(&folder, "actor", &ours.role("actor"), &[&ours]));
    for host in ["127.0.0.1", "localhost"] {
        assert_eq!(ask(&channel(&actor, host, port)).await.expect("it is known"), ServingStatus::Serving, "{host}");
    }
    let plain = ask(&channel(&Security::plaintext(), "127.0.0.1", port)).await.expect_err("in plaintext");
    assert!(plain.is_retryable(), "{plain:?}");

    // A stranger whom the server does not know, one who does not know the server, and one who knows and shows too little.
    let unknown = security(&files(&folder, "unknown", &strangers.role("actor"), &[&strangers, &ours]));
    assert!(ask(&channel(&unknown, "127.0.0.1", port)).await.expect_err("unknown").is_retryable());
    let distrustful = security(&files(&folder, "distrustful", &strangers.role("actor"), &[&strangers]));
    let error = format!("{:?}", ask(&channel(&distrustful, "127.0.0.1", port)).await.expect_err("distrustful"));
    assert!(error.contains("UnknownIssuer"), "{error}");
    raw(served.addr, &ours, Some(&ours.role("actor"))).await.expect("it takes no more than a certificate");
    raw(served.addr, &ours, None).await.expect_err("no certificate");
    raw(served.addr, &ours, Some(&strangers.role("actor"))).await.expect_err("another authority's");
    let expired = ours.issue(&Asked { hosts: &["127.0.0.1"], names: &[name_of("actor")], valid: false });
    let refused = raw(served.addr, &ours, Some(&expired)).await.expect_err("expired");
    assert!(refused.contains("xpired"), "{refused}");

    // One of ours, but who? The connection stands, the call does not.
    for names in [vec![], vec![name_of("actor"), name_of("learner")], vec!["spiffe://elsewhere/tests/sa/actor".to_owned()]] {
        let nameless = ours.issue(&Asked { hosts: &[], names: &names, valid: true });
        let nameless = security(&files(&folder, &format!("nameless{}", names.join("").len()), &nameless, &[&ours]));
        let status = ask(&channel(&nameless, "127.0.0.1", port)).await.expect_err("no name");
        assert!(status.code() == Code::PermissionDenied && status.message().contains("spiffe://hypereyes/"), "{names:?}: {status:?}");
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_must_be_who_was_dialled() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ours = Authority::new("ours");
    let elsewhere = ours.issue(&Asked { hosts: &["localhost"], names: &[name_of("reward")], valid: true });
    let served = Served::new(&security(&files(&folder, "server", &elsewhere, &[&ours]))).await;
    let actor = security(&files(&folder, "actor", &ours.role("actor"), &[&ours]));
    ask(&channel(&actor, "localhost", served.addr.port())).await.expect("its name");
    let error = format!("{:?}", ask(&channel(&actor, "127.0.0.1", served.addr.port())).await.expect_err("not its name"));
    assert!(error.contains("NotValidForName"), "{error}");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_and_authorities_change_under_load_without_a_failed_call() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let folders = [folder.path().join("server"), folder.path().join("client")];
    let put = |issuer: &Authority, trusted: &[&Authority]| -> Vec<TlsConfig> {
        let place = |(folder, role): (&std::path::PathBuf, &str)| {
            std::fs::create_dir_all(folder).expect("a folder");
            place(folder, &issuer.role(role), trusted)
        };
        folders.iter().zip(["reward", "actor"]).map(place).collect()
    };
    let both: Vec<Security> = put(&old, &[&old]).iter().map(security).collect();
    let served = Served::new(&both[0]).await;

    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let port = served.addr.port();
    let callers: Vec<_> = [true, false]
        .into_iter()
        .map(|afresh| {
            let (client, stop, calls) = (both[1].clone(), stop.clone(), calls.clone());
            tokio::spawn(async move {
                let mut open = channel(&client, "127.0.0.1", port);
                while !stop.load(Ordering::Relaxed) {
                    if afresh {
                        open = channel(&client, "127.0.0.1", port);
                    }
                    ask(&open).await.expect("no call fails");
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let more = |count: u64| {
        let (calls, want) = (calls.clone(), calls.load(Ordering::Relaxed) + count);
        async move { until("load", || calls.load(Ordering::Relaxed) >= want).await }
    };
    // The order in which authorities are changed: all believe the new one, all show its certificates, none believes the old.
    let steps: [(&Authority, &[&Authority]); 4] = [(&old, &[&old]), (&old, &[&old, &new]), (&new, &[&old, &new]), (&new, &[&new])];
    for (step, (issuer, trusted)) in steps.into_iter().enumerate() {
        more(40).await;
        let taken: Vec<u64> = both.iter().map(Security::taken).collect();
        put(issuer, trusted);
        until(&format!("step {step}"), || both.iter().zip(&taken).all(|(security, before)| security.taken() > *before)).await;
        more(40).await;
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        timeout(SOON, caller).await.expect("it ends").expect("no call failed");
    }
    raw(served.addr, &new, Some(&old.role("actor"))).await.expect_err("the old authority is believed no more");
    raw(served.addr, &new, Some(&new.role("actor"))).await.expect("the new one is");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_new_file_changes_nothing() {
    let telemetry = telemetry::init(&TelemetryConfig::default()).expect("the defaults are sound");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ours = Authority::new("ours");
    let own = ours.role("reward");
    let config = files(&folder, "server", &own, &[&ours]);
    let server = security(&config);
    let served = Served::new(&server).await;
    let actor = security(&files(&folder, "actor", &ours.role("actor"), &[&ours]));
    let expired = ours.issue(&Asked { hosts: &["127.0.0.1"], names: &[], valid: false });
    let broken = [
        ("", own.key.as_str(), ours.pem.as_str()),
        (&own.certificate, &expired.key, &ours.pem),
        (&expired.certificate, &expired.key, &ours.pem),
    ];
    for ((certificate, key, authority), count) in broken.into_iter().zip(1..) {
        place_text(&folder.path().join("server"), certificate, key, authority);
        until(&format!("refusal {count}"), || server.refused() == count).await;
        assert_eq!(server.taken(), 1);
        ask(&channel(&actor, "127.0.0.1", served.addr.port())).await.expect("the old certificate is shown");
        tokio::time::sleep(OFTEN * 5).await;
        assert_eq!(server.refused(), count, "what is wrong is counted once, not at every look");
    }
    // The metric is the whole process's: tests beside this one may add to it.
    let counted = || telemetry.read(metrics::TLS_RELOADS, &[("outcome", "refused")]).unwrap_or(0.0);
    until("three refusals in the metric", || counted() >= 3.0).await;
    place(&folder.path().join("server"), &ours.role("reward"), &[&ours]);
    until("a sound file", || server.taken() == 2).await;
    ask(&channel(&actor, "127.0.0.1", served.addr.port())).await.expect("the new certificate is shown");
    served.stop().await;
}

#[tokio::test]
async fn wrong_files_at_the_start_are_bad_input_that_names_them_and_no_secret() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (ours, strangers) = (Authority::new("ours"), Authority::new("strangers"));
    let (own, other) = (ours.role("actor"), ours.role("actor"));
    let expired = ours.issue(&Asked { hosts: &[], names: &[name_of("actor")], valid: false });
    let secret = own.key.lines().nth(1).expect("a line of the key").to_owned();
    let torn = own.key.replace("-----END", "-----EMD");
    let check = |certificate: &str, key: &str, authority: &str, parts: &[&str]| {
        let config = place_text(folder.path(), certificate, key, authority);
        let error = Security::new(Some(&config)).err().unwrap_or_else(|| panic!("{parts:?} is not refused"));
        assert_eq!(exit::service_code_of(&error), exit::SERVICE_BAD_INPUT);
        let text = error.to_string();
        assert!(parts.iter().all(|part| text.contains(part)) && !text.contains(&secret), "{parts:?}: {text}");
    };
    check("", &own.key, &ours.pem, &["tls.crt", "no certificate"]);
    check(&own.certificate, "nonsense", &ours.pem, &["tls.key", "no private key"]);
    check(&own.certificate, &torn, &ours.pem, &["tls.key", "no private key"]);
    check(&own.certificate, &other.key, &ours.pem, &["tls.key", "tls.crt", "does not belong"]);
    check(&own.certificate, &own.key, "nonsense", &["ca.crt", "no certificate"]);
    check(&own.certificate, &own.key, &strangers.pem, &["tls.crt", "ca.crt", "UnknownIssuer"]);
    check(&expired.certificate, &expired.key, &ours.pem, &["tls.crt", "xpired"]);

    let sound = place(folder.path(), &own, &[&ours]);
    let shown = format!("{:?} {sound:?}", Security::new(Some(&sound)).expect("sound files"));
    assert!(shown.contains("mutual") && !shown.contains(&secret), "{shown}");
    let missing =
        Security::new(Some(&TlsConfig { key: "/nowhere/tls.key".into(), ..sound.clone() })).expect_err("no such file").to_string();
    assert!(missing.contains("/nowhere/tls.key") && missing.contains("No such file"), "{missing}");
    let unset = Security::new(Some(&TlsConfig { authority: Path::new("").into(), ..sound })).expect_err("not said").to_string();
    assert!(unset.contains("authority") && unset.contains("together"), "{unset}");
    assert!(!Security::new(None).expect("plaintext").is_mutual());
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_asked_for_in_plaintext_where_peers_need_certificates() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ours = Authority::new("ours");
    let mutual = security(&files(&folder, "server", &ours.role("teacher"), &[&ours]));
    let mut server = Server::bind("127.0.0.1:0".parse().expect("an address")).await.expect("a free port").secure(&mutual, nobody);
    let (addr, shutdown, health) = (server.addr(), Shutdown::new(), server.take_health());
    let probes = health.listen(Some("127.0.0.1:0".parse().expect("an address")), &shutdown).await.expect("a free port").expect("asked for");
    assert!(health.listen(None, &shutdown).await.expect("nothing").is_none());
    assert!(health.listen(Some(probes.addr()), &shutdown).await.expect_err("taken").to_string().contains("health"));
    let probe = channel(&Security::plaintext(), "127.0.0.1", probes.addr().port());
    let state = async |name: &str| {
        let mut client = HealthClient::new(probe.clone());
        let asked = client.check(HealthCheckRequest { service: name.into() });
        timeout(SOON, asked).await.expect("in time").expect("the name is known").into_inner().status() == ServingStatus::Serving
    };
    // Before gRPC is served at all, as while a model is read.
    assert_eq!((state(LIVE).await, state(STARTUP).await, state(READY).await), (true, false, false));
    let stop = shutdown.clone();
    let task = tokio::spawn(async move { server.serve(Routes::default(), stop, &ServerConfig::default()).await });
    health.ready().await;
    assert_eq!((state(LIVE).await, state(STARTUP).await, state(READY).await), (true, true, true));
    ask(&channel(&Security::plaintext(), "127.0.0.1", addr.port())).await.expect_err("gRPC itself stays closed");

    let mut reflection = tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient::new(probe.clone());
    let nothing = tokio_stream::empty::<tonic_reflection::pb::v1::ServerReflectionRequest>();
    assert_eq!(reflection.server_reflection_info(nothing).await.expect_err("health alone").code(), Code::Unimplemented);

    shutdown.trigger();
    timeout(SOON, task).await.expect("it stops").expect("it does not panic").expect("stopping is no error");
    assert_eq!((state(LIVE).await, state(STARTUP).await, state(READY).await), (true, true, false), "it lives until it ends");
    let gone = probes.addr();
    drop(probes);
    let mut closed = false;
    for _ in 0..1000 {
        closed = closed || TcpStream::connect(gone).await.is_err();
        tokio::time::sleep(OFTEN).await;
        if closed {
            break;
        }
    }
    assert!(closed, "the port is given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_strangers_hold_up_nobody_and_are_shown_out() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ours = Authority::new("ours");
    let served = Served::new(&security(&files(&folder, "server", &ours.role("reward"), &[&ours]))).await;
    let mut strangers = Vec::new();
    for _ in 0..100 {
        strangers.push(TcpStream::connect(served.addr).await.expect("it accepts"));
    }
    let actor = security(&files(&folder, "actor", &ours.role("actor"), &[&ours]));
    ask(&channel(&actor, "127.0.0.1", served.addr.port())).await.expect("there is room");
    for mut stranger in strangers {
        let mut rest = Vec::new();
        // Closed or reset: either way they are out.
        let _ = timeout(SOON, stranger.read_to_end(&mut rest)).await.expect("it is closed");
        assert!(rest.is_empty());
    }
    served.stop().await;
}
