//! One coupon per request, decided in Redis by a script; it is in the stream for the database when the request is answered.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use firstcome_api::http::{auth::Caller, body::Body, path::PathId, problem::Code};
use firstcome_contract::job::JobKind;

use super::{
    script::{Issued, RedisLua},
    shared::{Failed, Shared, done},
};

const KIND: JobKind = JobKind::IssueCoupon;

/// Asks Redis, and answers as the API does: accepted, with where to ask for the outcome.
pub(super) async fn issue(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    PathId(coupon): PathId,
    body: Body,
) -> Result<Response, Failed> {
    body.fields.finish()?;
    let job = shared.job_id(KIND);
    let redis: &RedisLua = shared.redis_lua.as_ref().ok_or(Failed::GaveUp)?;
    let campaign = redis.campaign(&shared.pool, coupon).await.map_err(gave_up)?;
    let campaign = campaign.ok_or(Code::CouponNotFound)?;
    campaign.check_window(job.submitted_at()).map_err(Code::from)?;
    let issued = redis.issue(job, caller.user_id.get(), coupon, campaign.total).await;
    match issued.map_err(gave_up)? {
        Issued::Accepted => {}
        Issued::Already => return Err(Code::CouponAlreadyIssued.into()),
        Issued::SoldOut => return Err(Code::CouponSoldOut.into()),
    }
    let mut answer = done(job, KIND, "queued", ());
    *answer.status_mut() = StatusCode::ACCEPTED;
    let place = HeaderValue::try_from(format!("/api/jobs/{job}")).map_err(|_| Failed::GaveUp)?;
    answer.headers_mut().insert(header::LOCATION, place);
    Ok(answer)
}

fn gave_up(error: impl std::fmt::Display) -> Failed {
    eprintln!("no answer to a request: {error:#}");
    Failed::GaveUp
}
