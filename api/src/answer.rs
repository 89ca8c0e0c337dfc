//! What every answer has in common: it comes in time, no panic takes its place, and it is counted. One
//! layer for all three, since every layer costs every request.

use std::{panic::AssertUnwindSafe, time::Duration};

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use tokio::time::{Instant, timeout};

use crate::{
    job,
    problem::{Code, Problem},
    state::AppState,
};

/// How long a request may take besides what it asks to be held: above every bound within it.
const DEADLINE: Duration = Duration::from_secs(20);

/// Answers a request. A client that hangs up gets no answer, which is not counted either.
pub(crate) async fn answer(
    State(state): State<AppState>,
    route: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let deadline = DEADLINE + job::preferred_wait(request.headers()).unwrap_or_default();
    let response = within(deadline, next.run(request)).await;
    state.metrics.answered(&method, route, response.status(), started.elapsed());
    response
}

/// What hangs (a connection to the database that is frozen, not closed) becomes a 503.
async fn within(deadline: Duration, answering: impl Future<Output = Response>) -> Response {
    match timeout(deadline, AssertUnwindSafe(answering).catch_unwind()).await {
        Ok(Ok(response)) => response,
        // The panic's own hook has told where.
        Ok(Err(_)) => Problem::new(Code::InternalError).into_response(),
        Err(_) => {
            tracing::warn!("no answer within {deadline:?}");
            Problem::new(Code::DatabaseUnavailable).retry_after(1).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use axum::http::{StatusCode, header::RETRY_AFTER};

    use super::*;

    #[tokio::test]
    async fn there_is_always_an_answer() {
        let soon = Duration::from_millis(20);
        let fine = within(soon, async { StatusCode::CREATED.into_response() }).await;
        assert_eq!(fine.status(), StatusCode::CREATED);
        let hangs = within(soon, pending()).await;
        assert_eq!(hangs.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(hangs.headers()[RETRY_AFTER], "1");
        let panics = within(soon, async { panic!("on purpose") }).await;
        assert_eq!(panics.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
}
