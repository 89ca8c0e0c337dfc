//! `GET /api/orders/{orderId}`, `GET /api/users/orders`

use axum::{extract::State, response::Response};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sqlx::{PgPool, types::Json};

use crate::{
    auth::Caller,
    extract::{Page, PathId},
    problem::{Code, Problem},
    state::AppState,
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OrderView {
    id: i64,
    status: &'static str,
    lines: Vec<LineView>,
    dropped: Box<RawValue>,
    items_amount: i64,
    discount: i64,
    paid: i64,
    coupon_id: Option<i64>,
    created_at: DateTime<Utc>,
    completed_at: DateTime<Utc>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LineView {
    product_id: i64,
    name: String,
    quantity: i64,
    unit_price: i64,
    amount: i64,
}

/// One of the caller's orders.
///
/// # Errors
/// 404, also for another user's; 503.
pub async fn get(
    State(state): State<AppState>,
    caller: Caller,
    PathId(id): PathId,
) -> Result<Response, Problem> {
    let one = Page { limit: 1, after: None };
    let found = select(&state.pool, caller.user_id.get(), Some(id), one).await?;
    Ok(crate::json(&found.into_iter().next().ok_or_else(|| Problem::new(Code::OrderNotFound))?))
}

/// The caller's orders, newest first.
///
/// # Errors
/// 400, 503.
pub async fn history(
    State(state): State<AppState>,
    caller: Caller,
    page: Page,
) -> Result<Response, Problem> {
    let orders = select(&state.pool, caller.user_id.get(), None, page).await?;
    Ok(crate::json(&page.cut(orders, |order| order.id)))
}

async fn select(
    pool: &PgPool,
    user_id: i64,
    id: Option<i64>,
    page: Page,
) -> Result<Vec<OrderView>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT id, items_amount, discount, paid, coupon_id, created_at, completed_at,
                  dropped AS "dropped: Json<Box<RawValue>>",
                  (SELECT jsonb_agg(jsonb_build_object('productId', product_id, 'name', name, 'quantity', quantity,
                                                       'unitPrice', unit_price, 'amount', unit_price * quantity)
                                    ORDER BY product_id)
                   FROM order_items WHERE order_id = orders.id) AS "lines!: Json<Vec<LineView>>"
           FROM orders
           WHERE user_id = $1 AND ($2::bigint IS NULL OR id = $2) AND ($3::bigint IS NULL OR id < $3)
           ORDER BY id DESC LIMIT $4"#,
        user_id,
        id,
        page.after,
        page.rows(),
    )
    .fetch_all(pool)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| OrderView {
            id: row.id,
            // Only completed orders exist: a rejection lives in its job.
            status: "completed",
            lines: row.lines.0,
            dropped: row.dropped.0,
            items_amount: row.items_amount,
            discount: row.discount,
            paid: row.paid,
            coupon_id: row.coupon_id,
            created_at: row.created_at,
            completed_at: row.completed_at,
        })
        .collect())
}
