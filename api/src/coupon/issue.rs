//! `POST /api/coupons/{couponId}/issue`

use axum::{extract::State, http::HeaderMap, response::Response};
use firstcome_shared::{
    ids::CouponId,
    job::{IssueCoupon, Job},
};

use crate::{
    accept,
    auth::Caller,
    extract::{Body, PathId},
    problem::Problem,
    state::AppState,
};

/// Enqueues an `issue-coupon` job.
///
/// # Errors
/// 404, 409 if the answer is already certain; 503 if the job cannot be queued.
pub async fn issue(
    State(state): State<AppState>,
    caller: Caller,
    PathId(coupon): PathId,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    body.fields.finish()?;
    let coupon_id = CouponId::new(coupon);
    let job = Job::IssueCoupon(IssueCoupon { coupon_id });
    let early = async {
        match state.coupons.early_rejection(coupon_id).await {
            Some(rejection) => Err(Problem::new(rejection.into())),
            None => Ok(()),
        }
    };
    accept::accept(&state, caller.user_id, job, &headers, early).await
}
