//! `POST /api/coupons/{couponId}/issue`

use axum::{extract::State, http::HeaderMap, response::Response};
use firstcome_contract::{
    ids::CouponId,
    job::{IssueCoupon, Job},
};

use crate::{
    http::{
        auth::Caller,
        body::Body,
        idempotency_key::IdempotencyKey,
        path::PathId,
        prefer::Prefer,
        problem::{Code, Problem},
        schema::Nothing,
        trace::TraceHeader,
    },
    state::AppState,
    submit::{AcceptedAnswer, Request, accept},
};

/// Enqueues an `issue-coupon` job.
///
/// # Errors
/// 404, 409 if the answer is already certain; 503 if the job cannot be queued.
#[utoipa::path(
    post, path = "/api/coupons/{couponId}/issue", operation_id = "issueCoupon", tag = "Coupons",
    params(IdempotencyKey, Prefer, TraceHeader),
    request_body = Option<Nothing>,
    responses(AcceptedAnswer),
    extensions(("x-codes" = json!([
        Code::CouponNotFound, Code::SalePaused, Code::CouponNotStarted, Code::CouponEnded,
        Code::CouponSoldOut, Code::LineFull, Code::BrokerUnavailable,
    ]))),
)]
pub async fn issue(
    State(state): State<AppState>,
    caller: Caller,
    PathId(coupon): PathId,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    body.fields.finish()?;
    let request = Request {
        user_id: caller.user_id,
        job: Job::IssueCoupon(IssueCoupon { coupon_id: CouponId::new(coupon) }),
        headers: &headers,
        fingerprint: &coupon.to_be_bytes(),
    };
    accept(&state, request).await
}
