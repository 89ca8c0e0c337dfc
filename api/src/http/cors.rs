//! Which pages of other origins may ask from a browser (CORS), and change what is the operators'.

use std::time::Duration;

use axum::{
    Router,
    extract::Request,
    http::{HeaderName, Method, header},
};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::{
    problem::{Code, Problem},
    request_id,
};
use crate::config::Origin;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// What only operators change.
const OPERATORS: &str = "/api/admin/";
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
    let any = origins.iter().any(Origin::is_any);
    let listed = || AllowOrigin::list(origins.iter().map(|origin| origin.as_header().clone()));
    let cors = CorsLayer::new()
        .allow_origin(if any { AllowOrigin::any() } else { listed() })
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers(SENT)
        .expose_headers(READ)
        .max_age(MAX_AGE);
    router.layer(cors)
}

/// Why a change that a browser sends for another site's page is refused, unless that page's origin may ask: browsers tell
/// what a request comes from by `Sec-Fetch-Site`, and no page can change that. What is no browser does not tell.
pub(super) fn refuse_other_sites(
    origins: &[Origin],
    route: Option<&str>,
    request: &Request,
) -> Option<Problem> {
    route.filter(|route| route.starts_with(OPERATORS))?;
    let headers = request.headers();
    let site = headers.get(SEC_FETCH_SITE).filter(|_| !request.method().is_safe())?;
    if ["same-origin", "none"].iter().any(|own| site == own) {
        return None;
    }
    let origin = headers.get(header::ORIGIN);
    let may_ask = |known: &Origin| known.is_any() || origin == Some(known.as_header());
    let detail =
        "A page of another site may not change this, unless CORS_ORIGINS names its origin.";
    (!origins.iter().any(may_ask)).then(|| Problem::with_detail(Code::Forbidden, detail))
}
