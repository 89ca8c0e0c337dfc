//! `POST /api/admin/users`

use axum::{extract::State, http::HeaderMap, response::Response};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

use super::created;
use crate::{
    http::{
        auth::Admin,
        body::Body,
        fields::{Fields, IDS},
        idempotency_key::IdempotencyKey,
        problem::{Code, Problem},
        text::is_invisible,
    },
    known::once::once,
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
        if !email.is_empty() && !is_address(&email) {
            fields.reject("email", "must be an email address");
        }
        Self { id, name, email }
    }
}

/// Something on both sides of the last `@`, and nothing that is not seen. Whether anybody reads what is sent
/// there, only sending can tell.
fn is_address(email: &str) -> bool {
    let is_seen = |c: char| !c.is_whitespace() && !is_invisible(c);
    let parts = email.rsplit_once('@');
    parts.is_some_and(|(user, host)| !user.is_empty() && !host.is_empty())
        && email.chars().all(is_seen)
}

#[derive(Serialize, ToSchema)]
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

/// How often one request looks for a free id: each time twice as far, so they cover all that there are.
const MOST_LOOKS: u32 = 52;

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

/// Ids that were given by hand do not move the sequence, so it may have to skip some, be it by millions.
async fn next_free(
    transaction: &mut PgConnection,
    name: &str,
    email: &str,
) -> Result<Option<UserView>, Problem> {
    for look in 0..MOST_LOOKS {
        if let Some(user) = insert(transaction, None, name, email).await? {
            return Ok(Some(user));
        }
        sqlx::query!(
            "SELECT setval(sequence, nextval(sequence) + $1) AS moved
             FROM (SELECT pg_get_serial_sequence('users', 'id')::regclass AS sequence) AS ids",
            (1i64 << look) - 1,
        )
        .fetch_one(&mut *transaction)
        .await?;
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
        Some("users_email_key" | "users_email_in_any_case") => Problem::new(Code::EmailTaken),
        _ => error.into(),
    })
}
