//! The id in a path.

use axum::{
    extract::{FromRequestParts, RawPathParams},
    http::request::Parts,
};

use super::{fields::is_digits, problem::Problem};

/// The one id in the path. An id that cannot exist reads as one that does not, so that the route
/// answers its own 404.
#[derive(Debug, Clone, Copy)]
pub struct PathId(pub i64);

impl PathId {
    /// Reads digits; `None` for anything else. Of so many that they are no id, it makes one that cannot exist.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        is_digits(text).then(|| Self(text.parse().unwrap_or(i64::MAX)))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| Problem::invalid("id", "must be an integer"))?;
        let (name, value) = params.iter().next().unwrap_or(("id", ""));
        Self::parse(value).ok_or_else(|| Problem::invalid(name, "must be an integer"))
    }
}
