//! `GET /api/admin/caller`

use axum::response::Response;
use serde::Serialize;
use utoipa::{ToSchema, openapi::Object};

use crate::http::{
    auth::{Auditor, OPERATORS},
    json,
    problem::Problem,
    schema::one_of,
};

/// Who asks, and what they may do.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Operator, example = json!({"userId": 1, "role": "admin"}))]
struct CallerView {
    user_id: i64,
    /// `auditor` may read, `admin` change things, too.
    #[schema(schema_with = roles)]
    role: &'static str,
}

fn roles() -> Object {
    one_of(OPERATORS)
}

/// Who the token names, and whether they may change things: for pages, which offer what can be done.
///
/// # Errors
/// 401, 403.
#[utoipa::path(
    get, path = "/api/admin/caller", operation_id = "getOperator", tag = "Admin",
    responses((status = 200, description = "The operator.", body = CallerView)),
)]
pub async fn get_operator(Auditor(caller): Auditor) -> Result<Response, Problem> {
    Ok(json::ok(&CallerView { user_id: caller.user_id.get(), role: caller.role() }))
}
