//! `POST /api/admin/products`, `PATCH`, `DELETE /api/admin/products/{id}`

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use firstcome_shared::order::MAX_PRICE;

use super::created;
use crate::{
    auth::Admin,
    extract::{Body, PathId},
    once::once,
    problem::{Code, Problem},
    product::ProductView,
    state::AppState,
};

/// The largest stock.
const MAX_STOCK: i64 = 1_000_000_000;

/// Creates a product.
///
/// # Errors
/// 400, 401, 403, 422, 503.
pub async fn create_product(
    State(state): State<AppState>,
    Admin(admin): Admin,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Body { mut fields, bytes } = body;
    let name = fields.text("name", 200);
    let price = fields.integer("price", 0..=MAX_PRICE);
    let stock = fields.integer("stock", 0..=MAX_STOCK);
    fields.finish()?;
    let product =
        once(&state.pool, admin.user_id, "create-product", &headers, &bytes, async |transaction| {
            let product = sqlx::query_as!(
                ProductView,
                r#"INSERT INTO products (name, price, stock) VALUES ($1, $2, $3)
               RETURNING id, name, price, stock, stock = 0 AS "sold_out!""#,
                name,
                price,
                stock,
            )
            .fetch_one(transaction)
            .await?;
            Ok(product)
        })
        .await?;
    state.product_pages.forget().await;
    Ok(created(&product))
}

/// Changes what is given; a stock is absolute, and takes its turn with the sales.
///
/// # Errors
/// 400, 401, 403, 404, 503.
pub async fn edit_product(
    State(state): State<AppState>,
    _admin: Admin,
    PathId(id): PathId,
    body: Body,
) -> Result<Response, Problem> {
    let Body { mut fields, .. } = body;
    let name = fields.optional_text("name", 200);
    let price = fields.optional_integer("price", 0..=MAX_PRICE);
    let stock = fields.optional_integer("stock", 0..=MAX_STOCK);
    fields.finish()?;
    let product = sqlx::query_as!(
        ProductView,
        r#"UPDATE products SET name = COALESCE($2, name), price = COALESCE($3, price), stock = COALESCE($4, stock)
           WHERE id = $1 AND deleted_at IS NULL
           RETURNING id, name, price, stock, stock = 0 AS "sold_out!""#,
        id,
        name,
        price,
        stock,
    )
    .fetch_optional(&state.pool)
    .await?;
    state.product_pages.forget().await;
    Ok(crate::json(&product.ok_or_else(|| Problem::new(Code::ProductNotFound))?))
}

/// Takes a product off sale. Orders that contain it keep it.
///
/// # Errors
/// 401, 403, 404, 503.
pub async fn delete_product(
    State(state): State<AppState>,
    _admin: Admin,
    PathId(id): PathId,
) -> Result<StatusCode, Problem> {
    let deleted = sqlx::query!(
        "UPDATE products SET deleted_at = now() WHERE id = $1 AND deleted_at IS NULL",
        id
    )
    .execute(&state.pool)
    .await?;
    state.product_pages.forget().await;
    if deleted.rows_affected() == 0 {
        return Err(Problem::new(Code::ProductNotFound));
    }
    Ok(StatusCode::NO_CONTENT)
}
