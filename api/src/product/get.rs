//! `GET /api/products/{productId}`

use std::collections::HashMap;

use axum::{extract::State, response::Response};
use sqlx::PgConnection;

use super::ProductView;
use crate::{
    http::{
        extract::PathId,
        problem::{Code, Problem},
    },
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
    let product = state.shown_products.get(id).await?;
    Ok(crate::json(&product.ok_or_else(|| Problem::new(Code::ProductNotFound))?))
}

/// Products by id, for [`crate::known::batched::Batched`].
pub(crate) async fn shown(
    connection: &mut PgConnection,
    ids: Vec<i64>,
) -> Result<HashMap<i64, ProductView>, sqlx::Error> {
    let products = sqlx::query_as!(
        ProductView,
        r#"SELECT id, name, price, stock, stock = 0 AS "sold_out!" FROM products
           WHERE id = ANY($1) AND deleted_at IS NULL"#,
        &ids,
    )
    .fetch_all(connection)
    .await?;
    Ok(products.into_iter().map(|product| (product.id, product)).collect())
}
