//! Making users, for operators and for tokens of people who are new.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

use crate::http::{
    problem::{Code, Problem},
    text::is_invisible,
};

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = User, example = json!({
    "id": 20_001, "name": "Kim Minji", "email": "minji@example.com", "balance": 0,
    "createdAt": "2026-03-01T12:00:00.250Z",
}))]
pub(crate) struct UserView {
    pub(super) id: i64,
    name: String,
    email: String,
    balance: i64,
    created_at: DateTime<Utc>,
}

/// How often one request looks for a free id: each time twice as far, so they cover all that there are.
const MOST_LOOKS: u32 = 52;

/// Something on both sides of the last `@`, and nothing that is not seen. Whether anybody reads what is sent
/// there, only sending can tell.
pub(crate) fn is_address(email: &str) -> bool {
    let is_seen = |c: char| !c.is_whitespace() && !is_invisible(c);
    let parts = email.rsplit_once('@');
    parts.is_some_and(|(user, host)| !user.is_empty() && !host.is_empty())
        && email.chars().all(is_seen)
}

/// Makes a user with balance 0; `None` if the id is taken.
///
/// # Errors
/// 409 if the address is taken.
pub(crate) async fn create(
    transaction: &mut PgConnection,
    id: Option<i64>,
    name: &str,
    email: &str,
) -> Result<Option<UserView>, Problem> {
    let user = match id {
        Some(id) => insert(transaction, Some(id), name, email).await?,
        None => next_free(transaction, name, email).await?,
    };
    if let Some(user) = &user {
        sqlx::query!("INSERT INTO balances (user_id) VALUES ($1)", user.id)
            .execute(transaction)
            .await?;
    }
    Ok(user)
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
