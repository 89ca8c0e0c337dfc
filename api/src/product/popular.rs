//! `GET /api/products/popular`

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};

use crate::{http::problem::Problem, known::popular::Popular, state::AppState};

/// The top 5 by quantity sold since the day three days ago.
///
/// # Errors
/// 503 if the database is away and nothing older is known.
#[utoipa::path(
    get, path = "/api/products/popular", operation_id = "listPopularProducts", tag = "Products", security(),
    responses((status = 200, description = "The best sold first.", body = Popular)),
)]
pub async fn popular(State(state): State<AppState>) -> Result<Response, Problem> {
    let body = state.popular.get(&state.pool).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body.as_ref().clone()).into_response())
}
