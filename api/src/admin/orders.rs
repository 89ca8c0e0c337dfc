//! `POST /api/admin/orders/{id}/cancel`

use axum::{extract::State, http::HeaderMap, response::Response};
use firstcome_contract::{ids::OrderId, job::cancel_order::MAX_REASON};
use utoipa::ToSchema;

use crate::{
    http::{
        auth::Admin,
        body::Body,
        idempotency_key::IdempotencyKey,
        path::PathId,
        prefer::Prefer,
        problem::{Code, Problem},
        trace::TraceHeader,
    },
    order::submit_cancel,
    state::AppState,
    submit::AcceptedAnswer,
};

/// Why an operator cancels an order.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = OperatorCancelRequest, example = json!({"reason": "The parcel was lost."}))]
#[expect(dead_code, reason = "describes what `cancel_order` reads")]
struct CancelRequest {
    /// Stands in the order from then on: the customer reads it, too.
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
}

/// Enqueues a `cancel-order` job for any customer's order, however old it is. The job is the operator's.
///
/// # Errors
/// 400, 401, 403, 404, 422, 503.
#[utoipa::path(
    post, path = "/api/admin/orders/{id}/cancel", operation_id = "cancelAnyOrder", tag = "Admin",
    params(IdempotencyKey, Prefer, TraceHeader),
    request_body = CancelRequest,
    responses(AcceptedAnswer),
    extensions(("x-codes" = json!([Code::OrderNotFound, Code::LineFull, Code::BrokerUnavailable]))),
)]
pub async fn cancel_order(
    State(state): State<AppState>,
    Admin(admin): Admin,
    PathId(id): PathId,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Body { mut fields, .. } = body;
    let reason = fields.text("reason", MAX_REASON);
    fields.finish()?;
    submit_cancel(&state, admin.user_id, OrderId::new(id), Some(reason), None, &headers).await
}
