//! The floors: what HTTP alone costs, and what a confirmed message per request costs.

use std::sync::Arc;

use axum::{extract::State, http::header, response::IntoResponse, response::Response};
use firstcome_api::http::{auth::Caller, body::Body, path::PathId};
use firstcome_contract::{
    ids::CouponId,
    job::{Envelope, IssueCoupon, Job},
};

use super::{
    publisher::KIND,
    shared::{Failed, Shared, done},
};

/// Says hello, to everybody.
pub(super) async fn hello() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], r#"{"hello":"world"}"#).into_response()
}

/// Puts the job that the API would make into a queue, as a message of its own.
pub(super) async fn publish(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    PathId(coupon): PathId,
    body: Body,
) -> Result<Response, Failed> {
    body.fields.finish()?;
    let id = shared.job_id(KIND);
    let job = Job::IssueCoupon(IssueCoupon { coupon_id: CouponId::new(coupon) });
    let envelope = Envelope {
        id,
        user_id: caller.user_id,
        idempotency: None,
        trace: None,
        request_id: None,
        job,
    };
    let mut message = Vec::with_capacity(192);
    envelope.encode(&mut message).map_err(|_| Failed::GaveUp)?;
    let publisher = shared.publisher.as_ref().ok_or(Failed::GaveUp)?;
    publisher.publish(message).await.ok_or(Failed::GaveUp)?;
    Ok(done(id, KIND, "queued", ()))
}
