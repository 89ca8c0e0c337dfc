//! `POST /api/admin/users`

use axum::{extract::State, http::HeaderMap, response::Response};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use utoipa::ToSchema;

use super::created;
use crate::{
    auth::Admin,
    extract::{Body, Fields, IDS},
    once::once,
    openapi::IdempotencyKey,
    problem::{Code, Problem},
    state::AppState,
};

/// A user to create.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = UserRequest, example = json!({"id": 20_001, "name": "Kim Minji", "email": "minji@example.com"}))]
struct NewUser {
    /// The next one that is free, unless given.
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991i64)]
    id: Option<i64>,
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    #[schema(min_length = 1, max_length = 254, pattern = "[^@]@+[^@]")]
    email: String,
}

impl NewUser {
    fn read(fields: &mut Fields) -> Self {
        let id = fields.optional_integer("id", IDS);
        let (name, email) = (fields.text("name", 200), fields.text("email", 254));
        if !email.is_empty() && !email.trim_matches('@').contains('@') {
            fields.reject("email", "must be an email address");
        }
        Self { id, name, email }
    }
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = User, example = json!({
    "id": 20_001, "name": "Kim Minji", "email": "minji@example.com", "balance": 0,
    "createdAt": "2026-03-01T12:00:00.250Z",
}))]
struct UserView {
    id: i64,
    name: String,
    email: String,
    balance: i64,
    created_at: DateTime<Utc>,
}

/// How many taken ids one request skips at most; the sequence remembers how far it came.
const MOST_SKIPPED: usize = 10_000;

/// Creates a user with balance 0.
///
/// # Errors
/// 400, 401, 403, 409, 422, 503.
#[utoipa::path(
    post, path = "/api/admin/users", operation_id = "createUser", tag = "Admin",
    params(IdempotencyKey),
    request_body = NewUser,
    responses((status = 201, description = "The user.", body = UserView)),
    extensions(("x-codes" = json!([Code::UserExists, Code::EmailTaken]))),
)]
pub async fn create_user(
    State(state): State<AppState>,
    admin: Admin,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Body { mut fields, bytes } = body;
    let NewUser { id, name, email } = NewUser::read(&mut fields);
    fields.finish()?;

    let user =
        once(&state.pool, admin.0.user_id, "create-user", &headers, &bytes, async |transaction| {
            let user = match id {
                Some(id) => insert(transaction, Some(id), &name, &email).await?,
                None => next_free(transaction, &name, &email).await?,
            };
            let user = user.ok_or_else(|| Problem::new(Code::UserExists))?;
            sqlx::query!("INSERT INTO balances (user_id) VALUES ($1)", user.id)
                .execute(transaction)
                .await?;
            Ok(user)
        })
        .await?;
    Ok(created(&user))
}

/// Ids that were given by hand do not move the sequence, so it may have to skip some.
async fn next_free(
    transaction: &mut PgConnection,
    name: &str,
    email: &str,
) -> Result<Option<UserView>, Problem> {
    for _ in 0..MOST_SKIPPED {
        if let Some(user) = insert(transaction, None, name, email).await? {
            return Ok(Some(user));
        }
    }
    Ok(None)
}

/// `None` if the id is taken.
async fn insert(
    transaction: &mut PgConnection,
    id: Option<i64>,
    name: &str,
    email: &str,
) -> Result<Option<UserView>, Problem> {
    sqlx::query_as!(
        UserView,
        r#"INSERT INTO users (id, name, email)
           VALUES (COALESCE($1, nextval(pg_get_serial_sequence('users', 'id'))), $2, $3)
           ON CONFLICT ON CONSTRAINT users_pkey DO NOTHING
           RETURNING id, name, email, 0::bigint AS "balance!", created_at"#,
        id,
        name,
        email,
    )
    .fetch_optional(transaction)
    .await
    .map_err(|error| match error.as_database_error().and_then(|error| error.constraint()) {
        Some("users_email_key") => Problem::new(Code::EmailTaken),
        _ => error.into(),
    })
}
