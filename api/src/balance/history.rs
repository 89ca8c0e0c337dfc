//! `GET /api/users/balance/history`

use axum::{extract::State, response::Response};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::{ToSchema, openapi::Object};

use crate::{
    http::{
        auth::Caller,
        json,
        page::{List, Page},
        problem::Problem,
        schema::one_of,
    },
    state::AppState,
};

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = BalanceEntry, example = json!({
    "id": 10_002, "kind": "payment", "amount": -2_700, "balanceAfter": 1_047_300, "orderId": 1,
    "createdAt": "2026-03-01T12:00:01.250Z",
}))]
struct Entry {
    id: i64,
    #[schema(schema_with = kinds)]
    kind: String,
    /// Signed: the sum of all entries is the balance.
    amount: i64,
    balance_after: i64,
    #[schema(required)]
    order_id: Option<i64>,
    created_at: DateTime<Utc>,
}

fn kinds() -> Object {
    one_of(["charge", "payment", "refund"])
}

/// The caller's charges, payments and refunds, newest first.
///
/// # Errors
/// 400, 503.
#[utoipa::path(
    get, path = "/api/users/balance/history", operation_id = "getBalanceHistory", tag = "Balance",
    params(Page),
    responses((status = 200, description = "A page of the history.", body = List<Entry>)),
)]
pub async fn history(
    State(state): State<AppState>,
    caller: Caller,
    page: Page,
) -> Result<Response, Problem> {
    let entries = sqlx::query_as!(
        Entry,
        "SELECT id, kind, amount, balance_after, order_id, created_at FROM balance_transactions
         WHERE user_id = ANY(ARRAY[$1::bigint]) AND id < $2
         ORDER BY user_id, id DESC LIMIT $3",
        caller.user_id.get(),
        page.before(),
        page.rows(),
    )
    .fetch_all(&state.pool)
    .await?;
    Ok(json::ok(&page.cut(entries, |entry| entry.id)))
}
