//! From a valid request to a 202. One way for all: without a key it is the same without a claim.
//!
//! **Invariant:** a submission writes nothing but its one message; what is read on the way may be skipped when
//! it does not come in time, since the line decides.

use std::time::Duration;

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use firstcome_contract::{
    ids::{ProductId, UserId},
    job::{Envelope, Job, JobId, JobKind},
    line::Line,
    order,
};
use firstcome_process::fault_point;
use serde::Serialize;
use tokio::time::timeout;
use utoipa::{IntoResponses, ToSchema, openapi::Object};

use crate::{
    http::{
        idempotency_key, json,
        prefer::{applied, preferred_wait},
        problem::{Code, Problem},
        request_id,
        schema::{JOB_ID, kinds, one_of},
        trace,
    },
    job::{self, JobView},
    known::{early::Early, keys::Claim},
    lines,
    publish::{Owner, Refusal},
    state::AppState,
};

#[derive(IntoResponses)]
#[expect(dead_code, reason = "describes what `accept` answers")]
pub(crate) enum AcceptedAnswer {
    /// The job is in its line: it will have an outcome.
    #[response(status = 202, headers(
        ("Location" = String, description = "Where to ask for the outcome."),
        ("Retry-After" = u64, description = "When the outcome is likely to be there, in whole seconds."),
        ("Preference-Applied" = String, description = "The `wait` that was honoured."),
    ))]
    Accepted(Accepted),
    /// The job was settled within the `wait` that was preferred.
    #[response(status = 200, headers(
        ("Preference-Applied" = String, description = "The `wait` that was honoured."),
    ))]
    Settled(JobView<'static>),
}

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
    /// The caller, for whom the job is done.
    pub user_id: UserId,
    /// What for; an order from the cart has no items yet, and the cancel of an order none of its products.
    pub job: Job,
    /// May carry an idempotency key, a trace and a name.
    pub headers: &'a HeaderMap,
    /// What is asked for, in the client's terms: two requests with one key must agree in it.
    pub fingerprint: &'a [u8],
}

/// Accepts a job or says why not, and counts it.
///
/// # Errors
/// Why there is no such job, or the line would reject it; 422 for a key of another request; 503 if it cannot be
/// queued.
pub async fn accept(state: &AppState, request: Request<'_>) -> Result<Response, Problem> {
    let kind = request.job.kind();
    let (user_id, wait) = (request.user_id, preferred_wait(request.headers));
    let submitted = submit(state, request).await;
    let submitted = submitted.inspect_err(|problem| state.metrics.refused(kind, problem.code()));
    let id = submitted?;
    match wait {
        None => Ok(accepted(state, id, kind)),
        Some(wait) => Ok(held(state, id, user_id, kind, wait).await),
    }
}

/// Answers with the job once it is settled; with 202, like any other, if that takes longer or cannot be told: it
/// is accepted, whatever becomes of the waiting.
async fn held(
    state: &AppState,
    id: JobId,
    user_id: UserId,
    kind: JobKind,
    wait: Duration,
) -> Response {
    let settled = timeout(wait, job::outcome(state, id, user_id, Some(wait))).await;
    let mut response = match settled {
        Ok(Ok(Some(settled))) => JobView::new(id, kind, Some(&settled), None).answer(),
        _ => accepted(state, id, kind),
    };
    applied(response.headers_mut(), wait);
    response
}

/// Puts the job into its line; which job it is now, since a repeated request gets its first answer even where
/// another one would be given by now.
async fn submit(state: &AppState, request: Request<'_>) -> Result<JobId, Problem> {
    let Request { user_id, mut job, headers, fingerprint } = request;
    let kind = job.kind();
    let key = idempotency_key::key(headers)?;
    let found = find_order(state, user_id, &mut job).await;
    let (place, mut line) = state.lines.deal(&job);
    let id = state.signer.mint(user_id, kind, place);
    request_id::is_about(id);
    let complete = match found {
        Ok(()) => complete(state, user_id, &mut job, &mut line).await,
        missing => missing,
    };
    let claim = key.map(|key| Claim::new(id, user_id, kind, key, fingerprint));
    let idempotency = claim.as_ref().map(|claim| claim.idempotency().clone());
    // Not one that we made: nobody else knows it.
    let (trace, request_id) = (trace::given(headers), request_id::given(headers));
    let envelope = Envelope { id, user_id, idempotency, trace, request_id, job };
    let certain = match &complete {
        Ok(()) => judge(state, &envelope).await,
        Err(_) => None,
    };
    let early = certain.map(|early| early.problem(id.submitted_at()));
    let promising = complete.and(early.map_or(Ok(()), Err));

    // A request that promises nothing is not published; but if it is a repeat, it is answered as one.
    let first = match (&promising, &claim) {
        (Ok(()), None) => {
            trace::publishing(&envelope, state.enqueuer.submit(&envelope, line, true)).await
        }
        (Ok(()), Some(claim)) => {
            trace::publishing(&envelope, state.keys.submit(claim, &envelope, line)).await
        }
        (Err(_), None) => Ok(()),
        (Err(_), Some(claim)) => {
            let owner = state.keys.owner(claim).await;
            owner.map_or(Ok(()), |owner| Err(Refusal::KeyTaken(owner)))
        }
    };
    match (first, claim) {
        (Ok(()), _) => {
            if let Some(early) = certain {
                state.refusals.count(&envelope.job, early.rejection());
            }
            promising?;
            fault_point::pass(fault_point::CONFIRMED);
            state.metrics.accepted(kind);
            Ok(id)
        }
        (Err(Refusal::KeyTaken(owner)), Some(claim)) => {
            repeat(state, &claim, owner, envelope, line, promising).await
        }
        (Err(refusal), _) => Err(refusal.into()),
    }
}

/// Adds what only the order tells, before its cancel is dealt out: whose it is, and its products. It never changes, so
/// any repeat finds the same.
async fn find_order(state: &AppState, user_id: UserId, job: &mut Job) -> Result<(), Problem> {
    let Job::CancelOrder(cancel) = job else { return Ok(()) };
    let order = state.shown.orders.get(cancel.order_id.get()).await?;
    let order = order.filter(|order| cancel.by_operator || order.customer_id == user_id);
    let order = order.ok_or_else(|| Problem::new(Code::OrderNotFound))?;
    cancel.customer_id = order.customer_id;
    cancel.product_ids = order.product_ids;
    Ok(())
}

/// Adds what the request did not bring along: the items of an order from the cart, and with them its line. Its id, which
/// is older, tells no place: a repeat may find another cart, and the job in another line.
async fn complete(
    state: &AppState,
    user_id: UserId,
    job: &mut Job,
    line: &mut Option<Line>,
) -> Result<(), Problem> {
    if let Job::PlaceOrder(order) = job
        && order.from_cart
    {
        order.items = cart(state, user_id).await?;
        *line = state.lines.deal(job).1;
    }
    Ok(())
}

/// Why it is not worth its place in the line: that would reject it for certain.
async fn judge(state: &AppState, envelope: &Envelope) -> Option<Early> {
    let submitted_at = envelope.id.submitted_at();
    match &envelope.job {
        Job::IssueCoupon(job) => state.coupons.early_rejection(job.coupon_id, submitted_at).await,
        Job::PlaceOrder(order) => state.products.early_rejection(&order.items, submitted_at).await,
        // Of an order that is there nothing is certain: what is before it in the line may cancel it.
        Job::CancelOrder(_) => None,
    }
}

/// Answers for the job that has the key: as before, and as if for the first time while it may not be in its line.
async fn repeat(
    state: &AppState,
    claim: &Claim,
    owner: Owner,
    envelope: Envelope,
    line: Option<Line>,
    promising: Result<(), Problem>,
) -> Result<JobId, Problem> {
    if !owner.is_same {
        return Err(Problem::new(Code::IdempotencyKeyReused));
    }
    if !owner.is_queued {
        // Once accepted, it does not matter what is known by now; but a job has to have keys.
        if envelope.job.keys().next().is_none() {
            promising?;
        }
        // A repeat was counted with its first, unless that is long gone.
        let is_new = owner.job == envelope.id;
        let envelope = Envelope { id: owner.job, ..envelope };
        state.enqueuer.submit(&envelope, line, is_new).await?;
        state.metrics.accepted(envelope.job.kind());
    }
    state.keys.queued(claim, owner.job);
    Ok(owner.job)
}

/// What is in the cart, ascending as in any order.
async fn cart(state: &AppState, user_id: UserId) -> Result<Vec<order::Item>, Problem> {
    let rows = sqlx::query!(
        "SELECT product_id, quantity FROM carts
         CROSS JOIN LATERAL (SELECT FROM products WHERE id = product_id AND deleted_at IS NULL LIMIT 1) AS product
         WHERE user_id = $1 ORDER BY product_id LIMIT 50",
        user_id.get(),
    )
    .fetch_all(&state.pool)
    .await?;
    if rows.is_empty() {
        return Err(Problem::new(Code::CartEmpty));
    }
    let item = |id, quantity| order::Item { product_id: ProductId::new(id), quantity };
    Ok(rows.into_iter().map(|row| item(row.product_id, row.quantity)).collect())
}

fn accepted(state: &AppState, job_id: JobId, kind: JobKind) -> Response {
    let location = format!("/api/jobs/{job_id}");
    let header_value = HeaderValue::from_str(&location);
    let body =
        Accepted { job_id, kind: kind.as_str(), status: "queued", links: Links { this: location } };
    let mut response = json::answer(StatusCode::ACCEPTED, &body);
    let headers = response.headers_mut();
    headers.extend(header_value.ok().map(|value| (header::LOCATION, value)));
    let place = state.lines.position(job_id);
    headers.insert(header::RETRY_AFTER, lines::seconds_to_wait(job_id, place).into());
    response
}
