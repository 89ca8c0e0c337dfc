//! `PUT`, `DELETE /api/users/cart/{productId}` and `DELETE /api/users/cart`

use axum::{extract::State, http::StatusCode};
use firstcome_contract::{
    ids::UserId,
    order::{MAX_ITEMS, MAX_QUANTITY},
};
use firstcome_process::database::Pool;
use sqlx::Connection;
use utoipa::ToSchema;

use crate::{
    http::{
        auth::Caller,
        body::Body,
        fields::Fields,
        path::PathId,
        problem::{Code, Problem},
    },
    state::AppState,
};

/// How many of a product.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"quantity": 2}))]
pub struct CartRequest {
    #[schema(minimum = 1, maximum = 10_000)]
    #[expect(missing_docs, reason = "the name says it")]
    pub quantity: i64,
}

impl CartRequest {
    /// Reads it.
    pub fn read(fields: &mut Fields) -> Self {
        Self { quantity: fields.integer("quantity", 1..=MAX_QUANTITY) }
    }
}

/// Sets how many of a product are in the cart.
///
/// # Errors
/// 400, also if the cart would show more items than an order has; 404, 503.
#[utoipa::path(
    put, path = "/api/users/cart/{productId}", operation_id = "setCartItem", tag = "Cart",
    request_body = CartRequest,
    responses((status = 204, description = "It is in the cart.")),
    extensions(("x-codes" = json!([Code::UserNotFound, Code::ProductNotFound]))),
)]
pub async fn set(
    State(state): State<AppState>,
    caller: Caller,
    PathId(product_id): PathId,
    body: Body,
) -> Result<StatusCode, Problem> {
    let Body { mut fields, .. } = body;
    let CartRequest { quantity } = CartRequest::read(&mut fields);
    fields.finish()?;
    let user_id = caller.user_id.get();
    let mut connection = state.pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    // The balance row stands for the user: it is locked so that two requests cannot both add the
    // last item that there is room for.
    let user = sqlx::query_scalar!(
        "SELECT user_id FROM balances WHERE user_id = $1 FOR NO KEY UPDATE",
        user_id
    )
    .fetch_optional(&mut *transaction)
    .await?;
    user.ok_or_else(|| Problem::new(Code::UserNotFound))?;
    let set = sqlx::query!(
        "INSERT INTO carts (user_id, product_id, quantity)
         SELECT $1, id, $3 FROM products WHERE id = $2 AND deleted_at IS NULL
         ON CONFLICT ON CONSTRAINT carts_pkey DO UPDATE SET quantity = excluded.quantity",
        user_id,
        product_id,
        quantity,
    )
    .execute(&mut *transaction)
    .await?;
    if set.rows_affected() == 0 {
        return Err(Problem::new(Code::ProductNotFound));
    }
    let items = sqlx::query_scalar!(
        r#"SELECT count(*) AS "items!" FROM carts
           CROSS JOIN LATERAL (SELECT FROM products WHERE id = product_id AND deleted_at IS NULL LIMIT 1) AS product
           WHERE user_id = $1"#,
        user_id
    )
    .fetch_one(&mut *transaction)
    .await?;
    if usize::try_from(items).is_ok_and(|items| items > MAX_ITEMS) {
        let detail = format!("a cart holds at most {MAX_ITEMS} products");
        return Err(Problem::invalid("productId", detail));
    }
    transaction.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes a product out of the cart; nothing happens if it is not there.
///
/// # Errors
/// 503.
#[utoipa::path(
    delete, path = "/api/users/cart/{productId}", operation_id = "removeCartItem", tag = "Cart",
    responses((status = 204, description = "It is not in the cart.")),
)]
pub async fn remove(
    State(state): State<AppState>,
    caller: Caller,
    PathId(product_id): PathId,
) -> Result<StatusCode, Problem> {
    delete(&state.pool, caller.user_id, Some(product_id)).await
}

/// Empties the cart.
///
/// # Errors
/// 503.
#[utoipa::path(
    delete, path = "/api/users/cart", operation_id = "clearCart", tag = "Cart",
    responses((status = 204, description = "The cart is empty.")),
)]
pub async fn clear(State(state): State<AppState>, caller: Caller) -> Result<StatusCode, Problem> {
    delete(&state.pool, caller.user_id, None).await
}

async fn delete(
    pool: &Pool,
    user_id: UserId,
    product_id: Option<i64>,
) -> Result<StatusCode, Problem> {
    // The balance row first, like everybody who touches carts: so nobody deadlocks.
    sqlx::query!(
        "WITH owner AS MATERIALIZED (SELECT user_id FROM balances WHERE user_id = $1 FOR NO KEY UPDATE)
         DELETE FROM carts
         WHERE user_id = (SELECT user_id FROM owner) AND ($2::bigint IS NULL OR product_id = $2)",
        user_id.get(),
        product_id,
    )
    .execute(pool)
    .await?;
    Ok(StatusCode::NO_CONTENT)
}
