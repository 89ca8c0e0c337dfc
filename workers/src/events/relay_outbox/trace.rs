//! The span of what is relayed, for OpenTelemetry.

use firstcome_contract::event::Event;
use firstcome_process::telemetry;
use tracing::{Instrument, field::Empty};

use super::link::Row;

/// Publishes rows within a span, which belongs to the trace of their events if they are of one.
pub(super) async fn in_span<T, E>(
    rows: &[Row],
    publishing: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    if rows.is_empty() {
        return publishing.await;
    }
    let span = tracing::info_span!(
        "relay",
        otel.kind = "producer",
        otel.status_code = Empty,
        messaging.system = "rabbitmq",
        messaging.operation.type = "send",
        messaging.batch.message_count = rows.len(),
        events = rows.iter().map(|row| i64::from(row.events)).sum::<i64>(),
    );
    if !span.is_disabled() {
        let lines = rows.iter().flat_map(|row| row.lines.lines());
        // What cannot be read is published all the same: its consumer says so.
        let events: Vec<Event> =
            lines.filter_map(|line| Event::decode(line.as_bytes()).ok()).collect();
        telemetry::gather(&span, events.iter().map(|event| event.trace.as_ref()));
    }
    let published = publishing.instrument(span.clone()).await;
    if published.is_err() {
        span.record("otel.status_code", "ERROR");
    }
    published
}
