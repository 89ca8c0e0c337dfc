//! Setting aside what cannot be processed: a dead letter for each, and the outcome `failed` where it is
//! known whose job it was.

use std::{collections::HashSet, time::Instant};

use firstcome_contract::{
    failure::Failure,
    job::{Envelope, JobKind, Settled},
    trace::TraceParent,
};
use sqlx::{Connection, PgConnection};
use tracing::field::display;

use super::{
    attempt::{AttemptError, bounded, give_back},
    batch::Reject,
    fence,
    outcomes::{self, About, Entry},
    parts::{Parts, Then, Tuning},
    queue_context::QueueContext,
};
use crate::{
    RoleName,
    jobs::{outbox, outcome::Outcome},
};

/// A dead letter that is to be stored.
#[derive(Debug)]
pub(crate) struct Letter<'a> {
    pub(crate) reject: &'a Reject,
    pub(crate) failure: Failure,
    /// Attempts of this time; those before it was last redriven are added.
    pub(crate) attempts: i32,
}

/// Sets aside every record that is no job.
///
/// # Errors
/// As [`fail`].
pub(crate) async fn set_aside(
    context: QueueContext<'_>,
    rejects: &[Reject],
    tuning: &mut Tuning,
    keep_trying: &(impl Fn() -> bool + Sync),
) -> Result<Vec<Settled>, AttemptError> {
    // One log entry, however many: each is told by its dead letter.
    if let Some(first) = rejects.first() {
        let (queue, trace_id) = (context.queue, first.trace.map(TraceParent::id));
        let request_id = first.request_id.as_ref().map(display);
        let (count, reason) = (rejects.len(), &first.reason);
        tracing::error!(
            queue,
            count,
            reason,
            trace_id,
            request_id,
            "undecodable jobs, dead-lettering them"
        );
    }
    let letter = |reject| Letter { reject, failure: Failure::Undecodable, attempts: 1 };
    let letters: Vec<Letter<'_>> = rejects.iter().map(letter).collect();
    fail(context, &letters, tuning, keep_trying).await
}

/// Stores these letters, many in a transaction. Retried like a batch; one that is refused alone is
/// tried until it is taken: nothing of it can be refused for its content, unless somebody changed
/// the table.
///
/// # Errors
/// The last error, once `keep_trying` said no.
pub(crate) async fn fail(
    context: QueueContext<'_>,
    letters: &[Letter<'_>],
    tuning: &mut Tuning,
    keep_trying: &(impl Fn() -> bool + Sync),
) -> Result<Vec<Settled>, AttemptError> {
    let queue = context.queue;
    let mut settled = Vec::new();
    let mut parts = Parts::of(letters, tuning);
    while let Some(part) = parts.next() {
        let began = Instant::now();
        let error = match try_fail(context, part).await {
            Ok(mut now) => {
                settled.append(&mut now);
                parts.done(part, began.elapsed());
                continue;
            }
            Err(error) => error,
        };
        if error.is_final() || !keep_trying() {
            return Err(error);
        }
        let delay = match parts.failed(part, &error) {
            Then::Bisect | Then::LookUpKeys => continue,
            Then::Retry(delay) => delay,
            Then::GiveUp(_) => parts.again(part),
        };
        context.metrics.retried(context.family);
        tracing::warn!(queue, %error, ?delay, "dead letters not stored, retrying in place");
        tokio::time::sleep(delay).await;
    }
    Ok(settled)
}

async fn try_fail(
    context: QueueContext<'_>,
    letters: &[Letter<'_>],
) -> Result<Vec<Settled>, AttemptError> {
    let mut connection = context.pool.acquire().await?;
    let settled = bounded(fail_on(&mut connection, context, letters)).await;
    give_back(connection, &settled);
    settled
}

async fn fail_on(
    connection: &mut PgConnection,
    context: QueueContext<'_>,
    letters: &[Letter<'_>],
) -> Result<Vec<Settled>, AttemptError> {
    let accepted = || letters.iter().filter_map(|letter| Some((letter, letter.reject.accepted?)));
    let ids: Vec<_> = accepted().map(|(_, (id, _))| id.get()).collect();
    let mut transaction = connection.begin().await?;
    let past = fence::begin(&mut transaction, context.lease.into_iter(), &ids, false).await?;
    let rejects = letters.iter().map(|letter| (letter.reject, letter.attempts));
    outcomes::insert_dead_letters(&mut transaction, context.queue, rejects).await?;
    let (mut settled, nothing) = (Vec::new(), outbox::Rows::default());
    // The same job may have come twice.
    let mut seen = HashSet::new();
    // Of a kind that this version does not know it is known where it stood.
    let unknown = JobKind::ALL.into_iter().find(|kind| kind.family() == context.family);
    for kind in JobKind::ALL {
        let of_kind = accepted()
            .filter(|(_, (id, _))| id.kind().or(unknown) == Some(kind))
            .filter(|(_, (id, _))| !past.is_settled(*id) && seen.insert(*id));
        let entries: Vec<Entry> = of_kind
            .map(|(letter, (id, user))| {
                let job = Envelope::decode(&letter.reject.payload);
                let about = job.map(|job| About::of(&job)).unwrap_or_default();
                let entry = Entry::new(id, user, &Outcome::Failed(letter.failure)).about(about);
                entry.stood_in(context.lease)
            })
            .collect();
        if !entries.is_empty() {
            // The records of a batch that are no jobs are set aside before its jobs are settled.
            let now =
                outcomes::insert(&mut transaction, kind, &entries, &nothing, &past, false).await?;
            settled.extend(entries.into_iter().map(|entry| entry.settled(now)));
        }
    }
    transaction.commit().await?;
    context.metrics.settled(&settled);
    context.metrics.dead_lettered(RoleName::of(context.family).as_str(), letters.len());
    Ok(settled)
}
