//! `Idempotency-Key` of synchronous POSTs: key, effect and answer in one transaction. An answer is kept as it
//! was given, so that any release can give it again.

use axum::http::HeaderMap;
use firstcome_contract::ids::UserId;
use firstcome_process::database::Pool;
use serde::Serialize;
use serde_json::Value;
use sqlx::{Connection, PgConnection, types::Json};

use super::keys::fingerprint;
use crate::http::{
    idempotency_key,
    problem::{Code, Problem},
};

/// Runs an effect in a transaction, once per caller, kind and key; a repeated key gets the first
/// answer. An effect that fails leaves the key unused.
///
/// # Errors
/// 422 for a key of another request; the effect's; the database's.
pub async fn once<T: Serialize>(
    pool: &Pool,
    user_id: UserId,
    kind: &str,
    headers: &HeaderMap,
    body: &[u8],
    effect: impl AsyncFnOnce(&mut PgConnection) -> Result<T, Problem>,
) -> Result<Value, Problem> {
    let key = idempotency_key::key(headers)?;
    let mut connection = pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    let answer = match &key {
        None => as_json(&effect(&mut transaction).await?)?,
        Some(key) => {
            let fingerprint = fingerprint(&[kind.as_bytes(), body]);
            match first_answer(&mut transaction, user_id, kind, key, &fingerprint).await? {
                Some(first) => first,
                None => {
                    let answer = as_json(&effect(&mut transaction).await?)?;
                    store_answer(&mut transaction, user_id, kind, key, &answer).await?;
                    answer
                }
            }
        }
    };
    transaction.commit().await?;
    Ok(answer)
}

fn as_json(answer: &impl Serialize) -> Result<Value, sqlx::Error> {
    serde_json::to_value(answer).map_err(|error| sqlx::Error::Encode(error.into()))
}

/// Takes a key for a synchronous POST, inside the transaction of its effect: `None` if the effect
/// is still to come, else the first answer. A second request with the key waits for the first
/// one's commit.
async fn first_answer(
    transaction: &mut PgConnection,
    user_id: UserId,
    kind: &str,
    key: &str,
    fingerprint: &str,
) -> Result<Option<Value>, Problem> {
    let taken = sqlx::query!(
        "INSERT INTO idempotent_answers (user_id, kind, idempotency_key, fingerprint, body)
         VALUES ($1, $2, $3, $4, 'null')
         ON CONFLICT ON CONSTRAINT idempotent_answers_pkey DO NOTHING",
        user_id.get(),
        kind,
        key,
        fingerprint,
    )
    .execute(&mut *transaction)
    .await?;
    if taken.rows_affected() == 1 {
        return Ok(None);
    }
    let first = sqlx::query!(
        r#"SELECT fingerprint, body AS "body: Json<Value>" FROM idempotent_answers
           WHERE user_id = $1 AND kind = $2 AND idempotency_key = $3"#,
        user_id.get(),
        kind,
        key,
    )
    .fetch_one(&mut *transaction)
    .await?;
    if first.fingerprint == fingerprint {
        Ok(Some(first.body.0))
    } else {
        Err(Problem::new(Code::IdempotencyKeyReused))
    }
}

/// Replaces the name and the address of a user in the answers that are kept of the user's creation.
pub(super) async fn replace_in_answers(
    transaction: &mut PgConnection,
    user: i64,
    name: &str,
    email: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE idempotent_answers SET body = body || jsonb_build_object('name', $2::text, 'email', $3::text)
         WHERE kind = 'create-user' AND (body ->> 'id')::bigint = $1",
        user,
        name,
        email,
    )
    .execute(transaction)
    .await?;
    Ok(())
}

/// Stores the answer of a synchronous POST that took a key.
async fn store_answer(
    transaction: &mut PgConnection,
    user_id: UserId,
    kind: &str,
    key: &str,
    answer: &Value,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE idempotent_answers SET body = $4 WHERE user_id = $1 AND kind = $2 AND idempotency_key = $3",
        user_id.get(),
        kind,
        key,
        answer,
    )
    .execute(transaction)
    .await?;
    Ok(())
}
