//! `POST /api/coupons/{couponId}/issue`

use axum::{extract::State, http::HeaderMap, response::Response};
use firstcome_contract::{
    ids::CouponId,
    job::{IssueCoupon, Job, JobKind},
};

use crate::{
    http::{
        auth::Caller,
        extract::{Body, PathId},
        problem::{Code, Problem},
    },
    openapi::{IdempotencyKey, Nothing, TraceParent},
    state::AppState,
    submit::{AcceptedAnswer, Request, accept},
};

/// Enqueues an `issue-coupon` job.
///
/// # Errors
/// 404, 409 if the answer is already certain; 503 if the job cannot be queued.
#[utoipa::path(
    post, path = "/api/coupons/{couponId}/issue", operation_id = "issueCoupon", tag = "Coupons",
    params(IdempotencyKey, TraceParent),
    request_body = Option<Nothing>,
    responses(AcceptedAnswer),
    extensions(("x-codes" = json!([
        Code::CouponNotFound, Code::CouponNotStarted, Code::CouponEnded, Code::CouponSoldOut,
        Code::LineFull, Code::BrokerUnavailable,
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
    let coupon_id = CouponId::new(coupon);
    let request = Request {
        user_id: caller.user_id,
        kind: JobKind::IssueCoupon,
        place: state.lines.place(JobKind::IssueCoupon, std::iter::once(coupon)),
        headers: &headers,
        fingerprint: &coupon.to_be_bytes(),
    };
    let job = async { Ok(Job::IssueCoupon(IssueCoupon { coupon_id })) };
    accept(&state, request, job, async |_, submitted_at| {
        match state.coupons.early_rejection(coupon_id, submitted_at).await {
            Some(rejection) => Err(Problem::new(rejection.into())),
            None => Ok(()),
        }
    })
    .await
}
