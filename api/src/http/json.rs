//! JSON answers.

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::{
    etag,
    problem::{Code, Problem},
};

/// 200 with this body.
pub(crate) fn ok(body: &impl Serialize) -> Response {
    answer(StatusCode::OK, body)
}

/// This status with this body.
pub(crate) fn answer(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(body) => (status, [(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => {
            tracing::error!(%error, "an answer did not serialize");
            Problem::new(Code::InternalError).into_response()
        }
    }
}

/// The same with the `ETag` by which an edit can name this state.
pub(crate) fn tagged(status: StatusCode, body: &impl Serialize) -> Response {
    let mut response = answer(status, body);
    response.headers_mut().extend(etag::header_value(body).map(|tag| (header::ETAG, tag)));
    response
}
