//! Which pages of other origins may ask from a browser (CORS).

use std::time::Duration;

use axum::{
    Router,
    http::{HeaderName, Method, header},
};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::request_id;
use crate::config::Origin;

/// How long a browser may remember what it may ask; they cut it to two hours or less.
const MAX_AGE: Duration = Duration::from_secs(3600);
/// What a page may send besides the simple headers.
const SENT: [HeaderName; 8] = [
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("prefer"),
    HeaderName::from_static("last-event-id"),
    request_id::HEADER,
];
/// What a page may read besides the simple headers.
const READ: [HeaderName; 5] = [
    header::LOCATION,
    header::RETRY_AFTER,
    header::ETAG,
    HeaderName::from_static("preference-applied"),
    request_id::HEADER,
];

/// Lets pages of these origins ask; without one it costs nothing. Callers are known by their token, not by a cookie, so
/// no page can ask in the name of a user whose token it does not have.
pub(crate) fn allow<S: Clone + Send + Sync + 'static>(
    router: Router<S>,
    origins: &[Origin],
) -> Router<S> {
    if origins.is_empty() {
        return router;
    }
    let any = origins.iter().any(|origin| origin.as_header() == "*");
    let listed = || AllowOrigin::list(origins.iter().map(|origin| origin.as_header().clone()));
    let cors = CorsLayer::new()
        .allow_origin(if any { AllowOrigin::any() } else { listed() })
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers(SENT)
        .expose_headers(READ)
        .max_age(MAX_AGE);
    router.layer(cors)
}
