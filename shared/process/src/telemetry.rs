//! Logging and tracing for both programs.

use std::{
    collections::HashMap,
    env, fmt,
    panic::resume_unwind,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

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
use reqwest::blocking::Client;
use tracing::{Event, Level, Span, Subscriber, callsite::Identifier, level_filters::LevelFilter};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt, Targets, filter_fn},
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Format, Full, Json, JsonFields, Writer},
    },
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

use firstcome_contract::trace::{self as contract, Trace, TraceParent};

use crate::{certificates, request_id};

/// For the end of `--help`.
pub const HELP: &str = "\
Logging: RUST_LOG (default info), to standard error; of each warning at most 5 in 10 seconds.
LOG_FORMAT=json writes each line as an object (default text).
Tracing: OTEL_EXPORTER_OTLP_ENDPOINT, such as http://127.0.0.1:4318, gets the spans by OTLP (HTTP,
protobuf); without it there are none. OpenTelemetry's other variables count as well, such as
OTEL_SERVICE_NAME, OTEL_EXPORTER_OTLP_HEADERS, OTEL_TRACES_SAMPLER and OTEL_BSP_MAX_QUEUE_SIZE.";

/// Where the collector is.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];
/// How long one request to the collector may take.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the program's end may be held up by spans that wait for the collector.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// How often the same warning is told in [`WARNING_INTERVAL`]: in an outage every line and every role tries
/// again each second, and has the same to say.
const MOST_WARNINGS: u32 = 5;
const WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// What [`init`] has set up. When dropped, it sends the spans that still wait, within a bound.
#[must_use]
#[derive(Debug)]
pub struct Telemetry(Option<SdkTracerProvider>);

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(provider) = &self.0
            && let Err(error) = provider.shutdown_with_timeout(FLUSH_TIMEOUT)
        {
            tracing::warn!(%error, "the last spans are lost");
        }
    }
}

/// Why spans cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// Lines cannot be written so.
    #[error("LOG_FORMAT is text or json, not {0:?}")]
    Format(String),
    /// What the environment asks for cannot be done.
    #[error("cannot export spans: {0}")]
    Exporter(String),
    /// The HTTP client that would send the spans cannot be made.
    #[error("cannot export spans (OTEL_EXPORTER_OTLP_ENDPOINT is set)")]
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
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let writes_json = writes_json()?;
    let layer = if writes_json {
        layer.fmt_fields(JsonFields::new()).event_format(FewWarnings::json()).boxed()
    } else {
        let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        layer.with_ansi(is_terminal).event_format(FewWarnings::text()).boxed()
    };
    let registry = tracing_subscriber::registry().with(layer.with_filter(lines.and(events)));
    match &provider {
        Some(provider) => registry.with(spans(provider, service)).init(),
        // No layer, not even `None`: that would have every disabled span ask again.
        None => registry.init(),
    }
    if writes_json {
        std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
    }
    Ok(Telemetry(provider))
}

/// Leaves out warnings that were told often enough lately, by the place in the code that tells them. A format
/// and no filter: one that says no to single events upsets the state of the filters per layer.
#[derive(Debug)]
struct FewWarnings<F> {
    format: F,
    /// A line that says this, too.
    named: fn(line: &str, name: &str, value: &str) -> String,
    told: Mutex<HashMap<Identifier, Told>>,
}

impl FewWarnings<Format<Full>> {
    fn text() -> Self {
        let named = |line: &str, name: &str, value: &str| format!("{line} {name}={value}");
        Self { format: Format::default(), named, told: Mutex::default() }
    }
}

impl FewWarnings<Format<Json>> {
    fn json() -> Self {
        let named = |line: &str, name: &str, value: &str| {
            let object = line.strip_suffix('}').unwrap_or(line);
            format!("{object},\"{name}\":{}}}", serde_json::Value::from(value))
        };
        let format = Format::default().json().flatten_event(true);
        Self { format, named, told: Mutex::default() }
    }
}

/// Whether lines are for programs.
fn writes_json() -> Result<bool, TelemetryError> {
    match env::var("LOG_FORMAT").as_deref() {
        Err(env::VarError::NotPresent) | Ok("" | "text") => Ok(false),
        Ok("json") => Ok(true),
        Ok(other) => Err(TelemetryError::Format(other.to_owned())),
        Err(error) => Err(TelemetryError::Format(error.to_string())),
    }
}

/// How often a warning came since its interval began.
#[derive(Debug)]
struct Told {
    count: u32,
    since: Instant,
}

impl Told {
    /// Counts one more; whether it is to be told.
    fn again(&mut self, now: Instant) -> bool {
        if now.duration_since(self.since) >= WARNING_INTERVAL {
            *self = Self { count: 0, since: now };
        }
        self.count += 1;
        self.count <= MOST_WARNINGS
    }
}

impl<S, N, F: FormatEvent<S, N>> FormatEvent<S, N> for FewWarnings<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let what = event.metadata();
        if *what.level() == Level::WARN {
            let now = Instant::now();
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            let told = told.entry(what.callsite()).or_insert(Told { count: 0, since: now });
            if !told.again(now) {
                return Ok(());
            }
        }
        let names = request_id::names(|name| what.fields().field(name).is_some());
        if names.is_empty() {
            return self.format.format_event(context, writer, event);
        }
        let mut line = String::new();
        self.format.format_event(context, Writer::new(&mut line), event)?;
        let line = line.trim_end_matches('\n').to_owned();
        let line = names.iter().fold(line, |line, (name, value)| (self.named)(&line, name, value));
        writeln!(writer, "{line}")
    }
}

/// Whether the environment asks for spans.
#[must_use]
pub fn exports() -> bool {
    let set = |variable| env::var_os(variable).is_some_and(|value| !value.is_empty());
    ENDPOINTS.into_iter().any(set)
}

/// The exporter shows the whole endpoint, which may hold a password.
fn without_endpoint(error: &ExporterBuildError) -> TelemetryError {
    let endpoints = ENDPOINTS.into_iter().filter_map(|variable| env::var(variable).ok());
    let told = endpoints
        .fold(error.to_string(), |told, endpoint| told.replace(&format!(" '{endpoint}'"), ""));
    TelemetryError::Exporter(told)
}

fn provider(service: &'static str) -> Result<SdkTracerProvider, TelemetryError> {
    let exporter = SpanExporter::builder().with_http().with_http_client(client()?).build();
    let exporter = exporter.map_err(|error| without_endpoint(&error))?;
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
    let trusted = certificates::trusted(None)?;
    let build = || Client::builder().timeout(EXPORT_TIMEOUT).tls_certs_only(trusted).build();
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

/// The most links of a span: it would not keep more by default.
pub const MAX_LINKS: usize = 128;

/// Makes a span, before it is entered, a part of the client's trace.
pub fn follow(span: &Span, trace: &Trace) {
    // An error says that nobody listens.
    let _ = span.set_parent(Context::new().with_remote_span_context(context(trace)));
}

/// Points from a span to one that it is not a part of, such as from a batch to one of its jobs.
pub fn link(span: &Span, trace: &Trace) {
    span.add_link(context(trace));
}

/// Where a span belongs that is about all of these: into their trace if they are of one, which is returned; else it is of
/// its own, and points to theirs.
pub fn gather<'a>(
    span: &Span,
    traces: impl Iterator<Item = Option<&'a Trace>> + Clone,
) -> Option<&'a Trace> {
    let first = traces.clone().flatten().next()?;
    let is_first = |trace: Option<&Trace>| {
        trace.is_some_and(|trace| trace.parent.trace_id == first.parent.trace_id)
    };
    if traces.clone().all(is_first) {
        follow(span, first);
        return Some(first);
    }
    traces.flatten().take(MAX_LINKS).for_each(|trace| link(span, trace));
    None
}

/// The span as whoever it calls should know it; `None` if nobody collects it.
#[must_use]
pub fn trace(span: &Span) -> Option<Trace> {
    let context = span.context();
    let context = context.span().span_context().clone();
    let parent = TraceParent {
        trace_id: u128::from_be_bytes(context.trace_id().to_bytes()),
        parent_id: u64::from_be_bytes(context.span_id().to_bytes()),
        flags: context.trace_flags().to_u8(),
    };
    let state = contract::TraceState::parse(&context.trace_state().header());
    context.is_valid().then_some(Trace { parent, state })
}

fn context(trace: &Trace) -> SpanContext {
    let TraceParent { trace_id, parent_id, flags } = trace.parent;
    let (trace_id, parent_id) = (TraceId::from(trace_id), SpanId::from(parent_id));
    // One that is not as the standard wants it is not passed on.
    let state = trace.state.as_ref().and_then(|state| state.as_str().parse().ok());
    SpanContext::new(
        trace_id,
        parent_id,
        TraceFlags::new(flags),
        true,
        state.unwrap_or(TraceState::NONE),
    )
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use uuid::Uuid;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written of what is told.
    fn written(telling: impl FnOnce()) -> String {
        let lines = Lines::default();
        let written = lines.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_writer(move || lines.clone())
            .event_format(FewWarnings::text());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), telling);
        String::from_utf8(written.0.lock().unwrap().clone()).unwrap()
    }

    #[tokio::test]
    async fn an_object_names_the_request_that_it_is_about() {
        let lines = Lines::default();
        let written = lines.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(move || lines.clone())
            .fmt_fields(JsonFields::new())
            .event_format(FewWarnings::json());
        let registry = tracing_subscriber::registry().with(layer);
        let id = r#"o"n\\e}"#;
        let trace = TraceParent { trace_id: 0xabc, parent_id: 1, flags: 0 };
        let answering = async {
            tracing::subscriber::with_default(registry, || {
                tracing::warn!(status = 503, "slow {}", "\"and\nlong\"");
                request_id::is_about("job_id", Uuid::from_u128(0x2a));
                tracing::warn!("known");
                tracing::warn!(job_id = "another", "told");
            });
        };
        request_id::scope(id.to_owned(), Some(trace), answering).await;
        let written = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<serde_json::Value> =
            written.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let [line, known, told] = &lines[..] else { panic!("{written}") };
        for line in &lines {
            assert_eq!(line["trace_id"], "00000000000000000000000000000abc");
        }
        assert_eq!(line.get("job_id"), None);
        assert_eq!(known["job_id"], "00000000-0000-0000-0000-00000000002a");
        assert_eq!(told["job_id"], "another");
        assert_eq!(written.matches("job_id").count(), 2);
        assert_eq!(line["request_id"], id);
        assert_eq!(line["status"], 503);
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["message"], "slow \"and\nlong\"");
    }

    #[tokio::test]
    async fn a_line_names_the_request_that_it_is_about() {
        let named = |id: &str| {
            let answering = async { written(|| tracing::warn!(status = 503, "slow")) };
            request_id::scope(id.to_owned(), None, answering)
        };
        let (one, other) = (named("one").await, named("two").await);
        assert!(one.ends_with("slow status=503 request_id=one\n"), "{one}");
        assert!(other.ends_with(" request_id=two\n"), "{other}");
        let elsewhere =
            || tokio::spawn(request_id::carried(async { written(|| tracing::warn!("slow")) }));
        let carried =
            request_id::scope("three".to_owned(), None, async { elsewhere().await.unwrap() });
        assert!(carried.await.ends_with(" request_id=three\n"));
        assert!(elsewhere().await.unwrap().ends_with("slow\n"));
        let none = written(|| tracing::warn!("slow"));
        assert!(none.ends_with("slow\n"), "{none}");
    }

    #[test]
    fn the_same_warning_is_told_a_few_times() {
        let written = written(|| {
            for line in 0..100 {
                tracing::warn!(line, "away");
                tracing::error!(line, "lost");
            }
            tracing::warn!("another");
        });
        let told = |what| written.matches(what).count();
        assert_eq!((told("away"), told("lost"), told("another")), (5, 100, 1), "{written}");
    }

    #[test]
    fn it_is_told_again_after_a_while() {
        let start = Instant::now();
        let mut told = Told { count: 0, since: start };
        let mut often = |at| (0..100).filter(|_| told.again(at)).count();
        let interval = WARNING_INTERVAL;
        assert_eq!([start, start + interval / 2, start + interval].map(&mut often), [5, 0, 5]);
    }
}
