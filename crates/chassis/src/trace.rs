//! Traces: which spans of which processes belong together.
//!
//! In: spans of `tracing`, and contexts that peers hand over as W3C `traceparent`. Out: contexts to hand on, and, where the settings ask
//! for it, every span that ended, as OTLP ([`otlp`]). Where they do not, no span has a context, nothing is handed on and nothing is kept.
//!
//! It knows no wire and no span by name.

pub(crate) mod otlp;

use std::sync::{Mutex, OnceLock, PoisonError};

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState, TracerProvider as _};
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::registry::LookupSpan;

use crate::{BadInput, TelemetryConfig};

/// The header of calls that carries a context (W3C Trace Context, level 1).
pub const TRACEPARENT: &str = "traceparent";

/// Where in which trace something happens.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceContext(SpanContext);

impl TraceContext {
    /// The context of a span; `None` where no trace is kept.
    pub fn of(span: &Span) -> Option<Self> {
        let context = span.context().span().span_context().clone();
        context.is_valid().then_some(Self(context))
    }

    /// The context of the span that this is called in.
    pub fn current() -> Option<Self> {
        Self::of(&Span::current())
    }

    /// What a peer handed over; `None` where it means nothing. Versions above 00 are read as far as 00 goes.
    pub fn parse(traceparent: &str) -> Option<Self> {
        let mut parts = traceparent.split('-');
        let mut hex = |digits: usize| {
            let part = parts.next().filter(|part| part.len() == digits)?;
            part.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')).then_some(part)
        };
        let (version, trace, span, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
        if version == "ff" || (version == "00" && parts.next().is_some()) {
            return None;
        }
        let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?);
        let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
        let context = SpanContext::new(trace, span, flags, true, TraceState::default());
        context.is_valid().then_some(Self(context))
    }

    /// For a peer.
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-{:02x}", self.0.trace_id(), self.0.span_id(), self.0.trace_flags().to_u8())
    }

    /// Makes `span`, which has not been entered yet, a child of what this names.
    pub fn adopt(&self, span: &Span) {
        // Refused only where no trace is kept, or too late, and then the span stands alone.
        let _ = span.set_parent(Context::new().with_remote_span_context(self.0.clone()));
    }

    /// Points from `span` to what this names: that belongs to it, and is another trace.
    pub fn link(&self, span: &Span) {
        span.add_link(self.0.clone());
    }
}

/// What the process is called in traces.
static NAME: OnceLock<&'static str> = OnceLock::new();

/// Says what this process is called in traces; the first word stands.
pub(crate) fn name(name: &'static str) {
    let _ = NAME.set(name);
}

/// The exporter of this process, for [`flush`].
static PROVIDER: Mutex<Option<SdkTracerProvider>> = Mutex::new(None);

/// Writes out what has ended and is not written yet, for a few seconds at most. Before a process ends.
pub fn flush() {
    if let Some(provider) = PROVIDER.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
        // What cannot be written is counted where it is lost.
        let _ = provider.force_flush();
    }
}

/// A layer that keeps spans and exports them as `config` says; `None` where it asks for none.
///
/// # Errors
/// [`BadInput`] when the address or the file cannot be used.
pub(crate) fn layer<S>(config: &TelemetryConfig) -> Result<Option<impl Layer<S> + use<S>>, BadInput>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let Some(exporter) = otlp::Exporter::new(config, NAME.get().copied().unwrap_or("hypereyes"))? else { return Ok(None) };
    let provider = SdkTracerProvider::builder().with_span_processor(exporter).build();
    let tracer = provider.tracer("hypereyes");
    *PROVIDER.lock().unwrap_or_else(PoisonError::into_inner) = Some(provider);
    // Our own spans, whatever the log shows; libraries' would be noise.
    let ours = Targets::new().with_target("hypereyes", LevelFilter::INFO);
    let layer = tracing_opentelemetry::layer().with_tracer(tracer).with_location(false).with_threads(false).with_tracked_inactivity(false);
    Ok(Some(layer.with_filter(ours)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_handed_over_as_the_standard_writes_them() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(TraceContext::parse(text).expect("the standard's example").traceparent(), text);
        let later = "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more";
        assert_eq!(TraceContext::parse(later).expect("a later version").traceparent(), text);
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-é",
        ] {
            assert_eq!(TraceContext::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn without_the_setting_no_span_has_a_context() {
        assert_eq!(TraceContext::of(&tracing::info_span!("alone")), None);
        assert_eq!(TraceContext::current(), None);
    }
}
