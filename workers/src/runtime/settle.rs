//! Settling: one transaction for a batch's effects and outcomes; retried in place while the
//! database is away, bisected down to the one poison job when it is not.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use firstcome_shared::{
    ids::UserId,
    job::{Envelope, JobId, JobKind, Settled},
    retry::Retry,
};
use sqlx::{Connection, PgConnection, PgPool};
use tracing::field::display;

use super::{
    attempt::{AttemptError, bounded, give_back},
    batch::{Job, Reject},
    lease::Lease,
    record::{self, Entry, KeyOwner, Past},
};
use crate::{
    monitor::Metrics,
    outcome::{Failure, Outcome},
    registry,
};

/// Longest pause between two attempts while the database is away.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Where and on whose behalf jobs are settled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Desk<'a> {
    pub(super) pool: &'a PgPool,
    pub(super) kind: JobKind,
    pub(super) queue: &'a str,
    /// The line that they stood in; `None` for what the broker gave up on, which is nobody's.
    pub(super) lease: Option<&'a Lease>,
    pub(super) metrics: &'a Metrics,
}

/// Gives every line that is no job its dead letter, and its outcome where it was one once.
///
/// # Errors
/// As [`settle`].
pub(super) async fn set_aside(
    desk: Desk<'_>,
    rejects: &[Reject],
    keep_trying: &(impl Fn() -> bool + Sync),
) -> Result<Vec<Settled>, AttemptError> {
    let queue = desk.queue;
    let mut settled = Vec::new();
    for reject in rejects {
        let trace = reject.trace.map(display);
        tracing::error!(queue, reason = reject.reason, trace, "undecodable job, dead-lettering it");
        let letter = Letter { reject, failure: Failure::Undecodable, attempts: 1 };
        settled.extend(fail(desk, &letter, keep_trying).await?);
    }
    Ok(settled)
}

/// Settles the jobs, in order, however long the database is away; `keep_trying`
/// says whether another attempt makes sense.
///
/// # Errors
/// The last error, once `keep_trying` said no. Nothing of what was not returned is acknowledged.
pub(super) async fn settle(
    desk: Desk<'_>,
    jobs: &[Job],
    keep_trying: &(impl Fn() -> bool + Sync),
) -> Result<Vec<Settled>, AttemptError> {
    let queue = desk.queue;
    let mut settled = Vec::with_capacity(jobs.len());
    // A stack of parts, next one on top. Only a deterministic failure splits one.
    let mut parts = if jobs.is_empty() { Vec::new() } else { vec![jobs] };
    let mut retry = Retry::new(Duration::from_millis(10), LONGEST_PAUSE);
    // Of the part in hand; races are counted apart, or an outage would use them up.
    let (mut attempts, mut races) = (0, 0);
    // What contradicts the data again and again is searched for, with fewer attempts for each part.
    let mut is_bisected = false;
    while let Some(jobs) = parts.pop() {
        attempts += 1;
        let error = match try_settle(desk, jobs).await {
            Ok(mut part) => {
                settled.append(&mut part);
                retry.reset();
                (attempts, races) = (0, 0);
                continue;
            }
            Err(error) => error,
        };
        races += u32::from(error.is_race());
        if error.is_transient(races, is_bisected) {
            if error.is_final() || !keep_trying() {
                return Err(error);
            }
            let delay = retry.next_delay();
            desk.metrics.retried(desk.kind);
            let jobs_in_hand = jobs.len();
            tracing::warn!(queue, %error, ?delay, jobs_in_hand, "batch not settled, retrying in place");
            tokio::time::sleep(delay).await;
            parts.push(jobs);
        } else if let [job] = jobs {
            let (id, trace) = (job.envelope.id, job.envelope.trace.map(display));
            tracing::error!(queue, %error, job_id = %id, trace, "job cannot be processed, dead-lettering it");
            let poison = reject(job, error.to_string());
            let letter = Letter { reject: &poison, failure: Failure::Unprocessable, attempts };
            settled.extend(fail(desk, &letter, keep_trying).await?);
            (attempts, races) = (0, 0);
        } else {
            tracing::warn!(queue, %error, jobs = jobs.len(), "batch refused by the database, bisecting");
            is_bisected = true;
            (attempts, races) = (0, 0);
            let (first, second) = jobs.split_at(jobs.len() / 2);
            parts.extend([second, first]);
        }
    }
    Ok(settled)
}

/// One attempt: one transaction.
async fn try_settle(desk: Desk<'_>, jobs: &[Job]) -> Result<Vec<Settled>, AttemptError> {
    let mut connection = desk.pool.acquire().await?;
    let settled = bounded(settle_on(&mut connection, desk, jobs)).await;
    give_back(connection, &settled);
    settled
}

async fn settle_on(
    connection: &mut PgConnection,
    desk: Desk<'_>,
    jobs: &[Job],
) -> Result<Vec<Settled>, AttemptError> {
    let kind = desk.kind;
    let ids: Vec<_> = jobs.iter().map(|job| job.envelope.id.get()).collect();
    let mut transaction = connection.begin().await?;
    let past = begin(&mut transaction, desk, &ids).await?;
    let new = jobs.iter().filter(|job| !past.is_settled(job.envelope.id));
    let (overdue, waiting): (Vec<&Job>, Vec<&Job>) =
        new.partition(|job| past.may_have_forgotten(job.envelope.id));
    if overdue.is_empty() && waiting.is_empty() {
        return Ok(Vec::new());
    }
    let waiting: Vec<&Envelope> = waiting.iter().map(|job| &job.envelope).collect();
    let mut entries = decide(&mut transaction, kind, &waiting).await?;
    let dead_letters = overdue.len();
    for job in overdue {
        let (id, user) = (job.envelope.id, job.envelope.user_id);
        let (queue, trace) = (desk.queue, job.envelope.trace.map(display));
        tracing::error!(queue, job_id = %id, trace, "overdue job, dead-lettering it");
        let reject = reject(job, "it came after its day was purged".to_owned());
        record::insert_dead_letter(&mut transaction, queue, &reject, 1).await?;
        entries.push(Entry::new(id, user, &Outcome::Failed(Failure::Overdue)));
    }
    let line = desk.lease.map(|lease| (lease, &past));
    let now = record::insert(&mut transaction, kind, &entries, line).await?;
    transaction.commit().await?;
    let settled: Vec<Settled> = entries.into_iter().map(|entry| entry.settled(now)).collect();
    desk.metrics.settled(&settled);
    desk.metrics.dead_lettered(kind.as_str(), dead_letters);
    Ok(settled)
}

/// See [`record::begin`].
async fn begin(
    transaction: &mut PgConnection,
    desk: Desk<'_>,
    ids: &[uuid::Uuid],
) -> Result<Past, AttemptError> {
    record::begin(transaction, desk.lease, ids).await?.ok_or(AttemptError::Fenced)
}

/// A job that is set aside.
fn reject(job: &Job, reason: String) -> Reject {
    Reject {
        accepted: Some((job.envelope.id, job.envelope.user_id)),
        trace: job.envelope.trace,
        reason,
        origin: job.origin.clone(),
        payload: job.payload.clone(),
    }
}

/// Decides jobs that have no outcome yet: those whose idempotency key is taken repeat its owner's
/// outcome, the others go to the handler.
async fn decide(
    transaction: &mut PgConnection,
    kind: JobKind,
    jobs: &[&Envelope],
) -> Result<Vec<Entry>, sqlx::Error> {
    let mut owners = record::key_owners(transaction, kind, jobs).await?;

    // The first job of the batch with a free key takes it; later ones with that key wait for it.
    let mut taken: HashSet<(UserId, &str)> = HashSet::new();
    let fresh: Vec<&Envelope> = jobs
        .iter()
        .copied()
        .filter(|job| match &job.idempotency {
            Some(idempotency) => {
                !owners.contains_key(&(job.user_id, idempotency.key.clone()))
                    && taken.insert((job.user_id, &idempotency.key))
            }
            None => true,
        })
        .collect();
    let outcomes = if fresh.is_empty() {
        Vec::new()
    } else {
        registry::apply(kind, transaction, &fresh).await?
    };
    debug_assert_eq!(outcomes.len(), fresh.len(), "a handler owes one outcome per job");
    let outcomes: HashMap<JobId, Outcome> = fresh.iter().map(|job| job.id).zip(outcomes).collect();

    // In the order of the line, so that an owner's entry exists before its replays.
    let mut entries = Vec::with_capacity(jobs.len());
    for job in jobs {
        let decided = outcomes.get(&job.id).map(|outcome| Entry::new(job.id, job.user_id, outcome));
        let entry = match (decided, &job.idempotency) {
            (Some(entry), None) => entry,
            (Some(mut entry), Some(idempotency)) => {
                let owner = KeyOwner::of(&entry, &idempotency.fingerprint);
                owners.insert((job.user_id, idempotency.key.clone()), owner);
                entry.idempotency = Some(idempotency.clone());
                entry
            }
            (None, Some(idempotency)) => {
                let owner = owners.get(&(job.user_id, idempotency.key.clone()));
                Entry::replay(job, idempotency, owner.ok_or(sqlx::Error::RowNotFound)?)
            }
            (None, None) => return Err(sqlx::Error::RowNotFound),
        };
        entries.push(entry);
    }
    Ok(entries)
}

/// A dead letter to be, and the outcome that goes with it.
struct Letter<'a> {
    reject: &'a Reject,
    failure: Failure,
    attempts: i32,
}

/// Gives what cannot be processed its dead letter, and its outcome `failed` where it is known whose
/// job it was. Retried like a batch: nothing of it can be refused for its content.
async fn fail(
    desk: Desk<'_>,
    letter: &Letter<'_>,
    keep_trying: &(impl Fn() -> bool + Sync),
) -> Result<Option<Settled>, AttemptError> {
    let mut retry = Retry::new(Duration::from_millis(10), LONGEST_PAUSE);
    loop {
        match try_fail(desk, letter).await {
            Ok(settled) => return Ok(settled),
            Err(error) if error.is_final() || !keep_trying() => return Err(error),
            Err(error) => {
                let delay = retry.next_delay();
                desk.metrics.retried(desk.kind);
                let queue = desk.queue;
                tracing::warn!(queue, %error, ?delay, "dead letter not stored, retrying in place");
                tokio::time::sleep(delay).await;
            }
        }
    }
}

async fn try_fail(desk: Desk<'_>, letter: &Letter<'_>) -> Result<Option<Settled>, AttemptError> {
    let mut connection = desk.pool.acquire().await?;
    let settled = bounded(fail_on(&mut connection, desk, letter)).await;
    give_back(connection, &settled);
    settled
}

async fn fail_on(
    connection: &mut PgConnection,
    desk: Desk<'_>,
    letter: &Letter<'_>,
) -> Result<Option<Settled>, AttemptError> {
    let Letter { reject, failure, attempts } = *letter;
    let ids: Vec<_> = reject.accepted.iter().map(|(id, _)| id.get()).collect();
    let mut transaction = connection.begin().await?;
    let past = begin(&mut transaction, desk, &ids).await?;
    record::insert_dead_letter(&mut transaction, desk.queue, reject, attempts).await?;
    let settled = match reject.accepted.filter(|(id, _)| !past.is_settled(*id)) {
        Some((id, user)) => {
            let kind = id.kind().unwrap_or(desk.kind);
            let entry = Entry::new(id, user, &Outcome::Failed(failure));
            let line = desk.lease.map(|lease| (lease, &past));
            let entries = std::slice::from_ref(&entry);
            let now = record::insert(&mut transaction, kind, entries, line).await?;
            Some(entry.settled(now))
        }
        None => None,
    };
    transaction.commit().await?;
    desk.metrics.settled(settled.as_slice());
    desk.metrics.dead_lettered(desk.kind.as_str(), 1);
    Ok(settled)
}
