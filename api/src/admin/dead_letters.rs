//! `GET /api/admin/dead-letters`, `POST …/redrive`, `POST …/{id}/redrive`, `DELETE …/{id}`
//!
//! The API notes what operators want; the workers do it (`workers/src/crew/redrive`).

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use chrono::{DateTime, Utc};
use firstcome_broker::topology;
use firstcome_contract::job::Envelope;
use serde::Serialize;
use serde_json::Value;
use sqlx::Connection;
use utoipa::ToSchema;
use uuid::Uuid;

use super::audit_log::Change;
use crate::{
    http::{
        auth::{Admin, Auditor},
        body::Body,
        idempotency_key::IdempotencyKey,
        json,
        page::{List, Page},
        path::PathId,
        problem::{Code, Problem},
        schema::Nothing,
    },
    known::once::once,
    state::AppState,
};

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = DeadLetter, example = json!({
    "id": 3, "queue": "firstcome.coupon.1.05", "jobId": "0198a0f3-1c00-7000-8405-070000000009", "userId": 7,
    "reason": "unknown job kind \"from-the-future\"", "attempts": 1, "trace": null, "requestId": "checkout-17",
    "payload": "{\"id\":\"0198a0f3-1c00-7000-8405-070000000009\",…}",
    "deadLetteredAt": "2026-03-01T12:00:00Z", "redriveRequestedAt": null,
}))]
struct DeadLetterView {
    id: i64,
    /// Where it was found.
    queue: String,
    /// The job, which has the outcome `failed`; `null` for an event, and where it is unreadable.
    #[schema(required)]
    job_id: Option<Uuid>,
    #[schema(required)]
    user_id: Option<i64>,
    /// The beginning of it, if it is long; likewise of the payload.
    reason: String,
    attempts: i32,
    /// The `traceparent` of the request, where it had one.
    #[schema(required)]
    trace: Option<String>,
    /// The `X-Request-Id` of the request, where its client gave one.
    #[schema(required)]
    request_id: Option<String>,
    /// The line as it was in the message; what is not UTF-8 is replaced.
    payload: String,
    dead_lettered_at: DateTime<Utc>,
    /// When an operator asked for another attempt.
    #[schema(required)]
    redrive_requested_at: Option<DateTime<Utc>>,
}

/// What a page shows of a reason, in characters.
const LONGEST_REASON: i32 = 1_000;
/// What it shows of a payload, in bytes: a whole job, and the beginning of what is none.
const LONGEST_PAYLOAD: i32 = 16 * 1024;

/// What is noted of a letter that is forgotten.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Discarded {
    queue: String,
    job_id: Option<Uuid>,
    user_id: Option<i64>,
}

/// How many get another attempt.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({"requested": 1}))]
struct Redriven {
    requested: u64,
}

/// What could not be processed, newest first.
///
/// # Errors
/// 400, 401, 403, 503.
#[utoipa::path(
    get, path = "/api/admin/dead-letters", operation_id = "listDeadLetters", tag = "Admin",
    params(Page),
    responses((status = 200, description = "A page of the dead letters.", body = List<DeadLetterView>)),
)]
pub async fn list_dead_letters(
    State(state): State<AppState>,
    _auditor: Auditor,
    page: Page,
) -> Result<Response, Problem> {
    let rows = sqlx::query!(
        r#"SELECT id, queue, job_id, user_id, left(reason, $3) AS "reason!", attempts, trace, request_id,
                  substring(payload FROM 1 FOR $4) AS "payload!", dead_lettered_at, redrive_requested_at
           FROM dead_letters WHERE discarded_at IS NULL AND id < $1 ORDER BY id DESC LIMIT $2"#,
        page.before(),
        page.rows(),
        LONGEST_REASON,
        LONGEST_PAYLOAD,
    )
    .fetch_all(&state.pool)
    .await?;
    let letters: Vec<DeadLetterView> = rows
        .into_iter()
        .map(|row| DeadLetterView {
            id: row.id,
            queue: row.queue,
            job_id: row.job_id,
            user_id: row.user_id,
            reason: row.reason,
            attempts: row.attempts,
            trace: row.trace,
            request_id: row.request_id,
            payload: String::from_utf8_lossy(&row.payload).into_owned(),
            dead_lettered_at: row.dead_lettered_at,
            redrive_requested_at: row.redrive_requested_at,
        })
        .collect();
    Ok(json::ok(&page.cut(letters, |letter| letter.id)))
}

/// Gives one dead letter another attempt. A job keeps its id, and stays `failed` until it has another
/// outcome.
///
/// # Errors
/// 400, 401, 403, 404, 409 if it cannot be read by this version either, 422, 503.
#[utoipa::path(
    post, path = "/api/admin/dead-letters/{id}/redrive", operation_id = "redriveDeadLetter", tag = "Admin",
    params(IdempotencyKey),
    request_body = Option<Nothing>,
    responses((status = 202, description = "The workers will see to it.", body = Redriven)),
    extensions(("x-codes" = json!([Code::DeadLetterNotFound, Code::DeadLetterUndecodable]))),
)]
pub async fn redrive_dead_letter(
    State(state): State<AppState>,
    Admin(admin): Admin,
    PathId(id): PathId,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    body.fields.finish()?;
    let namespace = &state.config.broker.queue_namespace;
    let events = topology::event_queues(namespace);
    let (kind, asked_for) = ("redrive-dead-letter", id.to_be_bytes());
    let redriven = once(&state.pool, admin.user_id, kind, &headers, &asked_for, async |on| {
        // Of one that is discarded at this moment there is none; what cannot be read is taken back.
        let letter = sqlx::query!(
            "UPDATE dead_letters SET redrive_requested_at = COALESCE(redrive_requested_at, now())
             WHERE id = $1 AND discarded_at IS NULL RETURNING queue, payload",
            id
        )
        .fetch_optional(&mut *on)
        .await?;
        let letter = letter.ok_or_else(|| Problem::new(Code::DeadLetterNotFound))?;
        if !events.contains(&letter.queue) && Envelope::decode(&letter.payload).is_err() {
            return Err(Problem::new(Code::DeadLetterUndecodable));
        }
        let redriven = Redriven { requested: 1 };
        let change = Change::new(admin.user_id, kind, format!("dead-letters/{id}"));
        change.after(&redriven)?.note(on).await?;
        Ok(redriven)
    });
    Ok(accepted(&redriven.await?))
}

/// Gives every dead letter another attempt. Those that this version cannot read stay what they are.
///
/// # Errors
/// 400, 401, 403, 422, 503.
#[utoipa::path(
    post, path = "/api/admin/dead-letters/redrive", operation_id = "redriveDeadLetters", tag = "Admin",
    params(IdempotencyKey),
    request_body = Option<Nothing>,
    responses((status = 202, description = "The workers will see to it.", body = Redriven)),
)]
pub async fn redrive_dead_letters(
    State(state): State<AppState>,
    Admin(admin): Admin,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    body.fields.finish()?;
    let kind = "redrive-dead-letters";
    let redriven = once(&state.pool, admin.user_id, kind, &headers, &[], async |on| {
        let requested = sqlx::query!(
            "UPDATE dead_letters SET redrive_requested_at = now() WHERE redrive_requested_at IS NULL AND discarded_at IS NULL"
        )
        .execute(&mut *on)
        .await?;
        let redriven = Redriven { requested: requested.rows_affected() };
        if redriven.requested > 0 {
            let change = Change::new(admin.user_id, kind, "dead-letters");
            change.after(&redriven)?.note(on).await?;
        }
        Ok(redriven)
    });
    Ok(accepted(&redriven.await?))
}

/// Forgets a dead letter. A job keeps its outcome, `failed`.
///
/// # Errors
/// 401, 403, 404, 503.
#[utoipa::path(
    delete, path = "/api/admin/dead-letters/{id}", operation_id = "discardDeadLetter", tag = "Admin",
    responses((status = 204, description = "It is forgotten.")),
    extensions(("x-codes" = json!([Code::DeadLetterNotFound]))),
)]
pub async fn discard_dead_letter(
    State(state): State<AppState>,
    Admin(admin): Admin,
    PathId(id): PathId,
) -> Result<StatusCode, Problem> {
    let mut connection = state.pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    let discarded = sqlx::query!(
        "UPDATE dead_letters SET discarded_at = now(), redrive_requested_at = NULL
         WHERE id = $1 AND discarded_at IS NULL RETURNING queue, job_id, user_id",
        id
    )
    .fetch_optional(&mut *transaction)
    .await?;
    let letter = discarded.ok_or_else(|| Problem::new(Code::DeadLetterNotFound))?;
    let before = Discarded { queue: letter.queue, job_id: letter.job_id, user_id: letter.user_id };
    let change = Change::new(admin.user_id, "discard-dead-letter", format!("dead-letters/{id}"));
    change.before(&before)?.note(&mut transaction).await?;
    transaction.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn accepted(redriven: &Value) -> Response {
    json::answer(StatusCode::ACCEPTED, redriven)
}
