//! `GET /api/users/cart`

use axum::{extract::State, response::Response};
use serde::Serialize;

use crate::{auth::Caller, problem::Problem, state::AppState};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    product_id: i64,
    name: String,
    price: i64,
    quantity: i64,
}

#[derive(Serialize)]
struct Cart {
    items: Vec<Item>,
}

/// The caller's cart, by product. Products that were deleted are not shown.
///
/// # Errors
/// 503.
pub async fn get(State(state): State<AppState>, caller: Caller) -> Result<Response, Problem> {
    let items = sqlx::query_as!(
        Item,
        "SELECT product_id, name, price, quantity FROM carts
         JOIN products ON products.id = product_id AND deleted_at IS NULL
         WHERE user_id = $1 ORDER BY product_id",
        caller.user_id.get(),
    )
    .fetch_all(&state.pool)
    .await?;
    Ok(crate::json(&Cart { items }))
}
