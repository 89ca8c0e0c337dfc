//! What every answer has in common: it comes in time and tells the request's name, no panic takes its place, it is
//! counted, and it is the last one of its connection when the process is about to stop. One layer for all of it, since every
//! layer costs every request.

use std::{
    collections::HashSet, future::ready, panic::AssertUnwindSafe, sync::Arc, time::Duration,
};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::{FutureExt, future::Either};
use tokio::time::{Instant, error::Elapsed, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    cors,
    fields::Fields,
    prefer::preferred_wait,
    problem::{Code, Problem},
    request_id,
    requests::Requests,
};
use crate::config::Origin;

/// How long a request may take besides what it asks to be held: above every bound within it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// Routes whose bodies are of any size, each part of which has a time of its own.
pub(crate) const STREAMED: &str = "/api/admin/imports/";
/// How long such a request may take: nobody holds its place for good by sending a byte now and then.
const STREAMED_TIMEOUT: Duration = Duration::from_secs(6 * 3600);

/// What answering takes, besides the handler.
#[derive(Debug)]
pub struct Answering {
    /// Counts the answers.
    pub requests: Requests,
    /// Cancelled when the process is about to stop.
    pub draining: CancellationToken,
    /// The routes that take parameters in their query: those that are asked with GET, as all of them are.
    pub with_query: HashSet<String>,
    /// Whose pages may ask, and change what is the operators'.
    pub origins: Vec<Origin>,
}

/// Answers a request. A client that hangs up gets no answer, which is not counted either.
pub(crate) async fn answer(
    State(answering): State<Arc<Answering>>,
    route: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    // The name is read before the request goes to its handler.
    let name = request_id::of(request.headers());
    request_id::named(name, answer_in_time(&answering, route, request, next)).await
}

async fn answer_in_time(
    answering: &Answering,
    route: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let route_path = route.as_ref().map(MatchedPath::as_str);
    let deadline = if route_path.is_some_and(|path| path.starts_with(STREAMED)) {
        STREAMED_TIMEOUT
    } else {
        REQUEST_TIMEOUT + preferred_wait(request.headers()).unwrap_or_default()
    };
    let refused = unknown_query(&answering.with_query, route_path, &request)
        .or_else(|| cors::refuse_other_sites(&answering.origins, route_path, &request));
    let answer = match refused {
        None => Either::Left(next.run(request)),
        Some(problem) => Either::Right(ready(problem.into_response())),
    };
    let response = within(deadline, answer).await;
    let mut response = response.unwrap_or_else(|_| {
        tracing::warn!(%method, route = route_path, "no answer within {deadline:?}");
        Problem::new(Code::DatabaseUnavailable).retry_after(1).into_response()
    });
    if method == Method::GET && !response.headers().contains_key(header::CACHE_CONTROL) {
        // What is no public read is for this caller alone, or for this moment.
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if answering.draining.is_cancelled() {
        // Whoever keeps connections makes the next one elsewhere.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    answering.requests.answered(&method, route, response.status(), started.elapsed());
    response
}

/// Why a query is refused where none is known: who filters or narrows by it must not get, or empty, the whole. Those
/// who take one look themselves. Probes and pages outside of `/api` may be asked as anybody likes.
fn unknown_query(
    with_query: &HashSet<String>,
    route: Option<&str>,
    request: &Request,
) -> Option<Problem> {
    let query = request.uri().query().filter(|query| !query.is_empty())?;
    let route = route.filter(|route| route.starts_with("/api/"))?;
    if [Method::GET, Method::HEAD].contains(request.method()) && with_query.contains(route) {
        return None;
    }
    Fields::from_query(Some(query)).finish().err()
}

/// The answer, be it to a panic; an error if there is none by then: something hangs (a connection to the
/// database that is frozen, not closed).
async fn within(
    deadline: Duration,
    answering: impl Future<Output = Response>,
) -> Result<Response, Elapsed> {
    let answer = timeout(deadline, AssertUnwindSafe(answering).catch_unwind()).await?;
    // The panic's own hook has told where.
    Ok(answer.unwrap_or_else(|_| Problem::new(Code::InternalError).into_response()))
}

#[cfg(test)]
mod tests {
    use std::{future::pending, pin::Pin};

    use axum::http::StatusCode;

    use super::*;

    #[tokio::test]
    async fn there_is_always_an_answer() {
        let soon = Duration::from_millis(20);
        let status = async |answering: Pin<Box<dyn Future<Output = Response>>>| {
            within(soon, answering).await.map(|response| response.status())
        };
        let fine = status(Box::pin(async { StatusCode::CREATED.into_response() })).await;
        assert_eq!(fine, Ok(StatusCode::CREATED));
        let panics = status(Box::pin(async { panic!("on purpose") })).await;
        assert_eq!(panics, Ok(StatusCode::INTERNAL_SERVER_ERROR));
        assert!(status(Box::pin(pending())).await.is_err(), "it hangs");
    }
}
