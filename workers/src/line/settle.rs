//! Settling: one transaction for a batch's effects and outcomes; retried in place while the
//! database is away, in smaller parts while it is slow, bisected down to the one poison job when it is
//! neither.

use std::time::Instant;

use firstcome_contract::{
    failure::Failure,
    job::{Envelope, JobKind, Settled},
    trace::TraceParent,
};
use firstcome_process::fault_point;
use sqlx::{Connection, PgConnection};
use tracing::field::display;

use super::{
    attempt::{AttemptError, bounded, give_back},
    batch::{Job, Reject, pieces, runs},
    dead_letter::{Letter, fail},
    duplicates::Past,
    fence,
    outcomes::{self, About, Entry},
    parts::{Parts, Then, Tuning},
    queue_context::QueueContext,
    repeats,
};
use crate::{
    RoleName,
    jobs::{outbox, outcome::Outcome, registry},
};

/// Settles the jobs, in order, however long the database is away; `keep_trying`
/// says whether another attempt makes sense.
///
/// # Errors
/// The last error, once `keep_trying` said no. Nothing of what was not returned is acknowledged.
pub(crate) async fn settle(
    context: QueueContext<'_>,
    jobs: &[Job],
    tuning: &mut Tuning,
    keep_trying: &(impl Fn() -> bool + Sync),
) -> Result<Vec<Settled>, AttemptError> {
    let queue = context.queue;
    let mut settled = Vec::with_capacity(jobs.len());
    let mut parts = Parts::of_pieces(pieces(jobs, Job::kind), tuning);
    while let Some(part) = parts.next() {
        let began = Instant::now();
        let error = match try_settle(context, part, parts.looks_up_keys()).await {
            Ok(mut now) => {
                settled.append(&mut now);
                parts.done(part, began.elapsed());
                continue;
            }
            Err(error) => error,
        };
        match (parts.failed(part, &error), part) {
            (Then::Retry(delay), _) => {
                if error.is_final() || !keep_trying() {
                    return Err(error);
                }
                context.metrics.retried(context.family);
                let jobs = part.len();
                tracing::warn!(queue, %error, ?delay, jobs, "batch not settled, retrying in place");
                tokio::time::sleep(delay).await;
            }
            (Then::LookUpKeys, _) => tracing::debug!(queue, "keys are taken, looking them up"),
            (Then::GiveUp(attempts), [job]) => {
                let (id, trace_id) =
                    (job.envelope.id, job.envelope.trace_parent().map(TraceParent::id));
                let request_id = job.envelope.request_id.as_ref().map(display);
                tracing::error!(
                    queue, %error, job_id = %id, trace_id, request_id,
                    "job cannot be processed, dead-lettering it"
                );
                let poison = reject(job, error.to_string());
                let failure = Failure::Unprocessable;
                let letter = Letter { reject: &poison, failure, attempts };
                let tuning = &mut Tuning::default();
                settled.extend(fail(context, &[letter], tuning, keep_trying).await?);
            }
            (Then::GiveUp(_) | Then::Bisect, _) => {
                let jobs = part.len();
                tracing::warn!(queue, %error, jobs, "batch refused, bisecting");
            }
        }
    }
    Ok(settled)
}

/// Makes one attempt, in one transaction, to settle these jobs.
async fn try_settle(
    context: QueueContext<'_>,
    jobs: &[Job],
    looks_up_keys: bool,
) -> Result<Vec<Settled>, AttemptError> {
    let mut connection = context.pool.acquire().await?;
    let part = [Part { context, jobs }];
    let settled = match bounded(settle_on(&mut connection, &part, looks_up_keys, false)).await {
        Err(error) => Err(error.explained(&mut connection).await),
        settled => settled,
    };
    give_back(connection, &settled);
    settled
}

/// Jobs of one queue, in its order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) context: QueueContext<'a>,
    pub(super) jobs: &'a [Job],
}

/// Settles parts of different queues in one transaction.
pub(super) async fn settle_on(
    connection: &mut PgConnection,
    parts: &[Part<'_>],
    looks_up_keys: bool,
    is_shared: bool,
) -> Result<Vec<Settled>, AttemptError> {
    let Some(Part { context, .. }) = parts.first() else { return Ok(Vec::new()) };
    let all = || parts.iter().flat_map(|part| part.jobs.iter().map(|job| (&part.context, job)));
    let ids: Vec<_> = all().map(|(_, job)| job.envelope.id.get()).collect();
    let leases = parts.iter().filter_map(|part| part.context.lease);
    let mut transaction = connection.begin().await?;
    let past = fence::begin(&mut transaction, leases, &ids, is_shared).await?;
    let new: Vec<_> = all().filter(|(_, job)| !past.is_settled(job.envelope.id)).collect();
    if new.is_empty() {
        return Ok(Vec::new());
    }
    if runs(&new, |(_, job)| job.kind()).nth(1).is_some() {
        // Each run takes its locks in the global order, but the next one begins at the front again.
        let jobs: Vec<&Envelope> = new.iter().map(|(_, job)| &job.envelope).collect();
        registry::lock_ahead(&mut transaction, &jobs).await?;
    }
    let mut settled = Vec::with_capacity(new.len());
    for (kind, run) in runs(&new, |(_, job)| job.kind()) {
        // Stored run by run: a later one finds the keys of an earlier one taken.
        let (entries, events) =
            settle_run(&mut transaction, kind, run, &past, looks_up_keys).await?;
        let now = outcomes::insert(&mut transaction, kind, &entries, &events, &past, true).await?;
        settled.extend(entries.into_iter().map(|entry| entry.settled(now)));
    }
    fault_point::pass(fault_point::MID_BATCH);
    transaction.commit().await?;
    fault_point::pass(fault_point::COMMITTED);
    let overdue = new.iter().filter(|(_, job)| past.may_have_forgotten(job.envelope.id)).count();
    context.metrics.settled(&settled);
    context.metrics.dead_lettered(RoleName::of(context.family).as_str(), overdue);
    Ok(settled)
}

/// Decides jobs of one kind, each from a queue, and sets aside what comes too late to be decided; what happened.
async fn settle_run(
    transaction: &mut PgConnection,
    kind: JobKind,
    jobs: &[(&QueueContext<'_>, &Job)],
    past: &Past,
    looks_up_keys: bool,
) -> Result<(Vec<Entry>, outbox::Rows), AttemptError> {
    let (overdue, waiting): (Vec<_>, Vec<_>) =
        jobs.iter().copied().partition(|(_, job)| past.may_have_forgotten(job.envelope.id));
    let envelopes: Vec<&Envelope> = waiting.iter().map(|(_, job)| &job.envelope).collect();
    let (entries, events) =
        repeats::decide(&mut *transaction, kind, &envelopes, looks_up_keys).await?;
    let events =
        outbox::pack(&events).map_err(|error| AttemptError::of_handler(kind, error.into()))?;
    let of_waiting = waiting.iter().zip(entries);
    let mut entries: Vec<Entry> =
        of_waiting.map(|((context, _), entry)| entry.stood_in(context.lease)).collect();
    for of_queue in overdue.chunk_by(|(one, _), (next, _)| one.queue == next.queue) {
        let Some((context, first)) = of_queue.first() else { continue };
        let (queue, trace_id) = (context.queue, first.envelope.trace_parent().map(TraceParent::id));
        let (count, id) = (of_queue.len(), first.envelope.id);
        let request_id = first.envelope.request_id.as_ref().map(display);
        tracing::error!(queue, count, job_id = %id, trace_id, request_id, "overdue jobs, dead-lettering them");
        let reason = "it came after its day was purged";
        let rejects: Vec<Reject> =
            of_queue.iter().map(|(_, job)| reject(job, reason.to_owned())).collect();
        let rejects = rejects.iter().map(|reject| (reject, 1));
        outcomes::insert_dead_letters(transaction, queue, rejects).await?;
    }
    let failed = Outcome::Failed(Failure::Overdue);
    entries.extend(overdue.into_iter().map(|(context, Job { envelope, .. })| {
        let entry = Entry::new(envelope.id, envelope.user_id, &failed);
        entry.about(About::of(envelope)).stood_in(context.lease)
    }));
    Ok((entries, events))
}

/// The record of a job that is set aside, for its dead letter.
fn reject(job: &Job, reason: String) -> Reject {
    Reject {
        accepted: Some((job.envelope.id, job.envelope.user_id)),
        trace: job.envelope.trace_parent(),
        request_id: job.envelope.request_id.clone(),
        reason,
        origin: job.origin.clone(),
        payload: job.payload.clone(),
    }
}
