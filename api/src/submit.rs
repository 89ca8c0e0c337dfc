//! From a valid request to a 202: idempotency, early answer, line.

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use chrono::{DateTime, Utc};
use firstcome_contract::{
    ids::UserId,
    job::{Envelope, Job, JobId, JobKind},
    line::Place,
};
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema, openapi::Object};

use crate::{
    http::{
        problem::{Code, Problem},
        trace,
    },
    job::kinds,
    known::keys::{self, Claim},
    openapi::{JOB_ID, one_of},
    publish::Refusal,
    state::AppState,
};

/// The job is in its line: it will have an outcome.
#[derive(IntoResponses)]
#[response(status = 202, headers(
    ("Location" = String, description = "Where to ask for the outcome."),
    ("Retry-After" = u64, description = "When the outcome is likely to be there, in whole seconds."),
))]
#[expect(dead_code, reason = "describes what `accept` answers")]
pub(crate) struct AcceptedAnswer(Accepted);

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({
    "jobId": JOB_ID, "kind": "issue-coupon", "status": "queued", "links": {"self": format!("/api/jobs/{JOB_ID}")},
}))]
pub(crate) struct Accepted {
    #[schema(value_type = Uuid)]
    job_id: JobId,
    #[schema(schema_with = kinds)]
    kind: &'static str,
    #[schema(schema_with = queued)]
    status: &'static str,
    links: Links,
}

#[derive(Serialize, ToSchema)]
struct Links {
    /// The job.
    #[serde(rename = "self")]
    this: String,
}

fn queued() -> Object {
    one_of(["queued"])
}

/// A valid request for a job.
#[derive(Debug)]
pub struct Request<'a> {
    /// Who asks.
    pub user_id: UserId,
    /// For what kind of job.
    pub kind: JobKind,
    /// Where the job will stand, as far as that is known before it is prepared.
    pub place: Place,
    /// May carry an idempotency key and a trace.
    pub headers: &'a HeaderMap,
    /// What is asked for, in the client's terms: two requests with one key must agree in it.
    pub fingerprint: &'a [u8],
}

/// Accepts a job or says why not, and counts it: see `accept_uncounted`.
///
/// # Errors
/// As there.
pub async fn accept(
    state: &AppState,
    request: Request<'_>,
    prepare: impl Future<Output = Result<Job, Problem>>,
    early: impl AsyncFnOnce(&Job, DateTime<Utc>) -> Result<(), Problem>,
) -> Result<Response, Problem> {
    let kind = request.kind;
    let accepted = accept_uncounted(state, request, prepare, early).await;
    accepted.inspect_err(|problem| state.metrics.refused(kind, problem))
}

/// Accepts the job that `prepare` makes of the request, unless `early` already knows better of a
/// job submitted at that instant. A
/// repeated request gets its first answer even where `early` has changed its mind since.
///
/// # Errors
/// `prepare`'s and `early`'s; 422 for a key of another request; 503 if the job cannot be queued.
async fn accept_uncounted(
    state: &AppState,
    request: Request<'_>,
    prepare: impl Future<Output = Result<Job, Problem>>,
    early: impl AsyncFnOnce(&Job, DateTime<Utc>) -> Result<(), Problem>,
) -> Result<Response, Problem> {
    let Request { user_id, kind, place, headers, fingerprint } = request;
    let fresh = state.signer.mint(user_id, kind, place);
    let trace = trace::parent(headers);
    let Some(key) = keys::key(headers)? else {
        let job = prepare.await?;
        early(&job, fresh.submitted_at()).await?;
        let envelope = Envelope { id: fresh, user_id, idempotency: None, trace, job };
        state.enqueuer.submit(&envelope, true).await?;
        state.metrics.accepted(kind);
        return Ok(accepted(state, fresh, kind));
    };

    let claim = Claim::new(fresh, user_id, kind, key, fingerprint);
    let envelope = |id, job| {
        let idempotency = Some(claim.idempotency().clone());
        Envelope { id, user_id, idempotency, trace, job }
    };
    let prepared = match prepare.await {
        Ok(job) => match early(&job, fresh.submitted_at()).await {
            Ok(()) => Ok(job),
            Err(problem) => Err((problem, Some(job))),
        },
        Err(problem) => Err((problem, None)),
    };
    let (owner, job) = match prepared {
        Ok(job) => {
            let envelope = envelope(fresh, job);
            match state.keys.submit(&claim, &envelope).await {
                Ok(()) => {
                    state.metrics.accepted(kind);
                    return Ok(accepted(state, fresh, kind));
                }
                Err(Refusal::KeyTaken(owner)) => (owner, Ok(envelope.job)),
                Err(refusal) => return Err(refusal.into()),
            }
        }
        Err((problem, job)) => match state.keys.owner(&claim).await {
            Some(owner) => (owner, job.ok_or(problem)),
            None => return Err(problem),
        },
    };
    if !owner.is_same {
        return Err(Problem::new(Code::IdempotencyKeyReused));
    }
    if !owner.is_queued {
        // A repeat was counted with its first, unless that is long gone.
        let is_new = owner.job == fresh;
        state.enqueuer.submit(&envelope(owner.job, job?), is_new).await?;
        state.metrics.accepted(kind);
    }
    state.keys.queued(&claim, owner.job);
    Ok(accepted(state, owner.job, kind))
}

fn accepted(state: &AppState, job_id: JobId, kind: JobKind) -> Response {
    let location = format!("/api/jobs/{job_id}");
    let header_value = HeaderValue::from_str(&location);
    let body =
        Accepted { job_id, kind: kind.as_str(), status: "queued", links: Links { this: location } };
    let mut response = crate::json(&body);
    *response.status_mut() = StatusCode::ACCEPTED;
    let headers = response.headers_mut();
    headers.extend(header_value.ok().map(|value| (header::LOCATION, value)));
    let place = state.lines.position(job_id);
    headers.insert(header::RETRY_AFTER, state.seconds_to_wait(job_id, place).into());
    response
}
