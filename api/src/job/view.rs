//! A job, as it is told to who submitted it.

use axum::{
    http::{HeaderValue, header},
    response::Response,
};
use chrono::{DateTime, Utc};
use firstcome_contract::job::{JobId, JobKind, Settled};
use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};
use utoipa::ToSchema;

use super::schema::{Detail, JobResult, statuses};
use crate::{
    http::{
        json,
        problem::{Code, Problem},
        schema::kinds,
    },
    lines::{Position, whole},
};

/// What a customer can do about it.
const LOST: &str = "The job was accepted and then lost on our side. Nothing of it was done: the request may be \
                    repeated, also with the same Idempotency-Key.";

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Job)]
pub(crate) struct JobView<'a> {
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

impl<'a> JobView<'a> {
    /// As it is known by now; where it stands matters only while it is queued.
    pub(crate) fn new(
        id: JobId,
        kind: JobKind,
        settled: Option<&'a Settled>,
        place: Option<Position>,
    ) -> Self {
        Self {
            job_id: id,
            kind: kind.as_str(),
            status: settled.map_or("queued", |settled| settled.status.as_str()),
            submitted_at: id.submitted_at(),
            settled_at: settled.map(|settled| settled.settled_at),
            result: settled.and_then(|settled| settled.result.as_deref()),
            error: settled.and_then(error),
            position: place.map(|place| place.position),
            estimated_seconds: place
                .and_then(|place| place.seconds)
                .map(|seconds| whole(seconds.ceil())),
        }
    }

    /// 200 with it, for this moment.
    pub(crate) fn answer(&self) -> Response {
        let mut response = json::ok(self);
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// Why a job was not done. `issue-coupon` and `place-order` are rejected with `user-not-found`;
/// `issue-coupon` further with `coupon-not-found`, `sale-paused`, `coupon-not-started`, `coupon-ended`,
/// `coupon-already-issued`, `coupon-sold-out`; `place-order` with `product-not-found`, `sale-paused`,
/// `product-not-on-sale`, `limit-exceeded` and `out-of-stock` (which add `lines`), `coupon-not-owned`,
/// `coupon-already-used`, `coupon-expired`, `insufficient-balance`; `cancel-order` with `order-not-found`,
/// `order-already-cancelled`, `order-not-cancellable`; any with `idempotency-key-reused`, where Redis had
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

fn error(settled: &Settled) -> Option<JobError> {
    let code = Code::of_outcome(settled.code.as_deref()?);
    let is_lost = code == Code::JobLost;
    let problem = if is_lost { Problem::with_detail(code, LOST) } else { Problem::new(code) };
    let detail = settled.detail.as_ref().and_then(|detail| serde_json::from_str(detail.get()).ok());
    Some(JobError { problem, detail })
}
