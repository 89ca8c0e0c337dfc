//! The outcomes, as they are stored: one `job_outcomes` row per job, in the transaction of its effects; and what
//! happened, for the relay.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, NaiveDate, Utc};
use firstcome_contract::{
    ids::UserId,
    job::{Envelope, Idempotency, JobId, JobKind, Mention, Settled, Status},
    line::Line,
    request_id::RequestId,
};
use serde_json::value::RawValue;
use sqlx::{PgConnection, PgPool};

use super::{batch::Reject, duplicates::Past, lease::Lease};
use crate::jobs::{outbox, outcome::Outcome};

/// A row of `job_outcomes` that is to be stored.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) job_id: JobId,
    pub(crate) user_id: UserId,
    pub(crate) status: Status,
    pub(crate) code: Option<String>,
    pub(crate) result: Option<Box<RawValue>>,
    pub(crate) detail: Option<Box<RawValue>>,
    /// Only the job that first used a key owns it.
    pub(crate) idempotency: Option<Idempotency>,
    pub(crate) replay_of: Option<JobId>,
    pub(crate) about: About,
    /// The line that the job stood in; none, of what the broker gave up on.
    pub(crate) line: Option<Line>,
}

/// What a job was about, for whoever looks for it; nothing, of one that cannot be read.
#[derive(Debug, Clone, Default)]
pub(crate) struct About {
    subject: Option<i64>,
    mentions: Vec<(Mention, i64)>,
    trace: Option<uuid::Uuid>,
}

impl About {
    pub(crate) fn of(envelope: &Envelope) -> Self {
        Self {
            subject: envelope.job.keys().next(),
            mentions: envelope.job.mentions().collect(),
            trace: envelope.trace_parent().map(|trace| uuid::Uuid::from_u128(trace.trace_id)),
        }
    }
}

impl Entry {
    pub(crate) fn new(job_id: JobId, user_id: UserId, outcome: &Outcome) -> Self {
        Self {
            job_id,
            user_id,
            status: outcome.status(),
            code: outcome.code().map(str::to_owned),
            result: outcome.result().map(ToOwned::to_owned),
            detail: outcome.detail().map(ToOwned::to_owned),
            idempotency: None,
            replay_of: None,
            about: About::default(),
            line: None,
        }
    }

    pub(crate) fn about(self, about: About) -> Self {
        Self { about, ..self }
    }

    pub(crate) fn stood_in(self, lease: Option<&Lease>) -> Self {
        Self { line: lease.map(|lease| lease.line), ..self }
    }

    pub(crate) fn settled(self, settled_at: DateTime<Utc>) -> Settled {
        Settled {
            job_id: self.job_id,
            user_id: self.user_id,
            status: self.status,
            code: self.code,
            result: self.result,
            detail: self.detail,
            settled_at,
        }
    }
}

/// How far these entries bring their lines.
struct Progress {
    routing_key: String,
    /// How many of the line's jobs get an outcome for the first time.
    settled: i64,
    /// When the last of them was submitted.
    until: DateTime<Utc>,
}

fn progress(entries: &[Entry], past: &Past) -> BTreeMap<Line, Progress> {
    let mut lines: BTreeMap<Line, Progress> = BTreeMap::new();
    for entry in entries {
        let Some(line) = entry.line else { continue };
        let submitted = entry.job_id.submitted_at();
        let progress = lines.entry(line).or_insert_with(|| Progress {
            routing_key: line.routing_key(),
            settled: 0,
            until: submitted,
        });
        progress.settled += i64::from(past.is_new(entry.job_id));
        progress.until = progress.until.max(submitted);
    }
    lines
}

/// Stores the outcomes; tells when (by the database's clock, as late in the transaction as can be).
/// A job that was settled elsewhere meanwhile (the broker's dead letters have consumers of their own)
/// violates the primary key; the next attempt sees its outcome. Appends the events to the outbox in the same
/// statement: a round trip less.
///
/// Counts them as settled in the lines that they stood in, but for those that an operator gave another
/// attempt: they were counted when they failed. If all that stood before them is settled (`is_in_order`), they tell
/// how far their lines have come.
pub(crate) async fn insert(
    transaction: &mut PgConnection,
    kind: JobKind,
    entries: &[Entry],
    events: &outbox::Rows,
    past: &Past,
    is_in_order: bool,
) -> Result<DateTime<Utc>, sqlx::Error> {
    let progress = progress(entries, past);
    let moved = || progress.iter().filter(|(_, progress)| progress.settled > 0);
    let families: Vec<&str> = moved().map(|(line, _)| line.family.as_str()).collect();
    let generations: Vec<i32> = moved().map(|(line, _)| line.generation).collect();
    let names: Vec<String> = moved().map(|(line, _)| line.name.to_string()).collect();
    let settled: Vec<i64> = moved().map(|(_, progress)| progress.settled).collect();
    let until = moved().map(|(_, progress)| is_in_order.then_some(progress.until));
    let until: Vec<Option<DateTime<Utc>>> = until.collect();
    let mut lines = Vec::with_capacity(entries.len());
    let mut ids = Vec::with_capacity(entries.len());
    let mut users = Vec::with_capacity(entries.len());
    let mut statuses = Vec::with_capacity(entries.len());
    let mut codes = Vec::with_capacity(entries.len());
    let mut results = Vec::with_capacity(entries.len());
    let mut details = Vec::with_capacity(entries.len());
    let mut keys = Vec::with_capacity(entries.len());
    let mut fingerprints = Vec::with_capacity(entries.len());
    let mut replays = Vec::with_capacity(entries.len());
    let mut subjects = Vec::with_capacity(entries.len());
    let mut traces = Vec::with_capacity(entries.len());
    let (mut mentioning, mut mentioned, mut mentions) = (Vec::new(), Vec::new(), Vec::new());
    for entry in entries {
        ids.push(entry.job_id.get());
        users.push(entry.user_id.get());
        statuses.push(entry.status.as_str());
        codes.push(entry.code.as_deref());
        results.push(entry.result.as_ref().map(|result| result.get()));
        details.push(entry.detail.as_ref().map(|detail| detail.get()));
        keys.push(entry.idempotency.as_ref().map(|idempotency| idempotency.key.as_str()));
        fingerprints
            .push(entry.idempotency.as_ref().map(|idempotency| idempotency.fingerprint.as_str()));
        replays.push(entry.replay_of.map(JobId::get));
        subjects.push(entry.about.subject);
        traces.push(entry.about.trace);
        let progress = entry.line.and_then(|line| progress.get(&line));
        lines.push(progress.map(|progress| progress.routing_key.as_str()));
        for (what, id) in &entry.about.mentions {
            let is_first = entry.status == Status::Succeeded && entry.replay_of.is_none();
            if is_first && what.stands_in_the_effect() {
                continue;
            }
            mentioning.push(entry.job_id.get());
            mentioned.push(what.as_str());
            mentions.push(*id);
        }
    }
    let together = i32::try_from(entries.len()).unwrap_or(i32::MAX);
    sqlx::query_scalar!(
        r#"WITH stamp AS MATERIALIZED (SELECT clock_timestamp() AS now), stored AS (
               INSERT INTO job_outcomes
                   (kind, job_id, user_id, status, code, result, detail, idempotency_key,
                    fingerprint, replay_of, settled_at, subject, trace_id, taken_up_at, batch_jobs, line)
               SELECT $1, UNNEST($2::uuid[]), UNNEST($3::bigint[]), UNNEST($4::text[]), UNNEST($5::text[]),
                      UNNEST($6::text[])::jsonb, UNNEST($7::text[])::jsonb, UNNEST($8::text[]),
                      UNNEST($9::text[]), UNNEST($10::uuid[]), now, UNNEST($16::bigint[]), UNNEST($17::uuid[]), now(), $18::int,
                      UNNEST($19::text[])
               FROM stamp
           ), mentioned AS (
               INSERT INTO job_mentions (job_id, what, id)
               SELECT * FROM UNNEST($20::uuid[], $21::text[], $22::bigint[])
               ON CONFLICT ON CONSTRAINT job_mentions_pkey DO NOTHING
           ), appended AS (
               INSERT INTO outbox_parcels (event_id, type, events, event)
               SELECT * FROM UNNEST($23::uuid[], $24::text[], $25::int[], $26::text[])
           ), counted AS (
               INSERT INTO line_progress (family, generation, line, settled, until)
               SELECT * FROM UNNEST($11::text[], $12::int[], $13::text[], $14::bigint[], $15::timestamptz[])
               ON CONFLICT ON CONSTRAINT line_progress_pkey
               DO UPDATE SET settled = line_progress.settled + excluded.settled,
                             until = GREATEST(line_progress.until, excluded.until)
           )
           SELECT now AS "now!" FROM stamp"#,
        kind.as_str(),
        &ids,
        &users,
        &statuses as &[&str],
        &codes as &[Option<&str>],
        &results as &[Option<&str>],
        &details as &[Option<&str>],
        &keys as &[Option<&str>],
        &fingerprints as &[Option<&str>],
        &replays as &[Option<uuid::Uuid>],
        &families as &[&str],
        &generations,
        &names,
        &settled,
        &until as &[Option<DateTime<Utc>>],
        &subjects as &[Option<i64>],
        &traces as &[Option<uuid::Uuid>],
        together,
        &lines as &[Option<&str>],
        &mentioning,
        &mentioned as &[&str],
        &mentions,
        &events.ids,
        &events.types as &[&str],
        &events.events,
        &events.lines,
    )
    .fetch_one(transaction)
    .await
}

/// Ends jobs that must have come out of their lines, as far as they have no outcome and none that may be
/// forgotten: which, and when. Without their keys, which are free. One that comes out of a line after all finds
/// its outcome there.
pub(crate) async fn end_lost(
    on: &PgPool,
    lost: &[(JobId, UserId)],
) -> Result<HashMap<JobId, DateTime<Utc>>, sqlx::Error> {
    let ids: Vec<uuid::Uuid> = lost.iter().map(|(job, _)| job.get()).collect();
    let users: Vec<i64> = lost.iter().map(|(_, user)| user.get()).collect();
    let kinds = lost.iter().map(|(job, _)| job.kind().map_or("", JobKind::as_str));
    let kinds: Vec<&str> = kinds.collect();
    let days = lost.iter().map(|(job, _)| job.submitted_at().date_naive());
    let days: Vec<NaiveDate> = days.collect();
    let ended = sqlx::query!(
        "INSERT INTO job_outcomes (job_id, user_id, kind, status, code)
         SELECT id, asker, what, 'failed', 'job-lost'
         FROM UNNEST($1::uuid[], $2::bigint[], $3::text[], $4::date[]) AS lost (id, asker, what, submitted)
         WHERE submitted > COALESCE((SELECT max(day) FROM daily_runs WHERE job = 'close-day'), '-infinity')
         ORDER BY id
         ON CONFLICT ON CONSTRAINT job_outcomes_pkey DO NOTHING
         RETURNING job_id, settled_at",
        &ids,
        &users,
        &kinds as &[&str],
        &days,
    )
    .fetch_all(on)
    .await?;
    Ok(ended.into_iter().map(|row| (JobId::from(row.job_id), row.settled_at)).collect())
}

/// Lets a failed job be decided once more, or no more; until then it stays failed. Asked twice, since
/// a batch that decides it at this moment puts another row in its place. Not one that was lost: whoever
/// submitted it was told that it may be repeated.
pub(crate) async fn reopen(
    on: &mut PgConnection,
    job: uuid::Uuid,
    is_open: bool,
) -> Result<(), sqlx::Error> {
    for _ in 0..2 {
        let done = sqlx::query!(
            "UPDATE job_outcomes SET redriven = $2
             WHERE job_id = $1 AND status = 'failed' AND code <> 'job-lost'",
            job,
            is_open
        )
        .execute(&mut *on)
        .await?;
        if done.rows_affected() > 0 {
            break;
        }
    }
    Ok(())
}

/// Stores dead letters, each once however often its message is redelivered, with the attempts of this
/// time.
pub(crate) async fn insert_dead_letters<'a>(
    transaction: &mut PgConnection,
    queue: &str,
    letters: impl Iterator<Item = (&'a Reject, i32)>,
) -> Result<(), sqlx::Error> {
    let (mut queues, mut messages, mut records) = (Vec::new(), Vec::new(), Vec::new());
    let (mut jobs, mut users, mut reasons) = (Vec::new(), Vec::new(), Vec::new());
    let (mut tries, mut payloads) = (Vec::new(), Vec::new());
    let (mut traces, mut names) = (Vec::new(), Vec::new());
    for (Reject { accepted, trace, request_id, reason, origin, payload }, attempts) in letters {
        queues.push(origin.died_in.as_deref().unwrap_or(queue));
        messages.push(origin.message_id.as_str());
        records.push(origin.record);
        jobs.push(accepted.map(|(id, _)| id.get()));
        users.push(accepted.map(|(_, user)| user.get()));
        // PostgreSQL's text holds no NUL; a reason may quote one.
        reasons.push(reason.replace('\0', "\u{fffd}"));
        tries.push(origin.attempts.saturating_add(attempts));
        payloads.push(payload.as_slice());
        traces.push(trace.map(|trace| trace.to_string()));
        names.push(request_id.as_ref().map(RequestId::as_str));
    }
    if records.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "INSERT INTO dead_letters (queue, message_id, line, job_id, user_id, reason, attempts, payload, trace, request_id)
         SELECT UNNEST($1::text[]), UNNEST($2::text[]), UNNEST($3::int[]), UNNEST($4::uuid[]), UNNEST($5::bigint[]),
                UNNEST($6::text[]), UNNEST($7::int[]), UNNEST($8::bytea[]), UNNEST($9::text[]),
                UNNEST($10::text[])
         ON CONFLICT ON CONSTRAINT dead_letters_once DO NOTHING",
        &queues as &[&str],
        &messages as &[&str],
        &records,
        &jobs as &[Option<uuid::Uuid>],
        &users as &[Option<i64>],
        &reasons,
        &tries,
        &payloads as &[&[u8]],
        &traces as &[Option<String>],
        &names as &[Option<&str>],
    )
    .execute(transaction)
    .await?;
    Ok(())
}
