//! From a valid request to a 202: idempotency, early answer, line.

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use chrono::{DateTime, Utc};
use firstcome_shared::{
    ids::UserId,
    job::{Envelope, Job, JobId, JobKind},
};
use serde::Serialize;

use crate::{
    idempotency::{self, Claim, Known},
    problem::Problem,
    state::AppState,
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Accepted {
    job_id: JobId,
    kind: &'static str,
    status: &'static str,
    links: Links,
}

#[derive(Serialize)]
struct Links {
    #[serde(rename = "self")]
    this: String,
}

/// A valid request for a job.
#[derive(Debug)]
pub struct Request<'a> {
    /// Who asks.
    pub user_id: UserId,
    /// For what kind of job.
    pub kind: JobKind,
    /// May carry an idempotency key.
    pub headers: &'a HeaderMap,
    /// What is asked for, in the client's terms: two requests with one key must agree in it.
    pub fingerprint: &'a [u8],
}

/// Accepts the job that `prepare` makes of the request, unless `early` already knows better of a
/// job submitted at that instant. A
/// repeated request gets its first answer even where `early` has changed its mind since.
///
/// # Errors
/// `prepare`'s and `early`'s; 422 for a key of another request; 503 if the job cannot be queued.
pub async fn accept(
    state: &AppState,
    request: Request<'_>,
    prepare: impl Future<Output = Result<Job, Problem>>,
    early: impl AsyncFnOnce(&Job, DateTime<Utc>) -> Result<(), Problem>,
) -> Result<Response, Problem> {
    let Request { user_id, kind, headers, fingerprint } = request;
    let fresh = state.signer.mint(user_id, kind);
    let Some(key) = idempotency::key(headers)? else {
        let job = prepare.await?;
        early(&job, fresh.submitted_at()).await?;
        state.enqueuer.submit(&Envelope { id: fresh, user_id, idempotency: None, job }).await?;
        return Ok(accepted(state, fresh, kind));
    };

    let claim = Claim::new(user_id, kind, key, fingerprint);
    let known = state.keys.claim(&claim, fresh).await?;
    let (id, judged) = match known {
        Known::Accepted(first) => return Ok(accepted(state, first, kind)),
        Known::Pending(first) => (first, false),
        Known::Unused => (fresh, true),
    };
    let submitted = async {
        let job = prepare.await?;
        if judged {
            early(&job, fresh.submitted_at()).await?;
        }
        let idempotency = Some(claim.idempotency().clone());
        state.enqueuer.submit(&Envelope { id, user_id, idempotency, job }).await?;
        Ok(())
    };
    if let Err(problem) = submitted.await {
        state.keys.release(&claim, fresh).await;
        return Err(problem);
    }
    state.keys.accepted(&claim, id);
    Ok(accepted(state, id, kind))
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
    headers.insert(header::RETRY_AFTER, state.jobs.pace().as_secs().into());
    response
}
