//! Which types of an answer a client accepts.

use axum::http::{HeaderMap, header};

/// Whether the client names this type among those that it accepts.
pub(crate) fn names(headers: &HeaderMap, media_type: &str) -> bool {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut types = values.flat_map(|value| value.split(',')).map(|range| range.split(';').next());
    types.any(|name| name.is_some_and(|name| name.trim().eq_ignore_ascii_case(media_type)))
}
