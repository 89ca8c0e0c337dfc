//! Public reads: browsers and CDNs may keep them for a moment, and ask whether they are still so (RFC 9111, RFC 9110
//! section 13.1.2).

use axum::{
    body::Bytes,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::IntoParams;

use super::{
    etag,
    gzip::{self, Packed},
    problem::{Code, Problem},
};

/// For a second, and for another one while it is asked anew: edits are known within two.
pub(super) const CACHE_CONTROL: HeaderValue =
    HeaderValue::from_static("public, max-age=1, stale-while-revalidate=1");

/// The header of a public read, for the documentation.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes what `answer` reads")]
pub(crate) struct IfNoneMatchHeader {
    /// The `ETag` of what the client has: the answer is 304, without a body, if that is still so.
    #[param(rename = "If-None-Match", required = false)]
    if_none_match: String,
}

/// A list, or 304 to who has it.
pub(crate) fn list(asked: &HeaderMap, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(body) => stored(asked, body),
        Err(error) => unserialized(&error),
    }
}

/// JSON as it is kept, in fewer bytes for who takes it so, or 304 to who has that. In either form it has a tag of
/// its own, since a strong one names bytes (RFC 9110, section 8.8.3.3).
pub(crate) fn stored(asked: &HeaderMap, body: impl Into<Bytes>) -> Response {
    let body = body.into();
    let tag = etag::of_bytes(&body);
    let packed = tag.as_ref().and_then(|tag| gzip::packed(asked, tag, &body));
    let mut response = match packed {
        None => answer(asked, tag, body),
        Some(Packed { tag, bytes }) => {
            let mut response = answer(asked, tag, bytes);
            if response.status() == StatusCode::OK {
                response.headers_mut().insert(header::CONTENT_ENCODING, gzip::GZIP);
            }
            response
        }
    };
    // Also of the short: others of this path may be long.
    response.headers_mut().append(header::VARY, gzip::ACCEPT_ENCODING);
    response
}

/// One thing, with the tag that its edits name, or 304 to who has it.
pub(crate) fn one(asked: &HeaderMap, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => answer(asked, etag::header_value(body), bytes.into()),
        Err(error) => unserialized(&error),
    }
}

fn unserialized(error: &serde_json::Error) -> Response {
    tracing::error!(%error, "an answer did not serialize");
    Problem::new(Code::InternalError).into_response()
}

fn answer(asked: &HeaderMap, tag: Option<HeaderValue>, body: Bytes) -> Response {
    let has_it = tag.as_ref().is_some_and(|tag| etag::is_known(asked, tag));
    let mut response = if has_it {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, "application/json")], body).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, CACHE_CONTROL);
    headers.extend(tag.map(|tag| (header::ETAG, tag)));
    response
}
