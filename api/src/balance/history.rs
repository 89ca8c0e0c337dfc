//! `GET /api/users/balance/history`

use axum::{extract::State, response::Response};
use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::{auth::Caller, extract::Page, problem::Problem, state::AppState};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    id: i64,
    kind: String,
    amount: i64,
    balance_after: i64,
    order_id: Option<i64>,
    created_at: DateTime<Utc>,
}

/// The caller's charges and payments, newest first.
///
/// # Errors
/// 400, 503.
pub async fn history(
    State(state): State<AppState>,
    caller: Caller,
    page: Page,
) -> Result<Response, Problem> {
    let entries = sqlx::query_as!(
        Entry,
        "SELECT id, kind, amount, balance_after, order_id, created_at FROM balance_transactions
         WHERE user_id = $1 AND ($2::bigint IS NULL OR id < $2)
         ORDER BY id DESC LIMIT $3",
        caller.user_id.get(),
        page.after,
        page.rows(),
    )
    .fetch_all(&state.pool)
    .await?;
    Ok(crate::json(&page.cut(entries, |entry| entry.id)))
}
