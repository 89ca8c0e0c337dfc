//! `GET /api/products/{productId}`

use axum::{extract::State, http::HeaderMap, response::Response};

use crate::{
    http::{
        limit::Anyone,
        path::PathId,
        problem::{Code, Problem},
        public,
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
    responses((
        status = 200, description = "The product.", body = ProductView,
        headers(("ETag" = String, description = "Names this state, for `If-None-Match` and the `If-Match` of an edit.")),
    )),
    extensions(("x-codes" = json!([Code::ProductNotFound]))),
)]
pub async fn get(
    State(state): State<AppState>,
    _anyone: Anyone,
    PathId(id): PathId,
    asked: HeaderMap,
) -> Result<Response, Problem> {
    let product = state.shown.products.get(id).await?;
    let product = product.ok_or_else(|| Problem::new(Code::ProductNotFound))?;
    Ok(public::one(&asked, &product))
}
