//! A job as operators see it: whose it is, what it was about, and what became of it step by step.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use firstcome_contract::{
    ids::UserId,
    job::{JobId, JobKind, Mention, Settled, Status},
};
use firstcome_process::database::Pool;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};
use sqlx::types::Json;
use utoipa::{ToSchema, openapi::Object};
use uuid::Uuid;

use crate::{http::schema::one_of, job::JobView, lines::Position};

/// Attempts of one job that are told.
const MOST_LETTERS: i64 = 100;
/// What is told of a dead letter's reason, in characters.
const LONGEST_REASON: i32 = 1_000;

/// What is known of a job.
#[derive(Debug)]
pub(super) struct Story {
    id: JobId,
    user: UserId,
    kind: JobKind,
    settled: Option<Arc<Settled>>,
    place: Option<Position>,
    subject: Option<i64>,
    mentions: Vec<Mentioned>,
    /// The campaign whose coupon the order used that it placed.
    used_coupon: Option<i64>,
    idempotency_key: Option<String>,
    replay_of: Option<Uuid>,
    taken_up_at: Option<DateTime<Utc>>,
    batch_jobs: Option<i32>,
    line: Option<String>,
    trace_id: Option<Uuid>,
}

#[derive(Debug, Deserialize)]
struct Mentioned {
    what: String,
    id: i64,
}

/// A dead letter of a job, and when it was given another attempt.
#[derive(Debug)]
pub(super) struct Letter {
    at: DateTime<Utc>,
    queue: String,
    reason: String,
    redriven_at: Option<DateTime<Utc>>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = FoundJob)]
pub(super) struct FoundJob<'a> {
    #[serde(flatten)]
    job: JobView<'a>,
    /// Who submitted it.
    user_id: i64,
    /// The campaign whose coupon it asked for, or used; `null` if there is none, or it is not known.
    #[schema(required)]
    coupon_id: Option<i64>,
    /// The products that it asked for, or brought back.
    product_ids: Vec<i64>,
    /// The order that it was to cancel; that which it placed stands in its result.
    #[schema(required)]
    order_id: Option<i64>,
    /// The queue that it came out of.
    #[schema(required)]
    queue: Option<String>,
    /// Of its request, if it was the first with this key.
    #[schema(required)]
    idempotency_key: Option<&'a str>,
    /// The job whose outcome it repeats: both came with one key.
    #[schema(required)]
    replay_of: Option<Uuid>,
    /// Of its request's `traceparent`.
    #[schema(required)]
    trace_id: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = JobStory)]
pub(super) struct StoryView<'a> {
    #[serde(flatten)]
    job: FoundJob<'a>,
    timeline: Vec<Step>,
}

const ACCEPTED: &str = "accepted";
const TAKEN_UP: &str = "taken-up";
const SETTLED: &str = "settled";
const REDRIVEN: &str = "redriven";
const DEAD_LETTERED: &str = "dead-lettered";
const REPLAYED: &str = "replayed";

fn steps() -> Object {
    one_of([ACCEPTED, TAKEN_UP, SETTLED, REDRIVEN, DEAD_LETTERED, REPLAYED])
}

/// Something that happened to a job.
#[derive(Serialize, ToSchema)]
#[schema(as = JobStep, example = json!({
    "at": "2026-03-01T12:00:01.250Z", "what": "taken-up", "queue": "firstcome.coupon.1.05",
    "detail": {"waitedSeconds": 0.25, "together": 120},
}))]
struct Step {
    at: DateTime<Utc>,
    #[schema(schema_with = steps)]
    what: &'static str,
    #[schema(required)]
    queue: Option<String>,
    /// `waitedSeconds` and with how many jobs it was taken up (`together`); the `status` and `code` that it was settled
    /// with; the `reason` of a dead letter; the job whose outcome it repeats (`jobId`).
    #[schema(required)]
    detail: Option<Value>,
}

impl Story {
    /// Of a job without a row, which may just have got one.
    pub(super) fn queued(
        id: JobId,
        user: UserId,
        kind: JobKind,
        place: Option<Position>,
        settled: Option<Arc<Settled>>,
    ) -> Self {
        Self {
            id,
            user,
            kind,
            place: place.filter(|_| settled.is_none()),
            settled,
            subject: None,
            mentions: Vec::new(),
            used_coupon: None,
            idempotency_key: None,
            replay_of: None,
            taken_up_at: None,
            batch_jobs: None,
            line: None,
            trace_id: None,
        }
    }

    pub(super) const fn user(&self) -> UserId {
        self.user
    }

    pub(super) fn view(&self, namespace: &str) -> FoundJob<'_> {
        let is_coupon = self.kind == JobKind::IssueCoupon;
        let mentioned = |what: Mention| {
            let of_it = self.mentions.iter().filter(move |mention| mention.what == what.as_str());
            of_it.map(|mention| mention.id)
        };
        let key = self.subject.filter(|_| !is_coupon);
        FoundJob {
            job: JobView::new(self.id, self.kind, self.settled.as_deref(), self.place),
            user_id: self.user.get(),
            coupon_id: self
                .subject
                .filter(|_| is_coupon)
                .or(self.used_coupon)
                .or(mentioned(Mention::Coupon).next()),
            product_ids: key.into_iter().chain(mentioned(Mention::Product)).collect(),
            order_id: mentioned(Mention::Order).next(),
            queue: self.queue(namespace),
            idempotency_key: self.idempotency_key.as_deref(),
            replay_of: self.replay_of,
            trace_id: self.trace_id.map(|trace| trace.simple().to_string()),
        }
    }

    /// By its present name.
    fn queue(&self, namespace: &str) -> Option<String> {
        let family = self.kind.family().as_str();
        self.line.as_ref().map(|line| format!("{namespace}.{family}.{line}"))
    }

    pub(super) fn told(&self, namespace: &str, letters: Vec<Letter>) -> StoryView<'_> {
        let step = |at, what, detail| Step { at, what, queue: None, detail };
        let mut timeline = vec![step(self.id.submitted_at(), ACCEPTED, None)];
        for letter in letters {
            let detail = Some(json!({"reason": letter.reason}));
            let queue = Some(letter.queue);
            timeline.push(Step { at: letter.at, what: DEAD_LETTERED, queue, detail });
            timeline.extend(letter.redriven_at.map(|at| step(at, REDRIVEN, None)));
        }
        if let Some(at) = self.taken_up_at {
            let waited = (at - self.id.submitted_at()).num_milliseconds().max(0);
            #[expect(clippy::cast_precision_loss, reason = "milliseconds of this century")]
            let waited = waited as f64 / 1e3;
            let detail = Some(json!({"waitedSeconds": waited, "together": self.batch_jobs}));
            timeline.push(Step { at, what: TAKEN_UP, queue: self.queue(namespace), detail });
        }
        if let Some(settled) = &self.settled {
            let (at, status) = (settled.settled_at, settled.status.as_str());
            let first = self.replay_of.map(|first| json!({"jobId": first}));
            timeline.extend(first.map(|detail| step(at, REPLAYED, Some(detail))));
            let detail = Some(json!({"status": status, "code": settled.code}));
            timeline.push(Step { at, what: SETTLED, queue: self.queue(namespace), detail });
        }
        // What happened in one instant stays in this order.
        timeline.sort_by_key(|step| step.at);
        StoryView { job: self.view(namespace), timeline }
    }
}

/// These jobs, as far as they are settled, newest first.
pub(super) async fn read(pool: &Pool, ids: &[Uuid]) -> Result<Vec<Story>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT job_id, user_id, kind, status, code, result AS "result: Json<Box<RawValue>>",
                  detail AS "detail: Json<Box<RawValue>>", idempotency_key, replay_of, settled_at, subject, taken_up_at, batch_jobs,
                  line, trace_id, (SELECT coupon_id FROM orders WHERE job_id = job_outcomes.job_id LIMIT 1) AS used_coupon,
                  (SELECT jsonb_agg(jsonb_build_object('what', what, 'id', id) ORDER BY what, id)
                   FROM (SELECT * FROM job_mentions WHERE job_id BETWEEN job_outcomes.job_id AND job_outcomes.job_id
                         ORDER BY job_id, what, id) AS own) AS "mentions: Json<Vec<Mentioned>>"
           FROM job_outcomes WHERE job_id = ANY($1) ORDER BY job_id DESC"#,
        ids,
    )
    .fetch_all(pool)
    .await?;
    let story = rows.into_iter().filter_map(|row| {
        let (id, user) = (JobId::from(row.job_id), UserId::new(row.user_id));
        let settled = Settled {
            job_id: id,
            user_id: user,
            // The check constraint job_outcomes_status admits no other name.
            status: Status::from_name(&row.status).unwrap_or(Status::Failed),
            code: row.code,
            result: row.result.map(|Json(result)| result),
            detail: row.detail.map(|Json(detail)| detail),
            settled_at: row.settled_at,
        };
        Some(Story {
            id,
            user,
            // One of a later release than this is left to that.
            kind: JobKind::from_name(&row.kind)?,
            settled: Some(Arc::new(settled)),
            place: None,
            subject: row.subject,
            mentions: row.mentions.map(|Json(mentions)| mentions).unwrap_or_default(),
            used_coupon: row.used_coupon,
            idempotency_key: row.idempotency_key,
            replay_of: row.replay_of,
            taken_up_at: row.taken_up_at,
            batch_jobs: row.batch_jobs,
            line: row.line,
            trace_id: row.trace_id,
        })
    });
    Ok(story.collect())
}

/// The dead letters that a job was, and is.
pub(super) async fn letters(pool: &Pool, id: Uuid) -> Result<Vec<Letter>, sqlx::Error> {
    sqlx::query_as!(
        Letter,
        r#"(SELECT dead_lettered_at AS "at!", queue AS "queue!", left(reason, $2) AS "reason!", NULL::timestamptz AS redriven_at
            FROM dead_letters WHERE job_id BETWEEN $1 AND $1 ORDER BY job_id LIMIT $3)
           UNION ALL
           (SELECT dead_lettered_at, queue, reason, redriven_at FROM redrives WHERE job_id BETWEEN $1 AND $1 ORDER BY job_id LIMIT $3)"#,
        id,
        LONGEST_REASON,
        MOST_LETTERS,
    )
    .fetch_all(pool)
    .await
}
