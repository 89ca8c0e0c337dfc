//! The span of a batch, for OpenTelemetry.

use firstcome_contract::job::{Settled, Status};
use firstcome_process::telemetry;
use tracing::{Instrument, field::Empty};

use super::batch::Batch;

/// The most links of a span: it would not keep more by default.
const MAX_LINKS: usize = 128;

/// Settles a batch within a span of its own. It belongs to no trace of its jobs, since there are
/// many of them, and points to each instead.
pub(crate) async fn in_span<E>(
    queue: &str,
    batch: &Batch,
    settling: impl Future<Output = Result<Vec<Settled>, E>>,
) -> Result<Vec<Settled>, E> {
    if batch.jobs.is_empty() && batch.rejects.is_empty() {
        // A canary: nobody wants to see one every few seconds.
        return settling.await;
    }
    let span = tracing::info_span!(
        "settle",
        otel.kind = "consumer",
        otel.status_code = Empty,
        queue,
        jobs = batch.jobs.len() + batch.rejects.len(),
        succeeded = Empty,
        rejected = Empty,
        failed = Empty,
    );
    if span.is_disabled() {
        return settling.await;
    }
    for trace in batch.jobs.iter().filter_map(|job| job.envelope.trace).take(MAX_LINKS) {
        telemetry::link(&span, trace);
    }
    let settled = settling.instrument(span.clone()).await;
    match &settled {
        Ok(settled) => {
            let count = |status| settled.iter().filter(|job| job.status == status).count();
            span.record("succeeded", count(Status::Succeeded));
            span.record("rejected", count(Status::Rejected));
            span.record("failed", count(Status::Failed));
        }
        Err(_) => {
            span.record("otel.status_code", "ERROR");
        }
    }
    settled
}
