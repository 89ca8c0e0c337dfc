//! `/api/admin`: what operators create. Callers are checked before the body is looked at.

mod coupons;
mod users;

pub use coupons::create_coupon;
pub use users::create_user;

use axum::http::HeaderMap;
use axum::{http::StatusCode, response::Response};
use serde::{Serialize, de::DeserializeOwned};
use sqlx::PgConnection;

use crate::{
    auth::Admin,
    idempotency::{self, fingerprint},
    problem::Problem,
    state::AppState,
};

/// Runs a creation in a transaction, once per idempotency key, and answers 201.
async fn create<T: Serialize + DeserializeOwned + Sync>(
    state: &AppState,
    admin: Admin,
    kind: &str,
    headers: &HeaderMap,
    body: &[u8],
    effect: impl AsyncFnOnce(&mut PgConnection) -> Result<T, Problem>,
) -> Result<Response, Problem> {
    let user = admin.0.user_id;
    let key = idempotency::key(headers)?;
    let mut transaction = state.pool.begin().await?;
    let created = match &key {
        None => effect(&mut transaction).await?,
        Some(key) => {
            let fingerprint = fingerprint(&[kind.as_bytes(), body]);
            match idempotency::first_answer(&mut transaction, user, kind, key, &fingerprint).await?
            {
                Some(first) => serde_json::from_value(first)
                    .map_err(|_| Problem::new(crate::problem::Code::InternalError))?,
                None => {
                    let created = effect(&mut transaction).await?;
                    idempotency::store_answer(&mut transaction, user, kind, key, &created).await?;
                    created
                }
            }
        }
    };
    transaction.commit().await?;
    let mut response = crate::json(&created);
    *response.status_mut() = StatusCode::CREATED;
    Ok(response)
}
