//! `GET /api/users/cart`

use axum::{extract::State, response::Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    http::{auth::Caller, json, problem::Problem},
    state::AppState,
};

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CartItem, example = json!({"productId": 1, "name": "Product 1", "price": 1_000, "quantity": 2}))]
struct Item {
    product_id: i64,
    name: String,
    price: i64,
    quantity: i64,
}

#[derive(Serialize, ToSchema)]
struct Cart {
    items: Vec<Item>,
}

/// The caller's cart, by product. Products that were deleted are not shown.
///
/// # Errors
/// 503.
#[utoipa::path(
    get, path = "/api/users/cart", operation_id = "getCart", tag = "Cart",
    responses((status = 200, description = "The cart.", body = Cart)),
)]
pub async fn get(State(state): State<AppState>, caller: Caller) -> Result<Response, Problem> {
    let items = sqlx::query_as!(
        Item,
        r#"SELECT product_id, name AS "name!", price AS "price!", quantity FROM carts
           CROSS JOIN LATERAL (SELECT name, price FROM products WHERE id = product_id AND deleted_at IS NULL LIMIT 1) AS product
           WHERE user_id = $1 ORDER BY product_id"#,
        caller.user_id.get(),
    )
    .fetch_all(&state.pool)
    .await?;
    Ok(json::ok(&Cart { items }))
}
