//! Reading a body: whole, within a bound and a time, and only JSON.

use std::time::Duration;

use axum::{
    extract::{FromRequest, Request},
    http::{HeaderMap, header},
};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::time::timeout;

use super::{
    fields::Fields,
    problem::{Code, Problem},
};

/// Largest body that is read.
pub const MAX_BODY: usize = 64 * 1024;
/// How much of a body that is too large is read on.
const MOST_DISCARDED: usize = 1024 * 1024;
/// How long a client may take to send its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A JSON body; an absent one counts as `{}`, so that a POST without fields needs none.
#[derive(Debug)]
pub struct Body {
    /// Its fields.
    pub fields: Fields,
    /// Its bytes, for the idempotency fingerprint.
    pub bytes: Bytes,
}

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let headers = request.headers();
        let readable = is_json(headers) && !headers.contains_key(header::CONTENT_ENCODING);
        let reading = timeout(BODY_TIMEOUT, read(request.into_body()));
        let bytes = reading.await.unwrap_or_else(|_| Err(Problem::new(Code::BodyTimeout)))?;
        if bytes.is_empty() {
            return Ok(Self { fields: Fields::default(), bytes });
        }
        if !readable {
            let detail = "The body must be application/json.";
            return Err(Problem::with_detail(Code::UnsupportedMediaType, detail));
        }
        Ok(Self { fields: Fields::from_json(&bytes)?, bytes })
    }
}

/// Reads a body whole. One that is too large is read on for a while and thrown away: a client whose
/// connection is closed while it is still sending does not see the answer.
async fn read(body: axum::body::Body) -> Result<Bytes, Problem> {
    let mut chunks = body.into_data_stream();
    let (mut bytes, mut length) = (BytesMut::new(), 0);
    while length <= MOST_DISCARDED
        && let Some(chunk) = chunks.next().await
    {
        let unreadable = "The body could not be read.";
        let chunk = chunk.map_err(|_| Problem::with_detail(Code::MalformedBody, unreadable))?;
        length += chunk.len();
        if length <= MAX_BODY {
            bytes.extend_from_slice(&chunk);
        }
    }
    if length > MAX_BODY {
        return Err(Problem::with_detail(Code::BodyTooLarge, format!("At most {MAX_BODY} bytes.")));
    }
    Ok(bytes.freeze())
}

fn is_json(headers: &HeaderMap) -> bool {
    is_of_type(headers, "application/json")
}

/// Whether the body is of this type, and in UTF-8: JSON always is (RFC 8259, section 8.1).
pub(crate) fn is_of_type(headers: &HeaderMap, media_type: &str) -> bool {
    let Some(Ok(value)) = headers.get(header::CONTENT_TYPE).map(|value| value.to_str()) else {
        return false;
    };
    let mut parts = value.split(';').map(|part| part.trim().to_ascii_lowercase());
    parts.next().as_deref() == Some(media_type)
        && parts
            .all(|part| !part.starts_with("charset=") || part.trim_matches('"').ends_with("utf-8"))
}
