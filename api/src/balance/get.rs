//! `GET /api/balance/{userId}`

use axum::{extract::State, response::Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    http::{
        auth::Caller,
        json,
        path::PathId,
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
    let balance = state.shown.balances.get(user_id).await?;
    let balance = balance.ok_or_else(|| Problem::new(Code::UserNotFound))?;
    Ok(json::ok(&Balance { user_id, balance }))
}
