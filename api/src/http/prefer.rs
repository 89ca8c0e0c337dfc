//! `Prefer: wait=N`: how long an answer may be held.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName};
use utoipa::IntoParams;

/// The longest that an answer is held (RFC 7240 leaves the bound to the server).
const LONGEST_WAIT: u64 = 30;

/// The header, for the documentation.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes what `preferred_wait` reads")]
pub(crate) struct Prefer {
    /// `wait=N` (RFC 7240): the answer is held until the job is settled, at most so many seconds
    /// and at most 30. What is malformed is ignored.
    #[param(rename = "Prefer", required = false, example = "wait=10")]
    prefer: String,
}

/// The `wait` of the `Prefer` headers, clamped; a malformed preference is ignored, the first of
/// several counts (RFC 7240, section 2).
pub(crate) fn preferred_wait(headers: &HeaderMap) -> Option<Duration> {
    headers
        .get_all("prefer")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(|preference| {
            let preference = preference.split(';').next()?;
            let (name, value) = preference.split_once('=')?;
            let seconds = value.trim().trim_matches('"');
            let digits = !seconds.is_empty() && seconds.bytes().all(|byte| byte.is_ascii_digit());
            (name.trim().eq_ignore_ascii_case("wait") && digits).then(|| {
                Duration::from_secs(seconds.parse().unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT))
            })
        })
}

/// Tells which `wait` was honoured.
pub(crate) fn applied(headers: &mut HeaderMap, wait: Duration) {
    if let Ok(applied) = format!("wait={}", wait.as_secs()).parse() {
        headers.insert(HeaderName::from_static("preference-applied"), applied);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn preferences_are_read_leniently() {
        let wait = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("prefer", HeaderValue::from_static(value));
            }
            preferred_wait(&headers).map(|wait| wait.as_secs())
        };
        assert_eq!(wait(&[]), None);
        assert_eq!(wait(&["wait=5"]), Some(5));
        assert_eq!(wait(&["respond-async, Wait = \"7\"; x=y"]), Some(7));
        assert_eq!(wait(&["return=minimal", "wait=3, wait=9"]), Some(3));
        assert_eq!(wait(&["wait=100"]), Some(30));
        assert_eq!(wait(&["wait=99999999999999999999"]), Some(30));
        assert_eq!(wait(&["wait=soon"]), None);
        assert_eq!(wait(&["wait"]), None);
        assert_eq!(wait(&["wait=-1"]), None);
        assert_eq!(wait(&["wait=0"]), Some(0));
    }
}
