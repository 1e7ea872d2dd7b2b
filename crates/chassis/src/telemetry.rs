//! Logs, metrics and traces of a process.
//!
//! In: [`TelemetryConfig`], and what the process does. Out: log lines on stderr, and metrics in Prometheus' text format,
//! over HTTP or as a string.

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use ::metrics::counter;
use hypereyes_outside::text::escaped;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use serde::{Deserialize, Serialize};
use tonic::codegen::http::{StatusCode, Uri};
use tonic::service::{AxumRouter, Routes};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::incoming::{Door, incoming};
use crate::metrics::SCRAPES;
use crate::{BadInput, BindError, Findings, Security, Shutdown, bind, metrics, trace};

/// Bounds of duration histograms (names that end in `_seconds`): from a kernel launch to a long step.
const SECONDS: [f64; 16] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0];
/// Bounds of all other histograms: counts and sizes.
const COUNTS: [f64; 17] =
    [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0, 16384.0, 65536.0, 1_048_576.0, 16_777_216.0];
/// Bounds of ratio histograms (names that end in `_ratio`).
const RATIOS: [f64; 13] = [0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.5, 2.0, 10.0];
/// How often histogram samples are folded, so that an unscraped process does not keep them all.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Few scrape, and each scrape takes a moment: a connection that lasts longer only waits for the next one, or holds us up. No
/// multiple of the usual intervals, so that its end does not meet a scrape again and again.
const DOOR: Door = Door { name: "metrics", most: 64, most_of_peer: 32, lifetime: Some(Duration::from_secs(67)) };

/// What a process says of itself.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// Which log lines are written, in `tracing`'s directive syntax (`info,hypereyes_learner=debug`). Default `info`, or what the environment's
    /// `RUST_LOG` says.
    pub filter: String,
    /// True writes log lines as JSON, for machines that collect them. Default false: people read them on a laptop.
    pub json: bool,
    /// Base address of an OTLP collector that is sent the spans of this process (HTTP, JSON), such as `http://127.0.0.1:4318`. Default
    /// empty: none is sent, and no trace context is handed to peers unless `otlp_file` is set.
    pub otlp: String,
    /// File that the same is appended to, a request a line. Several processes may share one. Default empty: none.
    pub otlp_file: PathBuf,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { filter: "info".into(), json: false, otlp: String::new(), otlp_file: PathBuf::new() }
    }
}

impl TelemetryConfig {
    /// What is wrong with the settings.
    pub fn findings(&self) -> Findings {
        let mut found = Findings::default();
        if let Err(error) = EnvFilter::try_new(&self.filter) {
            found.refuse("filter", format!("is {:?}, which is not a log filter: {error}", self.filter));
        }
        if let Some(reason) = Some(&self.otlp).filter(|otlp| !otlp.is_empty()).and_then(|otlp| trace::otlp::url(otlp).err()) {
            found.refuse("otlp", format!("is {:?}: it {reason}", self.otlp));
        }
        found
    }
}

/// The metrics of this process. Clones are one and the same.
#[derive(Clone)]
pub struct Telemetry {
    handle: PrometheusHandle,
}

/// The process's one recorder, once installed; a mutex and not a `OnceLock`, because installing can fail.
static INSTALLED: Mutex<Option<Telemetry>> = Mutex::new(None);

/// Starts logging to stderr and recording metrics. Later calls change nothing and return the same metrics, so tests and
/// services that share a process may all call it.
///
/// # Errors
/// [`BadInput`] when the filter cannot be read, or when a foreign metrics recorder is installed.
pub fn init(config: &TelemetryConfig) -> Result<Telemetry, BadInput> {
    let filter = EnvFilter::try_new(&config.filter)
        .map_err(|error| BadInput::new(format!("process.telemetry.filter {:?} is not a log filter: {error}", config.filter)))?;
    // What everybody knows from elsewhere; who sets the filter means the filter.
    let asked = std::env::var("RUST_LOG").ok().filter(|_| config.filter == TelemetryConfig::default().filter);
    let filter = asked.and_then(|asked| EnvFilter::try_new(asked).ok()).unwrap_or(filter);
    let mut installed = INSTALLED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(telemetry) = installed.as_ref() {
        return Ok(telemetry.clone());
    }
    let cannot = |error: metrics_exporter_prometheus::BuildError| BadInput::new(format!("cannot record metrics: {error}"));
    let handle = PrometheusBuilder::new()
        .set_buckets(&COUNTS)
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS))
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_ratio".into()), &RATIOS))
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(cannot)?;
    metrics::describe();
    // Colours are for eyes, and for those that want them (no-color.org).
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = tracing_subscriber::fmt::layer().with_writer(move || Lines { colours }).with_ansi(colours);
    let lines = if config.json { lines.json().boxed() } else { lines.boxed() };
    let subscriber = tracing_subscriber::registry().with(lines.with_filter(filter)).with(trace::layer(config)?);
    // A subscriber that somebody (a test harness) installed before is left in place.
    let _ = subscriber.try_init();
    Ok(installed.insert(Telemetry { handle }).clone())
}

/// Writes events to stderr, one line each: what a value holds cannot end its line, nor turn its direction.
struct Lines {
    colours: bool,
}

impl Write for Lines {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        // Colours are the subscriber's; escapes in values it has escaped itself.
        let keep: &[char] = if self.colours { &['\u{1b}'] } else { &[] };
        let line = format!("{}\n", escaped(text.trim_end_matches('\n'), keep));
        io::stderr().write_all(line.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl Telemetry {
    /// All metrics in Prometheus' text format.
    pub fn snapshot(&self) -> String {
        self.handle.run_upkeep();
        self.handle.render()
    }

    /// The sum of the series of a counter or gauge that carry all of `labels`; `None` when there is no such series. For
    /// tests, and for services that report on themselves.
    pub fn read(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        read(&self.snapshot(), name, labels)
    }

    /// Serves `GET /metrics` at `addr` until `shutdown`; port 0 takes any free port. Returns the address taken.
    ///
    /// # Errors
    /// [`BindError`] when nothing can listen there.
    pub async fn metrics_listener(&self, addr: SocketAddr, shutdown: Shutdown) -> Result<SocketAddr, BindError> {
        let listener = bind::listen(addr, "the metrics address").await?;
        let bound = listener.local_addr().map_err(|source| BindError::new(addr, "the metrics address", source))?;
        let telemetry = self.clone();
        let page = move |uri: Uri| {
            let found = uri.path() == "/metrics";
            counter!(SCRAPES, "outcome" => if found { "served" } else { "not_found" }).increment(1);
            let (status, body) =
                if found { (StatusCode::OK, telemetry.snapshot()) } else { (StatusCode::NOT_FOUND, "try /metrics\n".into()) };
            async move { (status, [("content-type", "text/plain; version=0.0.4; charset=utf-8")], body) }
        };
        let routes = Routes::from(AxumRouter::new().fallback(page));
        let keep = self.clone();
        tokio::spawn(async move {
            let serve = tonic::transport::Server::builder()
                .accept_http1(true)
                .timeout(Duration::from_secs(10))
                .max_concurrent_streams(16)
                .add_routes(routes)
                .serve_with_incoming(incoming(listener, &Security::plaintext(), DOOR));
            let upkeep = async {
                loop {
                    tokio::time::sleep(UPKEEP_EVERY).await;
                    keep.handle.run_upkeep();
                }
            };
            tokio::select! {
                ended = serve => if let Err(error) = ended {
                    tracing::warn!(%error, "the metrics listener ended");
                },
                () = upkeep => {}
                () = shutdown.cancelled() => {}
            }
        });
        Ok(bound)
    }
}

fn read(text: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let wanted: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
    let value = |line: &str| {
        let rest = line.strip_prefix(name)?;
        // The name ends here, or it is another's prefix.
        let (series, value) = rest.rsplit_once(' ')?;
        let inside = match series {
            "" => "",
            _ => series.strip_prefix('{')?.strip_suffix('}')?,
        };
        wanted.iter().all(|label| inside.split(',').any(|have| have == label)).then(|| value.parse::<f64>().ok())?
    };
    text.lines().filter_map(value).fold(None, |sum: Option<f64>, value| Some(sum.unwrap_or(0.0) + value))
}

#[cfg(test)]
mod tests {
    use ::metrics::{gauge, histogram};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn telemetry() -> Telemetry {
        init(&TelemetryConfig::default()).expect("the defaults are sound")
    }

    async fn get(addr: SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(addr).await.expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut answer = String::new();
        tokio::time::timeout(Duration::from_secs(10), stream.read_to_string(&mut answer)).await.expect("in time").expect("text");
        answer
    }

    #[test]
    fn initialising_twice_is_harmless_and_a_bad_filter_is_the_users_fault() {
        let (first, second) = (telemetry(), init(&TelemetryConfig { json: true, ..TelemetryConfig::default() }).expect("again"));
        counter!("hypereyes_test_twice_total").increment(2);
        assert_eq!(first.read("hypereyes_test_twice_total", &[]), Some(2.0));
        assert_eq!(second.read("hypereyes_test_twice_total", &[]), Some(2.0));
        let error = init(&TelemetryConfig { filter: "a=b=c".into(), ..TelemetryConfig::default() }).err().expect("that is no filter");
        assert!(error.to_string().contains("telemetry.filter"), "{error}");
    }

    #[test]
    fn counters_and_gauges_can_be_read_back_by_label() {
        let telemetry = telemetry();
        counter!("hypereyes_test_reads_total", "reason" => "a", "op" => "x").increment(1);
        counter!("hypereyes_test_reads_total", "reason" => "a", "op" => "y").increment(2);
        counter!("hypereyes_test_reads_total", "reason" => "b", "op" => "x").increment(4);
        counter!("hypereyes_test_reads_total_more").increment(100);
        gauge!("hypereyes_test_level").set(-1.5);
        let reads = |labels: &[(&str, &str)]| telemetry.read("hypereyes_test_reads_total", labels);
        assert_eq!(reads(&[]), Some(7.0));
        assert_eq!(reads(&[("reason", "a")]), Some(3.0));
        assert_eq!(reads(&[("op", "x"), ("reason", "b")]), Some(4.0));
        assert_eq!(reads(&[("reason", "c")]), None);
        assert_eq!(telemetry.read("hypereyes_test_level", &[]), Some(-1.5));
        assert_eq!(telemetry.read("hypereyes_test_never", &[]), None);
    }

    #[tokio::test]
    async fn metrics_are_served_over_http_until_shutdown() {
        let telemetry = telemetry();
        let shutdown = Shutdown::new();
        let bound = telemetry.metrics_listener("127.0.0.1:0".parse().expect("an address"), shutdown.clone()).await.expect("a free port");
        assert_ne!(bound.port(), 0);
        counter!("hypereyes_test_served_total").increment(3);
        histogram!("hypereyes_test_step_seconds").record(0.2);
        let answer = get(bound, "/metrics").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("hypereyes_test_served_total 3"), "{answer}");
        assert!(answer.contains(r#"hypereyes_test_step_seconds_bucket{le="0.25"} 1"#), "{answer}");
        assert!(get(bound, "/etc/passwd").await.starts_with("HTTP/1.1 404"));

        let taken = telemetry.metrics_listener(bound, Shutdown::new()).await.expect_err("the port is taken");
        assert!(taken.to_string().contains(&bound.to_string()), "{taken}");

        shutdown.trigger();
        let closed = async {
            while tokio::net::TcpStream::connect(bound).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), closed).await.expect("it stops listening");
    }
}
