//! Traces: which of the client's a request belongs to, and its span in it.

use axum::{
    Router,
    extract::{MatchedPath, Request},
    http::{HeaderMap, header},
    middleware::{self, Next},
    response::Response,
};
use firstcome_contract::{
    job::Envelope,
    trace::{Trace, TraceParent, TraceState},
};
use firstcome_process::telemetry;
use tracing::{Instrument, Span, field::Empty};
use utoipa::IntoParams;
use uuid::Uuid;

/// The client's trace (W3C Trace Context). A `traceparent` that is invalid, or there twice, is none; a state in several
/// headers is one.
#[must_use]
pub fn given(headers: &HeaderMap) -> Option<Trace> {
    let parent = parent(headers)?;
    let states = headers.get_all("tracestate").iter().map(|state| state.to_str().ok());
    let state =
        states.collect::<Option<Vec<_>>>().and_then(|all| TraceState::parse(&all.join(",")));
    Some(Trace { parent, state })
}

/// The same without the state.
pub(super) fn parent(headers: &HeaderMap) -> Option<TraceParent> {
    let mut found = headers.get_all("traceparent").iter();
    let (Some(header), None) = (found.next(), found.next()) else { return None };
    TraceParent::parse(header.to_str().ok()?)
}

/// Puts a job into its line, within a span of its own where its request has one.
pub(crate) async fn publishing<T>(envelope: &Envelope, work: impl Future<Output = T>) -> T {
    let span = if Span::current().is_none() {
        Span::none()
    } else {
        tracing::info_span!(
            "publish",
            otel.kind = "producer",
            messaging.system = "rabbitmq",
            messaging.operation.type = "send",
            messaging.destination.name = envelope.job.kind().family().as_str(),
            job.id = %envelope.id,
        )
    };
    work.instrument(span).await
}

/// The headers of a request for a job, for the documentation.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes what `parent` reads")]
pub(crate) struct TraceHeader {
    /// The caller's trace (W3C Trace Context): travels with the job and stays with it if it cannot
    /// be processed. What is invalid is ignored.
    #[param(
        rename = "traceparent",
        required = false,
        example = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    )]
    traceparent: String,
    /// What the caller's own tracing wants to be passed on with it: at most 512 characters, else ignored.
    #[param(required = false, example = "congo=t61rcWkgMzE")]
    tracestate: String,
}

/// Every request within a span, if anyone collects them.
pub(crate) fn spans<S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    if telemetry::exports() { router.layer(middleware::from_fn(span)) } else { router }
}

async fn span(request: Request, next: Next) -> Response {
    let method = request.method().as_str();
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let span = tracing::info_span!(
        "request",
        otel.name = [method].into_iter().chain(route).collect::<Vec<_>>().join(" "),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method,
        http.route = route,
        http.response.status_code = Empty,
        job.id = Empty,
    );
    if let Some(trace) = given(request.headers()) {
        telemetry::follow(&span, &trace);
    }
    let asked = job_id(request.uri().path());
    let response = next.run(request).instrument(span.clone()).await;
    let location = response.headers().get(header::LOCATION);
    let accepted = location.and_then(|path| job_id(path.to_str().ok()?));
    if let Some(id) = asked.or(accepted) {
        span.record("job.id", tracing::field::display(id));
    }
    span.record("http.response.status_code", response.status().as_u16());
    if response.status().is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    response
}

/// The job of a poll's path, or of an answer's `Location`.
fn job_id(path: &str) -> Option<Uuid> {
    path.strip_prefix("/api/jobs/")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_valid_header_is_the_trace() {
        const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let parent_of = |values: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("Traceparent", value.to_vec().try_into().unwrap());
            }
            given(&headers).map(|trace| trace.parent.to_string())
        };
        let state_of = |states: &[&[u8]]| {
            let parent = ("traceparent", VALID.as_bytes());
            let states = states.iter().map(|state| ("tracestate", *state));
            let headers = [parent].into_iter().chain(states);
            let headers = headers.map(|(name, value)| {
                (header::HeaderName::from_static(name), value.to_vec().try_into().unwrap())
            });
            let trace = given(&headers.fold(HeaderMap::new(), |mut headers, (name, value)| {
                headers.append(name, value);
                headers
            }));
            trace.unwrap().state.map(|state| state.as_str().to_owned())
        };
        assert_eq!(state_of(&[]), None);
        assert_eq!(state_of(&[b"a=1", b"b=2"]).as_deref(), Some("a=1,b=2"));
        assert_eq!(state_of(&[b"a=1", "\u{e9}".as_bytes()]), None, "not by halves");
        assert_eq!(parent_of(&[VALID.as_bytes()]).as_deref(), Some(VALID));
        assert_eq!(parent_of(&[]), None);
        assert_eq!(parent_of(&[b"00-nonsense"]), None);
        assert_eq!(parent_of(&["\u{e9}".as_bytes()]), None);
        assert_eq!(parent_of(&[VALID.as_bytes(), VALID.as_bytes()]), None);
    }
}
