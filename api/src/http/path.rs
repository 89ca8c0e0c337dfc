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

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| Problem::invalid("id", "must be an integer"))?;
        let (name, value) = params.iter().next().unwrap_or(("id", ""));
        if !is_digits(value) {
            return Err(Problem::invalid(name, "must be an integer"));
        }
        Ok(Self(value.parse().unwrap_or(i64::MAX)))
    }
}
