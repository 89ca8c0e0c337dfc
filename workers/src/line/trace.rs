//! The span of a batch, for OpenTelemetry.

use std::collections::HashMap;

use firstcome_contract::{
    job::{JobId, Settled, Status},
    trace::Trace,
};
use firstcome_process::telemetry;
use tracing::{Instrument, Span, field::Empty};

use super::batch::Batch;

/// Settles a batch within a span of its own. It belongs to no trace of its jobs, since there are
/// many of them, and points to each instead; each of these has a span of the job, which points to the batch.
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
        messaging.system = "rabbitmq",
        messaging.operation.type = "process",
        messaging.destination.name = queue,
        messaging.batch.message_count = batch.messages,
        queue,
        jobs = batch.jobs.len() + batch.rejects.len(),
        succeeded = Empty,
        rejected = Empty,
        failed = Empty,
    );
    if span.is_disabled() {
        return settling.await;
    }
    let traced = batch.jobs.iter().map(|job| &job.envelope);
    let traced =
        traced.filter_map(|job| Some((job.id, job.trace.as_ref()?))).take(telemetry::MAX_LINKS);
    let traced: Vec<(JobId, &Trace)> = traced.collect();
    for (_, trace) in &traced {
        telemetry::link(&span, trace);
    }
    let of_jobs = telemetry::trace(&span).map(|batch| of_jobs(queue, &batch, &traced));
    let settled = settling.instrument(span.clone()).await;
    for job in settled.iter().flatten() {
        if let Some(span) = of_jobs.as_ref().and_then(|spans| spans.get(&job.job_id)) {
            span.record("outcome", job.status.as_str());
        }
    }
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

/// A span for each of these jobs in its client's trace, until it is dropped.
fn of_jobs(queue: &str, batch: &Trace, jobs: &[(JobId, &Trace)]) -> HashMap<JobId, Span> {
    let spans = jobs.iter().map(|(id, trace)| {
        let span = tracing::info_span!(
            "process",
            otel.kind = "consumer",
            messaging.system = "rabbitmq",
            messaging.operation.type = "process",
            messaging.destination.name = queue,
            job.id = %id,
            outcome = Empty,
        );
        telemetry::follow(&span, trace);
        telemetry::link(&span, batch);
        (*id, span)
    });
    spans.collect()
}
