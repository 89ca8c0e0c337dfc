//! `GET /api/products/popular`

use axum::{extract::State, http::HeaderMap, response::Response};

use crate::{
    http::{limit::Anyone, problem::Problem, public},
    known::popular::Popular,
    state::AppState,
};

/// The top 5 by quantity sold since the day three days ago.
///
/// # Errors
/// 503 if the database is away and nothing older is known.
#[utoipa::path(
    get, path = "/api/products/popular", operation_id = "listPopularProducts", tag = "Products", security(),
    responses((status = 200, description = "The best sold first.", body = Popular)),
)]
pub async fn popular(
    State(state): State<AppState>,
    _anyone: Anyone,
    asked: HeaderMap,
) -> Result<Response, Problem> {
    let body = state.popular.get(&state.pool).await?;
    Ok(public::stored(&asked, body.as_ref().clone()))
}
