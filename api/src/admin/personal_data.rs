//! `DELETE /api/admin/users/{id}/personal-data`

use axum::{extract::State, http::StatusCode};
use firstcome_contract::ids::UserId;
use sqlx::Connection;

use super::audit_log::{self, Change};
use crate::{
    http::{
        auth::Admin,
        path::PathId,
        problem::{Code, Problem},
    },
    known::{subjects, users},
    state::AppState,
};

/// Removes who a user is: the name and the address, which is free again, whom the tokens' issuer means by the user,
/// and the reasons that were given for cancelling the user's orders, also in the audit log. What was bought and paid stays. May be repeated.
///
/// # Errors
/// 401, 403, 404, 409, 503.
#[utoipa::path(
    delete, path = "/api/admin/users/{id}/personal-data", operation_id = "removePersonalData", tag = "Admin",
    responses((status = 204, description = "Nothing tells any more who it was.")),
    extensions(("x-codes" = json!([Code::UserNotFound, Code::EmailTaken]))),
)]
pub async fn remove_personal_data(
    State(state): State<AppState>,
    Admin(admin): Admin,
    PathId(id): PathId,
) -> Result<StatusCode, Problem> {
    let mut connection = state.pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    if !users::remove_personal_data(&mut transaction, id).await? {
        return Err(Problem::new(Code::UserNotFound));
    }
    subjects::unmap(&mut transaction, id).await?;
    audit_log::forget_person(&mut transaction, id).await?;
    let change = Change::new(admin.user_id, "remove-personal-data", format!("users/{id}"));
    change.note(&mut transaction).await?;
    // Told also where it may or may not have been removed.
    let committed = transaction.commit().await;
    if let Some(subjects) = &state.subjects {
        subjects.forgotten(UserId::new(id)).await;
    }
    committed?;
    Ok(StatusCode::NO_CONTENT)
}
