//! `GET /api/jobs/{jobId}`

use axum::{
    extract::{RawPathParams, State, rejection::RawPathParamsRejection},
    http::{HeaderMap, header},
    response::Response,
};
use chrono::Utc;
use firstcome_contract::job::JobId;
use uuid::Uuid;

use super::{
    events,
    outcome::{cannot_be_told, outcome},
    schema::example,
    view::JobView,
};
use crate::{
    http::{
        auth::Caller,
        prefer::{Prefer, applied, preferred_wait},
        problem::{Code, Problem},
        request_id,
    },
    lines,
    state::AppState,
};

/// Tells the state of a job; with `Prefer: wait=N` the answer is held until it is settled. With `Accept: text/event-stream`
/// it is a stream of server-sent events: `queued` (`position`, `estimatedSeconds`) at most once a second while they
/// change, then one `settled` with the job, and the end.
///
/// # Errors
/// 404 for an id never issued to this caller, 410 after the retention, 503 while the state cannot be
/// told, with the place that was known last.
#[utoipa::path(
    get, path = "/api/jobs/{jobId}", operation_id = "getJob", tag = "Jobs",
    params(Prefer),
    responses((
        status = 200, description = "The job, or its events.",
        headers(
            ("Retry-After" = u64, description = "Of a queued job: when to ask again, in whole seconds."),
            ("Preference-Applied" = String, description = "The `wait` that was honoured."),
            ("Cache-Control" = String, description = "`no-store`"),
        ),
        content((
            JobView<'_> = "application/json",
            examples(
                ("queued" = (value = json!(example::queued()))),
                ("coupon" = (value = json!(example::coupon()))),
                ("order" = (value = json!(example::order()))),
                ("cancelled" = (value = json!(example::cancelled()))),
                ("out-of-stock" = (value = json!(example::out_of_stock()))),
                ("limit-exceeded" = (value = json!(example::limit_exceeded()))),
            ),
        ), (String = "text/event-stream")),
    )),
    extensions(("x-codes" = json!([Code::JobNotFound, Code::JobExpired, Code::TooManyStreams]))),
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
    request_id::is_about(id);
    if Utc::now() - id.submitted_at() > state.config.retention() {
        return Err(Problem::new(Code::JobExpired));
    }
    if events::are_wanted(&headers) {
        return events::open(state, caller.user_id, id, kind).await;
    }
    let wait = preferred_wait(&headers);
    let settled = outcome(&state, id, caller.user_id, wait).await;
    let settled = settled.map_err(|_| cannot_be_told(&state, id))?;
    let place = if settled.is_some() { None } else { state.lines.position(id) };
    let mut response = JobView::new(id, kind, settled.as_deref(), place).answer();
    let headers = response.headers_mut();
    if settled.is_none() {
        headers.insert(header::RETRY_AFTER, lines::seconds_to_wait(id, place).into());
    }
    if let Some(wait) = wait {
        applied(headers, wait);
    }
    Ok(response)
}
