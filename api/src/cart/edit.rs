//! `PUT`, `DELETE /api/users/cart/{productId}` and `DELETE /api/users/cart`

use axum::{extract::State, http::StatusCode};
use firstcome_shared::{
    ids::UserId,
    order::{MAX_LINES, MAX_QUANTITY},
};
use sqlx::PgPool;

use crate::{
    auth::Caller,
    extract::{Body, PathId},
    problem::{Code, Problem},
    state::AppState,
};

/// Sets how many of a product are in the cart.
///
/// # Errors
/// 400, also if the cart would have more lines than an order; 404, 503.
pub async fn set(
    State(state): State<AppState>,
    caller: Caller,
    PathId(product_id): PathId,
    body: Body,
) -> Result<StatusCode, Problem> {
    let Body { mut fields, .. } = body;
    let quantity = fields.integer("quantity", 1..=MAX_QUANTITY);
    fields.finish()?;
    let user_id = caller.user_id.get();
    let mut transaction = state.pool.begin().await?;
    // The balance row stands for the user: it is locked so that two requests cannot both add the
    // last line that there is room for.
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
    let lines = sqlx::query_scalar!(
        r#"SELECT count(*) AS "lines!" FROM carts WHERE user_id = $1"#,
        user_id
    )
    .fetch_one(&mut *transaction)
    .await?;
    if usize::try_from(lines).is_ok_and(|lines| lines > MAX_LINES) {
        let detail = format!("a cart holds at most {MAX_LINES} products");
        return Err(Problem::invalid("productId", detail));
    }
    transaction.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes a product out of the cart; nothing happens if it is not there.
///
/// # Errors
/// 503.
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
pub async fn clear(State(state): State<AppState>, caller: Caller) -> Result<StatusCode, Problem> {
    delete(&state.pool, caller.user_id, None).await
}

async fn delete(
    pool: &PgPool,
    user_id: UserId,
    product_id: Option<i64>,
) -> Result<StatusCode, Problem> {
    // The balance row first, like everybody who touches carts: so nobody deadlocks.
    sqlx::query!(
        "WITH owner AS MATERIALIZED (SELECT user_id FROM balances WHERE user_id = $1 FOR NO KEY UPDATE)
         DELETE FROM carts USING owner
         WHERE carts.user_id = owner.user_id AND ($2::bigint IS NULL OR product_id = $2)",
        user_id.get(),
        product_id,
    )
    .execute(pool)
    .await?;
    Ok(StatusCode::NO_CONTENT)
}
