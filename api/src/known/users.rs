//! Making users, for operators and for tokens of people who are new.

use chrono::{DateTime, Utc};
use firstcome_process::database::Pool;
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

use super::{
    free_ids::{self, Table},
    once,
};
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

impl UserView {
    pub(crate) const fn id(&self) -> i64 {
        self.id
    }
}

/// Those of these users that there are, by id.
pub(crate) async fn read(pool: &Pool, ids: &[i64]) -> Result<Vec<UserView>, sqlx::Error> {
    sqlx::query_as!(
        UserView,
        r#"SELECT id, name, email, created_at,
                  COALESCE((SELECT amount FROM balances WHERE user_id = users.id LIMIT 1), 0) AS "balance!"
           FROM users WHERE id = ANY($1) ORDER BY id"#,
        ids,
    )
    .fetch_all(pool)
    .await
}

/// What stands in the place of a name that was removed.
const REMOVED: &str = "removed";
/// Where no mail goes (RFC 2606): addresses at it are ours, of users whose own were removed.
const NOWHERE: &str = "invalid";
/// How many of a user's orders one statement looks at.
const ORDERS_AT_A_TIME: i64 = 1_000;

/// Something on both sides of the last `@`, which is not our own nowhere, and nothing that is not seen. Whether anybody reads what is sent
/// there, only sending can tell.
pub(crate) fn is_address(email: &str) -> bool {
    let is_seen = |c: char| !c.is_whitespace() && !is_invisible(c);
    let parts = email.rsplit_once('@');
    let is_whole = |(user, host): (&str, &str)| {
        !user.is_empty() && !host.is_empty() && !host.eq_ignore_ascii_case(NOWHERE)
    };
    parts.is_some_and(is_whole) && email.chars().all(is_seen)
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
    for look in free_ids::LOOKS {
        if let Some(user) = insert(transaction, None, name, email).await? {
            return Ok(Some(user));
        }
        free_ids::skip(transaction, Table::Users, look).await?;
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
    .map_err(taken)
}

fn taken(error: sqlx::Error) -> Problem {
    match error.as_database_error().and_then(|error| error.constraint()) {
        Some("users_email_key" | "users_email_in_any_case") => Problem::new(Code::EmailTaken),
        _ => error.into(),
    }
}

/// Replaces what tells who a user is, wherever it lies: the name and the address, also in answers that are kept for
/// repeats, and what was written as the reason of cancellations of the user's orders. Whether there is such a user.
///
/// # Errors
/// 409 if somebody has the address that is to stand there, from before it was ours.
pub(crate) async fn remove_personal_data(
    transaction: &mut PgConnection,
    id: i64,
) -> Result<bool, Problem> {
    let email = format!("{REMOVED}-{id}@{NOWHERE}");
    let removed =
        sqlx::query!("UPDATE users SET name = $2, email = $3 WHERE id = $1", id, REMOVED, email)
            .execute(&mut *transaction)
            .await
            .map_err(taken)?;
    if removed.rows_affected() == 0 {
        return Ok(false);
    }
    once::replace_in_answers(transaction, id, REMOVED, &email).await?;
    let mut before = i64::MAX;
    loop {
        let orders = sqlx::query_scalar!(
            "SELECT id FROM orders
             WHERE user_id = ANY(ARRAY[$1::bigint]) AND id < $2
             ORDER BY user_id, id DESC LIMIT $3",
            id,
            before,
            ORDERS_AT_A_TIME,
        )
        .fetch_all(&mut *transaction)
        .await?;
        let Some(last) = orders.last() else { return Ok(true) };
        before = *last;
        sqlx::query!(
            "UPDATE cancellations SET reason = NULL WHERE order_id = ANY($1) AND reason IS NOT NULL",
            &orders,
        )
        .execute(&mut *transaction)
        .await?;
    }
}
