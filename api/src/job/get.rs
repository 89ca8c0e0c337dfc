//! `GET /api/jobs/{jobId}`

use axum::{
    extract::{RawPathParams, State, rejection::RawPathParamsRejection},
    http::{HeaderMap, HeaderName, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use firstcome_contract::job::{JobId, Settled};
use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};
use utoipa::ToSchema;
use uuid::Uuid;

use super::schema::{Detail, JobResult, example, statuses};

use crate::{
    http::{
        auth::Caller,
        json,
        prefer::{Prefer, preferred_wait},
        problem::{Code, Problem},
        schema::kinds,
    },
    lines::{self, whole},
    state::AppState,
};

/// What a customer can do about it.
const LOST: &str = "The job was accepted and then lost on our side. Nothing of it was done: the request may be \
                    repeated, also with the same Idempotency-Key.";

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Job)]
struct JobView<'a> {
    #[schema(value_type = Uuid)]
    job_id: JobId,
    #[schema(schema_with = kinds)]
    kind: &'static str,
    #[schema(schema_with = statuses)]
    status: &'static str,
    submitted_at: DateTime<Utc>,
    #[schema(required)]
    settled_at: Option<DateTime<Utc>>,
    /// Of a job that succeeded.
    #[schema(required, value_type = Option<JobResult>)]
    result: Option<&'a RawValue>,
    /// Of a job that was rejected or failed.
    #[schema(required)]
    error: Option<JobError>,
    /// While it is queued: 1 is next. An estimate.
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<u64>,
    /// While it is queued and its line moves: until it is settled. An estimate.
    #[serde(skip_serializing_if = "Option::is_none")]
    estimated_seconds: Option<u64>,
}

/// Why a job was not done. `issue-coupon` and `place-order` are rejected with `user-not-found`;
/// `issue-coupon` further with `coupon-not-found`, `coupon-not-started`, `coupon-ended`,
/// `coupon-already-issued`, `coupon-sold-out`; `place-order` with `product-not-found`,
/// `out-of-stock` (which adds `lines`), `coupon-not-owned`, `coupon-already-used`,
/// `coupon-expired`, `insufficient-balance`; either with `idempotency-key-reused`, where Redis had
/// forgotten the key while its first job was queued. Jobs that failed have `job-undecodable`,
/// `job-unprocessable` or `job-overdue`; or `job-lost`, if we lost them: nothing of such a job was done, and its
/// request may be repeated, with its key as well.
#[derive(Serialize, ToSchema)]
struct JobError {
    #[serde(flatten)]
    problem: Problem,
    #[serde(flatten)]
    #[schema(value_type = Detail)]
    detail: Option<Map<String, Value>>,
}

/// Tells the state of a job; with `Prefer: wait=N` the answer is held until it is settled.
///
/// # Errors
/// 404 for an id never issued to this caller, 410 after the retention, 503 while the state cannot be
/// told, with the place that was known last.
#[utoipa::path(
    get, path = "/api/jobs/{jobId}", operation_id = "getJob", tag = "Jobs",
    params(Prefer),
    responses((
        status = 200, description = "The job.", body = JobView<'_>,
        headers(
            ("Retry-After" = u64, description = "Of a queued job: when to ask again, in whole seconds."),
            ("Preference-Applied" = String, description = "The `wait` that was honoured."),
            ("Cache-Control" = String, description = "`no-store`"),
        ),
        examples(
            ("queued" = (value = json!(example::queued()))),
            ("coupon" = (value = json!(example::coupon()))),
            ("order" = (value = json!(example::order()))),
            ("out-of-stock" = (value = json!(example::out_of_stock()))),
        ),
    )),
    extensions(("x-codes" = json!([Code::JobNotFound, Code::JobExpired]))),
)]
pub async fn get(
    State(state): State<AppState>,
    caller: Caller,
    path: Result<RawPathParams, RawPathParamsRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let path = path.ok();
    let id = path.as_ref().and_then(|path| path.iter().next()).map(|(_, id)| id);
    let id = id.and_then(|id| id.parse::<Uuid>().ok()).map(JobId::from);
    let id = id.filter(|id| state.signer.issued(*id, caller.user_id));
    let (Some(id), Some(kind)) = (id, id.and_then(JobId::kind)) else {
        return Err(Problem::new(Code::JobNotFound));
    };
    if Utc::now() - id.submitted_at() > state.config.retention() {
        return Err(Problem::new(Code::JobExpired));
    }
    let wait = preferred_wait(&headers);
    // Nothing more comes of what is in no line any more.
    let waits = wait.filter(|_| !state.lost.has_come_out(id));
    let settled = match state.jobs.outcome(id, waits).await {
        Ok(None) => state.lost.outcome(id, caller.user_id).await,
        settled => settled,
    };
    let place = if matches!(settled, Ok(Some(_))) { None } else { state.lines.position(id) };
    let settled = settled.map_err(|unavailable| {
        // Whether it still waits there, only PostgreSQL can say.
        let problem = Problem::from(unavailable);
        match place {
            Some(place) => problem
                .last_known(place.position)
                .retry_after(lines::seconds_to_wait(id, Some(place)).max(1)),
            None => problem,
        }
    })?;
    let view = JobView {
        job_id: id,
        kind: kind.as_str(),
        status: settled.as_ref().map_or("queued", |settled| settled.status.as_str()),
        submitted_at: id.submitted_at(),
        settled_at: settled.as_ref().map(|settled| settled.settled_at),
        result: settled.as_ref().and_then(|settled| settled.result.as_deref()),
        error: settled.as_deref().and_then(error),
        position: place.map(|place| place.position),
        estimated_seconds: place
            .and_then(|place| place.seconds)
            .map(|seconds| whole(seconds.ceil())),
    };
    let mut response = json::ok(&view);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    if settled.is_none() {
        headers.insert(header::RETRY_AFTER, lines::seconds_to_wait(id, place).into());
    }
    if let Some(wait) = wait
        && let Ok(applied) = format!("wait={}", wait.as_secs()).parse()
    {
        headers.insert(HeaderName::from_static("preference-applied"), applied);
    }
    Ok(response.into_response())
}

fn error(settled: &Settled) -> Option<JobError> {
    let code = Code::of_outcome(settled.code.as_deref()?);
    let is_lost = code == Code::JobLost;
    let problem = if is_lost { Problem::with_detail(code, LOST) } else { Problem::new(code) };
    let detail = settled.detail.as_ref().and_then(|detail| serde_json::from_str(detail.get()).ok());
    Some(JobError { problem, detail })
}
