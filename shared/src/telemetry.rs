//! Logging and tracing for both programs.

use std::{env, panic::resume_unwind, thread, time::Duration};

use opentelemetry::{
    Context, KeyValue, SpanId, TraceFlags, TraceId,
    trace::{SpanContext, TraceContextExt, TraceState, TracerProvider},
};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    resource::{EnvResourceDetector, TelemetryResourceDetector},
    trace::SdkTracerProvider,
};
use reqwest::{Certificate, blocking::Client};
use rustls::crypto::ring;
use tracing::{Span, Subscriber, level_filters::LevelFilter};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt, Targets, filter_fn},
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

use crate::trace::TraceParent;

/// For the end of `--help`.
pub const HELP: &str = "\
Logging: RUST_LOG (default info), to standard error.
Tracing: OTEL_EXPORTER_OTLP_ENDPOINT, such as http://127.0.0.1:4318, gets the spans by OTLP (HTTP,
protobuf); without it there are none. OpenTelemetry's other variables count as well, such as
OTEL_SERVICE_NAME, OTEL_EXPORTER_OTLP_HEADERS, OTEL_TRACES_SAMPLER and OTEL_BSP_MAX_QUEUE_SIZE.";

/// How long one request to the collector may take.
const EXPORT_DEADLINE: Duration = Duration::from_secs(10);
/// How long the program's end may be held up by spans that wait for the collector.
const FLUSH_DEADLINE: Duration = Duration::from_secs(2);

/// What [`init`] has set up. When dropped, it sends the spans that still wait, within a bound.
#[must_use]
#[derive(Debug)]
pub struct Telemetry(Option<SdkTracerProvider>);

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(provider) = &self.0
            && let Err(error) = provider.shutdown_with_timeout(FLUSH_DEADLINE)
        {
            tracing::warn!(%error, "the last spans are lost");
        }
    }
}

/// Why spans cannot be exported.
#[derive(Debug, thiserror::Error)]
#[error("cannot export spans (OTEL_EXPORTER_OTLP_ENDPOINT is set)")]
pub enum TelemetryError {
    /// What the environment asks for cannot be done.
    Exporter(#[from] ExporterBuildError),
    /// There is no way to send anything.
    Client(#[from] reqwest::Error),
}

/// Writes log lines to standard error, filtered by `RUST_LOG` (default `info`; lapin and sqlx's pool log
/// each failure that we log again with more context, so they are quieter). With
/// `OTEL_EXPORTER_OTLP_ENDPOINT` it also sends spans to a collector: from a thread of its own, which
/// gets them through a bounded queue, so a collector that is slow or away costs spans only.
///
/// # Errors
/// Tracing is asked for, but not as it can be done, such as with a malformed URL.
pub fn init(service: &'static str) -> Result<Telemetry, TelemetryError> {
    let provider = exports().then(|| provider(service)).transpose()?;
    let lines = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,lapin=off,sqlx=warn,sqlx_core::pool=off"));
    // Spans are for the collector: without one they are disabled, which costs nothing. The hint keeps
    // that of the other filter, below which nothing is even asked.
    let events = filter_fn(|metadata| metadata.is_event()).with_max_level_hint(LevelFilter::TRACE);
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(std::io::stderr)
        .with_filter(lines.and(events));
    let registry = tracing_subscriber::registry().with(lines);
    match &provider {
        Some(provider) => registry.with(spans(provider, service)).init(),
        // No layer, not even `None`: that would have every disabled span ask again.
        None => registry.init(),
    }
    Ok(Telemetry(provider))
}

/// Whether the environment asks for spans.
#[must_use]
pub fn exports() -> bool {
    let set = |variable| env::var_os(variable).is_some_and(|value| !value.is_empty());
    set("OTEL_EXPORTER_OTLP_ENDPOINT") || set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
}

fn provider(service: &'static str) -> Result<SdkTracerProvider, TelemetryError> {
    let exporter = SpanExporter::builder().with_http().with_http_client(client()?).build()?;
    let named = env::var("OTEL_SERVICE_NAME").ok().filter(|name| !name.is_empty());
    // What comes later wins.
    let resource = Resource::builder_empty()
        .with_service_name(service)
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_detector(Box::new(EnvResourceDetector::new()))
        .with_attributes(named.map(|name| KeyValue::new("service.name", name)));
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource.build())
        .build())
}

/// The exporter's thread knows no async runtime, so its client must block.
fn client() -> reqwest::Result<Client> {
    // Who was first installed the same one.
    let _ = ring::default_provider().install_default();
    let build = || {
        // As for the other connections, not the system's list: a container may have none.
        let trusted = webpki_root_certs::TLS_SERVER_ROOT_CERTS
            .iter()
            .map(|certificate| Certificate::from_der(certificate))
            .collect::<reqwest::Result<Vec<_>>>()?;
        Client::builder().timeout(EXPORT_DEADLINE).tls_certs_only(trusted).build()
    };
    // It refuses to be made where blocking is forbidden, as in an async main.
    thread::scope(|scope| scope.spawn(build).join()).unwrap_or_else(|panic| resume_unwind(panic))
}

/// Our own spans, and the log lines written within them.
fn spans<S>(provider: &SdkTracerProvider, service: &'static str) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer(service))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_filter(Targets::new().with_target("firstcome", LevelFilter::INFO))
}

/// Makes a span, before it is entered, a part of the client's trace.
pub fn follow(span: &Span, trace: TraceParent) {
    // An error says that nobody listens.
    let _ = span.set_parent(Context::new().with_remote_span_context(trace.into()));
}

/// Points from a span to one that it is not a part of, such as from a batch to one of its jobs.
pub fn link(span: &Span, trace: TraceParent) {
    span.add_link(trace.into());
}

impl From<TraceParent> for SpanContext {
    fn from(trace: TraceParent) -> Self {
        let TraceParent { trace_id, parent_id, flags } = trace;
        let (trace_id, parent_id) = (TraceId::from(trace_id), SpanId::from(parent_id));
        Self::new(trace_id, parent_id, TraceFlags::new(flags), true, TraceState::NONE)
    }
}
