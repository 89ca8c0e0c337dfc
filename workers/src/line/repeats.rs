//! Jobs that repeat an idempotency key: they end as the job that used it first.

use std::collections::{HashMap, HashSet};

use firstcome_contract::{
    event::Event,
    ids::UserId,
    job::{Envelope, Idempotency, JobId, JobKind, Status},
    rejection::Rejection,
};
use serde_json::value::RawValue;
use sqlx::{PgConnection, types::Json};

use super::{
    attempt::AttemptError,
    outcomes::{About, Entry},
};
use crate::jobs::{
    outcome::{Decided, HandlerError, Outcome},
    registry,
};

/// Decides jobs that have no outcome yet: those whose idempotency key is taken repeat its owner's
/// outcome, the others go to the handler, which tells what happened by them. Unless `looks_up_keys`, no key is
/// expected to be taken; storing one that is [fails](AttemptError::is_taken_key).
pub(super) async fn decide(
    transaction: &mut PgConnection,
    kind: JobKind,
    jobs: &[&Envelope],
    looks_up_keys: bool,
) -> Result<(Vec<Entry>, Vec<Event>), AttemptError> {
    let mut owners =
        if looks_up_keys { key_owners(transaction, kind, jobs).await? } else { HashMap::new() };

    // The first job of the batch with a free key takes it; later ones with that key, if any, wait for it.
    let mut taken: HashSet<(UserId, &str)> = HashSet::new();
    let mut shared: HashSet<(UserId, &str)> = HashSet::new();
    let fresh = jobs.iter().copied().filter(|job| {
        let Some(Idempotency { key, .. }) = &job.idempotency else { return true };
        let is_free = owners.is_empty() || !owners.contains_key(&(job.user_id, key.clone()));
        let is_first = is_free && taken.insert((job.user_id, key));
        if is_free && !is_first {
            shared.insert((job.user_id, key));
        }
        is_first
    });
    let fresh: Vec<&Envelope> = fresh.collect();
    let broken = |error| AttemptError::of_handler(kind, error);
    let Decided { outcomes, events } = if fresh.is_empty() {
        Decided::default()
    } else {
        registry::apply(kind, transaction, &fresh).await.map_err(broken)?
    };

    // In the order of the line, so that an owner's entry exists before its replays.
    let mut decided = fresh.iter().zip(&outcomes).peekable();
    let mut entries = Vec::with_capacity(jobs.len());
    for job in jobs {
        let key = job.idempotency.as_ref();
        let entry = match decided.next_if(|(fresh, _)| fresh.id == job.id) {
            Some((_, outcome)) => {
                let entry = Entry::new(job.id, job.user_id, outcome).about(About::of(job));
                if let Some(Idempotency { key, fingerprint }) = key
                    && shared.contains(&(job.user_id, key.as_str()))
                {
                    let owner = KeyOwner::of(&entry, fingerprint);
                    owners.insert((job.user_id, key.clone()), owner);
                }
                Entry { idempotency: key.cloned(), ..entry }
            }
            None => {
                let owner = key.and_then(|key| owners.get(&(job.user_id, key.key.clone())));
                let unowned = || HandlerError::Broken("a job that repeats none".to_owned());
                let (key, owner) = key.zip(owner).ok_or_else(unowned).map_err(broken)?;
                Entry::replay(job, key, owner)
            }
        };
        entries.push(entry);
    }
    Ok((entries, events))
}

/// The job that first used an idempotency key, and how it ended.
#[derive(Debug, Clone)]
struct KeyOwner {
    job_id: JobId,
    fingerprint: String,
    status: Status,
    code: Option<String>,
    result: Option<Box<RawValue>>,
    detail: Option<Box<RawValue>>,
}

impl KeyOwner {
    /// The owner of a key that the job of this entry uses first.
    fn of(entry: &Entry, fingerprint: &str) -> Self {
        Self {
            job_id: entry.job_id,
            fingerprint: fingerprint.to_owned(),
            status: entry.status,
            code: entry.code.clone(),
            result: entry.result.clone(),
            detail: entry.detail.clone(),
        }
    }
}

/// Who owns the keys of these jobs, where they are owned.
async fn key_owners(
    transaction: &mut PgConnection,
    kind: JobKind,
    jobs: &[&Envelope],
) -> Result<HashMap<(UserId, String), KeyOwner>, sqlx::Error> {
    let (users, keys): (Vec<i64>, Vec<String>) = jobs
        .iter()
        .filter_map(|job| Some((job.user_id.get(), job.idempotency.as_ref()?.key.clone())))
        .unzip();
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = sqlx::query!(
        r#"SELECT job_id AS "job_id!", user_id AS "user_id!", idempotency_key AS "idempotency_key!",
                  fingerprint AS "fingerprint!", status AS "status!", code, result AS "result: Json<Box<RawValue>>",
                  detail AS "detail: Json<Box<RawValue>>"
           FROM UNNEST($2::bigint[], $3::text[]) AS asked (asker, key)
           CROSS JOIN LATERAL (
               SELECT * FROM job_outcomes
               WHERE user_id = ANY(ARRAY[asker]) AND kind = $1 AND idempotency_key BETWEEN key AND key
               ORDER BY user_id, kind, idempotency_key LIMIT 1
           ) AS owner"#,
        kind.as_str(),
        &users,
        &keys,
    )
    .fetch_all(transaction)
    .await?;
    let owners = rows.into_iter().map(|row| {
        let owner = KeyOwner {
            job_id: JobId::from(row.job_id),
            fingerprint: row.fingerprint,
            // The check constraint job_outcomes_status admits no other name.
            status: Status::from_name(&row.status).unwrap_or(Status::Failed),
            code: row.code,
            result: row.result.map(|Json(result)| result),
            detail: row.detail.map(|Json(detail)| detail),
        };
        ((UserId::new(row.user_id), row.idempotency_key), owner)
    });
    Ok(owners.collect())
}

impl Entry {
    /// The outcome of a job whose key an earlier job owns: that job's outcome, or the rejection if
    /// the two requests differ.
    fn replay(envelope: &Envelope, key: &Idempotency, first: &KeyOwner) -> Self {
        if key.fingerprint == first.fingerprint {
            Self {
                job_id: envelope.id,
                user_id: envelope.user_id,
                status: first.status,
                code: first.code.clone(),
                result: first.result.clone(),
                detail: first.detail.clone(),
                idempotency: None,
                replay_of: Some(first.job_id),
                about: About::of(envelope),
                line: None,
            }
        } else {
            Self {
                replay_of: Some(first.job_id),
                about: About::of(envelope),
                ..Self::new(
                    envelope.id,
                    envelope.user_id,
                    &Outcome::Rejected(Rejection::IdempotencyKeyReused, None),
                )
            }
        }
    }
}
