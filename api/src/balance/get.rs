//! `GET /api/balance/{userId}`

use std::collections::HashMap;

use axum::{extract::State, response::Response};
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

use crate::{
    http::{
        auth::Caller,
        extract::PathId,
        problem::{Code, Problem},
    },
    state::AppState,
};

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({"userId": 7, "balance": 1_000_000}))]
struct Balance {
    user_id: i64,
    balance: i64,
}

/// The caller's own balance, straight from the database.
///
/// # Errors
/// 403 for another user's, 404, 503.
#[utoipa::path(
    get, path = "/api/balance/{userId}", operation_id = "getBalance", tag = "Balance",
    responses((status = 200, description = "The balance.", body = Balance)),
    extensions(("x-codes" = json!([Code::Forbidden, Code::UserNotFound]))),
)]
pub async fn get(
    State(state): State<AppState>,
    caller: Caller,
    PathId(user_id): PathId,
) -> Result<Response, Problem> {
    if user_id != caller.user_id.get() {
        return Err(Problem::with_detail(Code::Forbidden, "A balance is shown to its owner only."));
    }
    let balance = state.shown_balances.get(user_id).await?;
    let balance = balance.ok_or_else(|| Problem::new(Code::UserNotFound))?;
    Ok(crate::json(&Balance { user_id, balance }))
}

/// Balances by user, for [`crate::known::batched::Batched`].
pub(crate) async fn shown(
    connection: &mut PgConnection,
    users: Vec<i64>,
) -> Result<HashMap<i64, i64>, sqlx::Error> {
    let balances =
        sqlx::query!("SELECT user_id, amount FROM balances WHERE user_id = ANY($1)", &users)
            .fetch_all(connection)
            .await?;
    Ok(balances.into_iter().map(|balance| (balance.user_id, balance.amount)).collect())
}
