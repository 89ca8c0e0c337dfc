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
use sqlx::{PgConnection, PgPool};

use super::{
    batch::{Batch, Job, Reject},
    record::{self, DeadLetter, Entry, KeyOwner},
};
use crate::{
    outcome::{Failure, Outcome},
    registry,
};

/// Longest pause between two attempts while the database is away.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Settles everything in the batch, in order, however long the database is away; `keep_trying`
/// says whether another attempt makes sense.
///
/// # Errors
/// The last error, once `keep_trying` said no. Nothing of what was not returned is acknowledged.
pub(super) async fn settle(
    pool: &PgPool,
    kind: JobKind,
    queue: &str,
    batch: &Batch,
    keep_trying: &(impl Fn() -> bool + Sync),
) -> Result<Vec<Settled>, sqlx::Error> {
    let mut settled = Vec::with_capacity(batch.jobs.len());
    // A stack of parts, next one on top. Only a deterministic failure splits one.
    let mut parts = vec![(batch.jobs.as_slice(), batch.rejects.as_slice())];
    let mut retry = Retry::new(Duration::from_millis(10), LONGEST_PAUSE);
    let mut attempts = 0;
    while let Some((jobs, rejects)) = parts.pop() {
        attempts += 1;
        let error = match try_settle(pool, kind, queue, jobs, rejects).await {
            Ok(mut part) => {
                settled.append(&mut part);
                retry.reset();
                attempts = 0;
                continue;
            }
            Err(error) => error,
        };
        if is_transient(&error) {
            if !keep_trying() {
                return Err(error);
            }
            let delay = retry.next_delay();
            tracing::warn!(queue, %error, ?delay, jobs = jobs.len(), "batch not settled, retrying in place");
            tokio::time::sleep(delay).await;
            parts.push((jobs, rejects));
        } else if let ([job], []) = (jobs, rejects) {
            tracing::error!(queue, %error, job_id = %job.envelope.id, "job cannot be processed, dead-lettering it");
            let poison = Reject {
                accepted: Some((job.envelope.id, job.envelope.user_id)),
                reason: error.to_string(),
                origin: job.origin.clone(),
                payload: job.payload.clone(),
            };
            settled.extend(fail(pool, kind, queue, &poison, attempts, keep_trying).await?);
            attempts = 0;
        } else {
            tracing::warn!(queue, %error, jobs = jobs.len(), "batch refused by the database, bisecting");
            let (first, second) = jobs.split_at(jobs.len() / 2);
            parts.extend([(second, &[] as &[Reject]), (first, rejects)]);
            if first.is_empty() && !rejects.is_empty() && jobs.len() <= 1 {
                // The rejects themselves are refused: nothing of theirs can be malformed (see
                // `insert_dead_letter`), so treat it as infrastructure.
                return Err(error);
            }
        }
    }
    Ok(settled)
}

/// One attempt: one transaction.
async fn try_settle(
    pool: &PgPool,
    kind: JobKind,
    queue: &str,
    jobs: &[Job],
    rejects: &[Reject],
) -> Result<Vec<Settled>, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let rejected_ids = rejects.iter().filter_map(|reject| reject.accepted).map(|(id, _)| id);
    let ids: Vec<_> =
        jobs.iter().map(|job| job.envelope.id).chain(rejected_ids).map(JobId::get).collect();
    let settled_before = record::settled_before(&mut transaction, &ids).await?;

    let waiting: Vec<&Envelope> = jobs
        .iter()
        .map(|job| &job.envelope)
        .filter(|envelope| !settled_before.contains(&envelope.id))
        .collect();
    let mut entries = decide(&mut transaction, kind, &waiting).await?;
    for reject in rejects {
        tracing::error!(queue, reason = reject.reason, "undecodable job, dead-lettering it");
        entries.extend(
            dead_letter(&mut transaction, queue, reject, Failure::Undecodable, 1, &settled_before)
                .await?,
        );
    }
    if entries.is_empty() && rejects.is_empty() {
        return Ok(Vec::new());
    }
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

/// Gives a job that cannot be processed its outcome `failed` and its dead letter.
async fn fail(
    pool: &PgPool,
    kind: JobKind,
    queue: &str,
    poison: &Reject,
    attempts: i32,
    keep_trying: &(impl Fn() -> bool + Sync),
) -> Result<Vec<Settled>, sqlx::Error> {
    let mut retry = Retry::new(Duration::from_millis(10), LONGEST_PAUSE);
    loop {
        let attempt = async {
            let mut transaction = pool.begin().await?;
            let ids: Vec<_> = poison.accepted.iter().map(|(id, _)| id.get()).collect();
            let settled_before = record::settled_before(&mut transaction, &ids).await?;
            let entry = dead_letter(
                &mut transaction,
                queue,
                poison,
                Failure::Unprocessable,
                attempts,
                &settled_before,
            )
            .await?;
            let entries: Vec<Entry> = entry.into_iter().collect();
            let now = record::insert(&mut transaction, kind, &entries).await?;
            transaction.commit().await?;
            Ok(entries.into_iter().map(|entry| entry.settled(now)).collect())
        };
        match attempt.await {
            Ok(settled) => return Ok(settled),
            Err(error) if !keep_trying() => return Err(error),
            Err(error) => {
                let delay = retry.next_delay();
                tracing::warn!(queue, %error, ?delay, "dead letter not stored, retrying in place");
                tokio::time::sleep(delay).await;
            }
        }
    }
}

/// Stores the dead letter; returns the outcome to store, unless there is no job to give it to.
async fn dead_letter(
    transaction: &mut PgConnection,
    queue: &str,
    reject: &Reject,
    failure: Failure,
    attempts: i32,
    settled_before: &HashSet<JobId>,
) -> Result<Option<Entry>, sqlx::Error> {
    let Reject { accepted, reason, origin, payload } = reject;
    let letter = DeadLetter { queue, origin, job: *accepted, reason, attempts, payload };
    record::insert_dead_letter(transaction, &letter).await?;
    Ok(accepted
        .filter(|(id, _)| !settled_before.contains(id))
        .map(|(id, user)| Entry::new(id, user, &Outcome::Failed(failure))))
}

/// Whether another attempt of the same batch can succeed.
///
/// Deterministic are only the SQLSTATE classes that speak of the data: 22 (data exception), 23
/// (integrity constraint), P0 (raised by a trigger). Everything else, also a missing table (a
/// migration that is still to come), is the state of the system: failing a job for it would fail
/// all of them.
fn is_transient(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(database) = error else {
        return true;
    };
    // A race lost against another consumer of the same jobs, users or keys: the next attempt sees
    // what the winner committed and decides accordingly.
    const RACES: [&str; 4] = [
        "job_outcomes_pkey",
        "job_outcomes_idempotency_key",
        "user_coupons_one_per_user",
        "user_coupons_issue_number_key",
    ];
    if database.constraint().is_some_and(|name| RACES.contains(&name)) {
        return true;
    }
    let code = database.code().unwrap_or_default();
    !["22", "23", "P0"].iter().any(|class| code.starts_with(class))
}
