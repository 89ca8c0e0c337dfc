//! Traces: which of the client's a request belongs to, and its span in it.

use axum::{
    Router,
    extract::{MatchedPath, Request},
    http::{HeaderMap, header},
    middleware::{self, Next},
    response::Response,
};
use firstcome_contract::trace::TraceParent;
use firstcome_process::telemetry;
use tracing::{Instrument, field::Empty};
use utoipa::IntoParams;
use uuid::Uuid;

/// The client's trace (W3C Trace Context). A header that is invalid, or there twice, is none.
#[must_use]
pub fn parent(headers: &HeaderMap) -> Option<TraceParent> {
    let mut found = headers.get_all("traceparent").iter();
    match (found.next(), found.next()) {
        (Some(header), None) => TraceParent::parse(header.to_str().ok()?),
        _ => None,
    }
}

/// The header of a request for a job, for the documentation.
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
    if let Some(trace) = parent(request.headers()) {
        telemetry::follow(&span, trace);
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
            parent(&headers).map(|trace| trace.to_string())
        };
        assert_eq!(parent_of(&[VALID.as_bytes()]).as_deref(), Some(VALID));
        assert_eq!(parent_of(&[]), None);
        assert_eq!(parent_of(&[b"00-nonsense"]), None);
        assert_eq!(parent_of(&["\u{e9}".as_bytes()]), None);
        assert_eq!(parent_of(&[VALID.as_bytes(), VALID.as_bytes()]), None);
    }
}
