//! `GET /health/live`, `GET /health/ready`

use std::time::Duration;

use axum::{extract::State, http::StatusCode, response::Response};
use serde::Serialize;
use tokio::time::timeout;
use utoipa::ToSchema;

use crate::state::AppState;

/// How long the database may take to say that it is there.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Serialize, ToSchema)]
#[schema(example = json!({"ready": true, "broker": true, "database": true}))]
struct Readiness {
    ready: bool,
    broker: bool,
    database: bool,
}

/// The process runs. Looks at nothing else: restarting it would not bring a dependency back.
#[utoipa::path(
    get, path = "/health/live", operation_id = "getLiveness", tag = "Operations", security(),
    responses((status = 200, description = "It runs.", body = String, example = json!("ok"))),
)]
pub async fn live() -> &'static str {
    "ok"
}

/// Everything that a request may need is there. Redis is not asked: it is only faster with it.
#[utoipa::path(
    get, path = "/health/ready", operation_id = "getReadiness", tag = "Operations", security(),
    responses(
        (status = 200, description = "It can serve.", body = Readiness),
        (status = 503, description = "Something is missing.", body = Readiness),
    ),
)]
pub async fn ready(State(state): State<AppState>) -> Response {
    let broker = state.enqueuer.is_ready();
    let asked = sqlx::query_scalar!("SELECT 1 AS one").fetch_one(&state.pool);
    let database = matches!(timeout(PATIENCE, asked).await, Ok(Ok(_)));
    let ready = broker && database;
    let mut response = crate::json(&Readiness { ready, broker, database });
    if !ready {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}
