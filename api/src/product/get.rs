//! `GET /api/products/{productId}`

use axum::{extract::State, response::Response};

use crate::{
    http::{
        json,
        path::PathId,
        problem::{Code, Problem},
    },
    known::shown::ProductView,
    state::AppState,
};

/// One product, with the exact stock at the time of the read.
///
/// # Errors
/// 404, 503.
#[utoipa::path(
    get, path = "/api/products/{productId}", operation_id = "getProduct", tag = "Products", security(),
    responses((status = 200, description = "The product.", body = ProductView)),
    extensions(("x-codes" = json!([Code::ProductNotFound]))),
)]
pub async fn get(State(state): State<AppState>, PathId(id): PathId) -> Result<Response, Problem> {
    let product = state.shown.products.get(id).await?;
    Ok(json::ok(&product.ok_or_else(|| Problem::new(Code::ProductNotFound))?))
}
