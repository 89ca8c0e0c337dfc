//! `POST /api/orders/{orderId}/cancel`

use axum::{extract::State, http::HeaderMap, response::Response};
use firstcome_contract::{
    ids::{OrderId, UserId},
    job::{CancelOrder, Job, cancel_order::MAX_REASON},
};
use firstcome_process::request_id;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    http::{
        auth::Caller,
        body::Body,
        idempotency_key::IdempotencyKey,
        path::PathId,
        prefer::Prefer,
        problem::{Code, Problem},
        trace::TraceHeader,
    },
    state::AppState,
    submit::{AcceptedAnswer, Request, accept},
};

/// Why, if there is anything to say.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CancelRequest, example = json!({"reason": "Ordered twice."}))]
#[expect(dead_code, reason = "describes what `cancel` reads")]
struct CancelRequest {
    /// Stands in the order from then on.
    #[schema(min_length = 1, max_length = 500)]
    reason: Option<String>,
}

/// Enqueues a `cancel-order` job. It stands in the line of the order's products: what comes back goes to whoever is
/// next there.
///
/// # Errors
/// 400, 404 also for another customer's order, 422, 503.
#[utoipa::path(
    post, path = "/api/orders/{orderId}/cancel", operation_id = "cancelOrder", tag = "Orders",
    params(IdempotencyKey, Prefer, TraceHeader),
    request_body = Option<CancelRequest>,
    responses(AcceptedAnswer),
    extensions(("x-codes" = json!([Code::OrderNotFound, Code::LineFull, Code::BrokerUnavailable]))),
)]
pub async fn cancel(
    State(state): State<AppState>,
    caller: Caller,
    PathId(id): PathId,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Body { mut fields, .. } = body;
    let reason = fields.optional_text("reason", MAX_REASON);
    fields.finish()?;
    let max_age = state.config.cancel_window;
    submit_cancel(&state, caller.user_id, OrderId::new(id), reason, Some(max_age), &headers).await
}

/// Enqueues the job: a customer's, of whose orders it may be one of at most so many seconds; or, without a bound, an
/// operator's, of any order.
pub(crate) async fn submit_cancel(
    state: &AppState,
    user_id: UserId,
    order_id: OrderId,
    reason: Option<String>,
    max_age_seconds: Option<u32>,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let job = CancelOrder {
        order_id,
        // The order tells, and its products.
        customer_id: user_id,
        product_ids: Vec::new(),
        reason,
        by_operator: max_age_seconds.is_none(),
        max_age_seconds,
        request_id: max_age_seconds.is_none().then(request_id::current).flatten(),
    };
    let fingerprint = terms(&job).map_err(|_| Problem::new(Code::InternalError))?;
    let request =
        Request { user_id, job: Job::CancelOrder(job), headers, fingerprint: &fingerprint };
    accept(state, request).await
}

/// What was asked for, in the client's terms, for the request's fingerprint. Running systems hold fingerprints of it,
/// also those of another release: it stays as it is, and a term to come is left out where a request does not have it.
fn terms(cancel: &CancelOrder) -> serde_json::Result<Vec<u8>> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Terms<'a> {
        order_id: i64,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        by_operator: Option<bool>,
    }
    serde_json::to_vec(&Terms {
        order_id: cancel.order_id.get(),
        reason: cancel.reason.as_deref(),
        by_operator: cancel.by_operator.then_some(true),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::known::keys::fingerprint;

    #[test]
    fn fingerprints_of_cancels_never_change() {
        let of = |reason: Option<&str>, by_operator| {
            let cancel = CancelOrder {
                order_id: OrderId::new(17),
                customer_id: UserId::new(7),
                product_ids: Vec::new(),
                reason: reason.map(str::to_owned),
                by_operator,
                max_age_seconds: None,
                request_id: None,
            };
            fingerprint(&[b"cancel-order", &terms(&cancel).unwrap()])
        };
        assert_eq!(
            [of(None, false), of(Some("Ordered twice."), false), of(Some("Ordered twice."), true),],
            [
                "6b807b7649c452147eccbc0655d5a400",
                "46803cc29547aaf5cf47df9f02d26e0c",
                "20cfff7ac7211b65c51f240ee8bef3b7",
            ]
        );
    }
}
