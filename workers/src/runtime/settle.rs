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

use super::{
    attempt::{AttemptError, bounded, give_back},
    batch::{Job, Reject},
    record::{self, Entry, KeyOwner},
};
use crate::{
    outcome::{Failure, Outcome},
    registry,
};

/// Longest pause between two attempts while the database is away.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Gives every line that is no job its dead letter, and its outcome where it was one once.
///
/// # Errors
/// As [`settle`].
pub(super) async fn set_aside(
    pool: &PgPool,
    kind: JobKind,
    queue: &str,
    rejects: &[Reject],
    keep_trying: &(impl Fn() -> bool + Sync),
) -> Result<Vec<Settled>, AttemptError> {
    let mut settled = Vec::new();
    for reject in rejects {
        tracing::error!(queue, reason = reject.reason, "undecodable job, dead-lettering it");
        let letter = Letter { queue, reject, failure: Failure::Undecodable, attempts: 1 };
        settled.extend(fail(pool, kind, &letter, keep_trying).await?);
    }
    Ok(settled)
}

/// Settles the jobs, in order, however long the database is away; `keep_trying`
/// says whether another attempt makes sense.
///
/// # Errors
/// The last error, once `keep_trying` said no. Nothing of what was not returned is acknowledged.
pub(super) async fn settle(
    pool: &PgPool,
    kind: JobKind,
    queue: &str,
    jobs: &[Job],
    keep_trying: &(impl Fn() -> bool + Sync),
) -> Result<Vec<Settled>, AttemptError> {
    let mut settled = Vec::with_capacity(jobs.len());
    // A stack of parts, next one on top. Only a deterministic failure splits one.
    let mut parts = if jobs.is_empty() { Vec::new() } else { vec![jobs] };
    let mut retry = Retry::new(Duration::from_millis(10), LONGEST_PAUSE);
    let mut attempts = 0;
    while let Some(jobs) = parts.pop() {
        attempts += 1;
        let error = match try_settle(pool, kind, jobs).await {
            Ok(mut part) => {
                settled.append(&mut part);
                retry.reset();
                attempts = 0;
                continue;
            }
            Err(error) => error,
        };
        if error.is_transient(attempts) {
            if !keep_trying() {
                return Err(error);
            }
            let delay = retry.next_delay();
            let jobs_in_hand = jobs.len();
            tracing::warn!(queue, %error, ?delay, jobs_in_hand, "batch not settled, retrying in place");
            tokio::time::sleep(delay).await;
            parts.push(jobs);
        } else if let [job] = jobs {
            let id = job.envelope.id;
            tracing::error!(queue, %error, job_id = %id, "job cannot be processed, dead-lettering it");
            let poison = Reject {
                accepted: Some((id, job.envelope.user_id)),
                reason: error.to_string(),
                origin: job.origin.clone(),
                payload: job.payload.clone(),
            };
            let letter =
                Letter { queue, reject: &poison, failure: Failure::Unprocessable, attempts };
            settled.extend(fail(pool, kind, &letter, keep_trying).await?);
            attempts = 0;
        } else {
            tracing::warn!(queue, %error, jobs = jobs.len(), "batch refused by the database, bisecting");
            let (first, second) = jobs.split_at(jobs.len() / 2);
            parts.extend([second, first]);
        }
    }
    Ok(settled)
}

/// One attempt: one transaction.
async fn try_settle(
    pool: &PgPool,
    kind: JobKind,
    jobs: &[Job],
) -> Result<Vec<Settled>, AttemptError> {
    let mut connection = pool.acquire().await?;
    let settled = bounded(settle_on(&mut connection, kind, jobs)).await;
    give_back(connection, &settled);
    settled
}

async fn settle_on(
    connection: &mut PgConnection,
    kind: JobKind,
    jobs: &[Job],
) -> Result<Vec<Settled>, sqlx::Error> {
    let ids: Vec<_> = jobs.iter().map(|job| job.envelope.id.get()).collect();
    let mut transaction = connection.begin().await?;
    let settled_before = record::settled_before(&mut transaction, &ids).await?;
    let waiting: Vec<&Envelope> = jobs
        .iter()
        .map(|job| &job.envelope)
        .filter(|envelope| !settled_before.contains(&envelope.id))
        .collect();
    if waiting.is_empty() {
        return Ok(Vec::new());
    }
    let entries = decide(&mut transaction, kind, &waiting).await?;
    let now = record::insert(&mut transaction, kind, &entries).await?;
    transaction.commit().await?;
    Ok(entries.into_iter().map(|entry| entry.settled(now)).collect())
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
    queue: &'a str,
    reject: &'a Reject,
    failure: Failure,
    attempts: i32,
}

/// Gives what cannot be processed its dead letter, and its outcome `failed` where it is known whose
/// job it was. Retried like a batch: nothing of it can be refused for its content.
async fn fail(
    pool: &PgPool,
    kind: JobKind,
    letter: &Letter<'_>,
    keep_trying: &(impl Fn() -> bool + Sync),
) -> Result<Option<Settled>, AttemptError> {
    let mut retry = Retry::new(Duration::from_millis(10), LONGEST_PAUSE);
    loop {
        match try_fail(pool, kind, letter).await {
            Ok(settled) => return Ok(settled),
            Err(error) if !keep_trying() => return Err(error),
            Err(error) => {
                let delay = retry.next_delay();
                let queue = letter.queue;
                tracing::warn!(queue, %error, ?delay, "dead letter not stored, retrying in place");
                tokio::time::sleep(delay).await;
            }
        }
    }
}

async fn try_fail(
    pool: &PgPool,
    kind: JobKind,
    letter: &Letter<'_>,
) -> Result<Option<Settled>, AttemptError> {
    let mut connection = pool.acquire().await?;
    let settled = bounded(fail_on(&mut connection, kind, letter)).await;
    give_back(connection, &settled);
    settled
}

async fn fail_on(
    connection: &mut PgConnection,
    kind: JobKind,
    letter: &Letter<'_>,
) -> Result<Option<Settled>, sqlx::Error> {
    let Letter { queue, reject, failure, attempts } = *letter;
    let ids: Vec<_> = reject.accepted.iter().map(|(id, _)| id.get()).collect();
    let mut transaction = connection.begin().await?;
    let settled_before = record::settled_before(&mut transaction, &ids).await?;
    record::insert_dead_letter(&mut transaction, queue, reject, attempts).await?;
    let settled = match reject.accepted.filter(|(id, _)| !settled_before.contains(id)) {
        Some((id, user)) => {
            let kind = id.kind().unwrap_or(kind);
            let entry = Entry::new(id, user, &Outcome::Failed(failure));
            let now = record::insert(&mut transaction, kind, std::slice::from_ref(&entry)).await?;
            Some(entry.settled(now))
        }
        None => None,
    };
    transaction.commit().await?;
    Ok(settled)
}
