//! Ended spans on their way out, as OTLP in JSON: to a collector over HTTP, into a file, or both.
//!
//! In: spans that ended. Out: requests to `<address>/v1/traces`, lines of a file. A process never waits for either: what comes faster than
//! it leaves is dropped and counted.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use metrics::counter;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use serde_json::{Value as Json, json};

use crate::metrics::SPANS_LOST;
use crate::seldom::Seldom;
use crate::{BadInput, TelemetryConfig};

/// Spans that may wait: some seconds of a busy actor.
const QUEUE: usize = 8192;
/// Spans of one request or line.
const BATCH: usize = 512;
/// Longest time until a span leaves.
const EVERY: Duration = Duration::from_secs(1);
/// Longest wait for a collector, and for a flush.
const PATIENCE: Duration = Duration::from_secs(5);

/// Takes ended spans and hands them to a thread that sends them.
#[derive(Debug)]
pub(super) struct Exporter {
    queue: SyncSender<Message>,
}

#[derive(Debug)]
enum Message {
    Ended(Box<SpanData>),
    Flush(SyncSender<()>),
}

impl Exporter {
    /// Exports as `config` says; `None` where it names neither an address nor a file.
    pub(super) fn new(config: &TelemetryConfig, name: &'static str) -> Result<Option<Self>, BadInput> {
        if config.otlp.is_empty() && config.otlp_file.as_os_str().is_empty() {
            return Ok(None);
        }
        let file = match config.otlp_file.as_os_str().is_empty() {
            true => None,
            false => {
                let path = &config.otlp_file;
                let opened = OpenOptions::new().create(true).append(true).open(path);
                Some(opened.map_err(|error| BadInput::new(format!("process.telemetry.otlp_file {}: {error}", path.display())))?)
            }
        };
        let collector = match config.otlp.is_empty() {
            true => None,
            false => Some(Collector::new(&config.otlp)?),
        };
        let (queue, messages) = mpsc::sync_channel(QUEUE);
        let sender = Sender { name, file, collector, said: Seldom::default() };
        let spawned = thread::Builder::new().name("otlp".into()).spawn(move || sender.run(&messages));
        spawned.map_err(|error| BadInput::new(format!("no thread for process.telemetry.otlp: {error}")))?;
        Ok(Some(Self { queue }))
    }
}

impl SpanProcessor for Exporter {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.queue.try_send(Message::Ended(Box::new(span))).is_err() {
            counter!(SPANS_LOST, "reason" => "queue").increment(1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        let (done, told) = mpsc::sync_channel(1);
        // A thread that is gone has nothing to write.
        if self.queue.send(Message::Flush(done)).is_ok() {
            let _ = told.recv_timeout(PATIENCE);
        }
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        self.force_flush()
    }
}

/// An OTLP collector behind HTTP.
struct Collector {
    url: reqwest::Url,
    client: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

impl Collector {
    fn new(address: &str) -> Result<Self, BadInput> {
        let bad = |error: &dyn std::fmt::Display| BadInput::new(format!("process.telemetry.otlp {address:?}: {error}"));
        let url = url(address).map_err(|reason| bad(&reason))?;
        let client = reqwest::Client::builder().timeout(PATIENCE).build().map_err(|error| bad(&error))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| bad(&error))?;
        Ok(Self { url, client, runtime })
    }

    fn post(&self, body: String) -> Result<(), String> {
        let request = self.client.post(self.url.clone()).header("content-type", "application/json").body(body);
        let answer = self.runtime.block_on(request.send()).and_then(reqwest::Response::error_for_status);
        answer.map(drop).map_err(|error| error.to_string())
    }
}

/// Where a collector takes traces, from its base address.
pub(crate) fn url(address: &str) -> Result<reqwest::Url, String> {
    let mut url = reqwest::Url::parse(address).map_err(|error| format!("is no address ({error}); write http://host:4318"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err("is no http address; write http://host:4318".to_owned());
    }
    if !url.path().ends_with("/v1/traces") {
        let base = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{base}/v1/traces"));
    }
    Ok(url)
}

/// Writes batches until nobody sends any more.
struct Sender {
    name: &'static str,
    file: Option<File>,
    collector: Option<Collector>,
    said: Seldom,
}

impl Sender {
    fn run(mut self, messages: &Receiver<Message>) {
        let mut spans = Vec::new();
        let mut due = Instant::now() + EVERY;
        loop {
            let mut told = None;
            let over = match messages.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(Message::Ended(span)) => {
                    spans.push(*span);
                    false
                }
                Ok(Message::Flush(done)) => {
                    told = Some(done);
                    false
                }
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => true,
            };
            if over || told.is_some() || spans.len() >= BATCH || Instant::now() >= due {
                self.write(&std::mem::take(&mut spans));
                due = Instant::now() + EVERY;
            }
            if let Some(done) = told {
                let _ = done.send(()); // Who has not waited need not know.
            }
            if over {
                return;
            }
        }
    }

    fn write(&mut self, spans: &[SpanData]) {
        if spans.is_empty() {
            return;
        }
        let body = request(self.name, spans).to_string();
        let mut faults = vec![];
        if let Some(file) = &mut self.file {
            // One write, so that processes that share the file do not mix their lines.
            faults.extend(file.write_all(format!("{body}\n").as_bytes()).err().map(|error| error.to_string()));
        }
        if let Some(collector) = &self.collector {
            faults.extend(collector.post(body).err());
        }
        if let Some(fault) = faults.first() {
            counter!(SPANS_LOST, "reason" => "export").increment(spans.len() as u64);
            if self.said.now() {
                tracing::warn!(error = fault, spans = spans.len(), "spans are lost: process.telemetry.otlp or otlp_file takes none");
            }
        }
    }
}

/// An `ExportTraceServiceRequest` in JSON.
fn request(name: &str, spans: &[SpanData]) -> Json {
    let resource = [KeyValue::new("service.name", name.to_owned()), KeyValue::new("process.pid", i64::from(std::process::id()))];
    json!({"resourceSpans": [{
        "resource": {"attributes": attributes(&resource)},
        "scopeSpans": [{"scope": {"name": "hypereyes"}, "spans": spans.iter().map(span).collect::<Vec<_>>()}],
    }]})
}

fn span(span: &SpanData) -> Json {
    let context = |context: &SpanContext| json!({"traceId": context.trace_id().to_string(), "spanId": context.span_id().to_string()});
    let mut json = context(&span.span_context);
    if span.parent_span_id != SpanId::INVALID {
        json["parentSpanId"] = span.parent_span_id.to_string().into();
    }
    json["name"] = span.name.as_ref().into();
    json["kind"] = match span.span_kind {
        SpanKind::Internal => 1,
        SpanKind::Server => 2,
        SpanKind::Client => 3,
        SpanKind::Producer => 4,
        SpanKind::Consumer => 5,
    }
    .into();
    json["startTimeUnixNano"] = nanos(span.start_time);
    json["endTimeUnixNano"] = nanos(span.end_time);
    json["attributes"] = attributes(&span.attributes);
    let event = |event: &opentelemetry::trace::Event| json!({"timeUnixNano": nanos(event.timestamp), "name": event.name.as_ref(), "attributes": attributes(&event.attributes)});
    json["events"] = span.events.iter().map(event).collect();
    json["links"] = span.links.iter().map(|link| context(&link.span_context)).collect();
    json["status"] = match &span.status {
        Status::Unset => json!({}),
        Status::Ok => json!({"code": 1}),
        Status::Error { description } => json!({"code": 2, "message": description.as_ref()}),
    };
    json
}

/// Whole numbers travel as texts: JSON's may not hold them.
fn nanos(time: SystemTime) -> Json {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string().into()
}

fn attributes(list: &[KeyValue]) -> Json {
    let value = |value: &Value| match value {
        Value::Bool(value) => json!({"boolValue": value}),
        Value::I64(value) => json!({"intValue": value.to_string()}),
        Value::F64(value) => json!({"doubleValue": value}),
        other => json!({"stringValue": other.as_str()}),
    };
    list.iter().map(|one| json!({"key": one.key.as_str(), "value": value(&one.value)})).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_named_by_its_base() {
        for (address, full) in [
            ("http://collector:4318", "http://collector:4318/v1/traces"),
            ("https://otlp.example.com/in/", "https://otlp.example.com/in/v1/traces"),
            ("http://127.0.0.1:4318/v1/traces", "http://127.0.0.1:4318/v1/traces"),
        ] {
            assert_eq!(url(address).expect(address).as_str(), full);
        }
        for bad in ["collector:4318", "localhost", "ftp://x", ""] {
            assert!(url(bad).expect_err(bad).contains("http://host:4318"), "{bad}");
        }
    }
}
