//! `GET /api/admin/pins`, `PUT`, `DELETE /api/admin/pins/{family}/{key}`

use axum::{extract::State, http::StatusCode, response::Response};
use chrono::{DateTime, Utc};
use firstcome_contract::{family::Family, line::MAX_PINS};
use serde::Serialize;
use sqlx::{Connection, PgConnection};
use utoipa::{ToSchema, openapi::Object};

use super::{Contended, audit_log::Change};
use crate::{
    http::{
        auth::{Admin, Auditor},
        json,
        page::List,
        problem::{Code, Problem},
        schema::{families, one_of},
    },
    state::AppState,
};

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Pin, example = json!({
    "family": "coupon", "key": 1, "state": "active", "createdAt": "2026-03-01T12:00:00Z",
}))]
struct PinView {
    #[schema(schema_with = families)]
    family: String,
    /// The coupon or product.
    key: i64,
    /// `pending` until its line takes and settles jobs: the workers make it within seconds, once
    /// what stands in the old lines is settled.
    #[schema(schema_with = states)]
    state: String,
    created_at: DateTime<Utc>,
}

fn states() -> Object {
    one_of(["pending", "active"])
}

/// The coupons and products with a line of their own.
///
/// # Errors
/// 401, 403, 503.
#[utoipa::path(
    get, path = "/api/admin/pins", operation_id = "listPins", tag = "Admin",
    responses((status = 200, description = "All pins.", body = List<PinView>)),
)]
pub async fn list_pins(
    State(state): State<AppState>,
    _auditor: Auditor,
) -> Result<Response, Problem> {
    let mut connection = state.pool.acquire().await?;
    Ok(json::ok(&List { items: select(&mut connection, None).await?, next: None }))
}

/// Gives a coupon or product a line of its own, while the sale goes on: who is later in the queue
/// stays later. Repeating it changes nothing.
///
/// # Errors
/// 400, 401, 403, 404, 409 if there are as many as there can be, 503.
#[utoipa::path(
    put, path = "/api/admin/pins/{family}/{key}", operation_id = "pin", tag = "Admin",
    responses((status = 200, description = "The pin.", body = PinView)),
    extensions(("x-codes" = json!([Code::CouponNotFound, Code::ProductNotFound, Code::TooManyPins]))),
)]
pub async fn pin(
    State(state): State<AppState>,
    Admin(admin): Admin,
    Contended { family, key }: Contended,
) -> Result<Response, Problem> {
    let mut connection = state.pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    let missing = match family {
        Family::Coupon => sqlx::query_scalar!(
            r#"SELECT NOT EXISTS (SELECT FROM coupons WHERE id = $1 AND deleted_at IS NULL) AS "missing!""#,
            key
        )
        .fetch_one(&mut *transaction)
        .await?
        .then_some(Code::CouponNotFound),
        Family::Product => sqlx::query_scalar!(
            r#"SELECT NOT EXISTS (SELECT FROM products WHERE id = $1 AND deleted_at IS NULL) AS "missing!""#,
            key
        )
        .fetch_one(&mut *transaction)
        .await?
        .then_some(Code::ProductNotFound),
    };
    if let Some(code) = missing {
        return Err(Problem::new(code));
    }
    // One at a time: each takes the lowest number that is free.
    sqlx::query!("SELECT FROM routing WHERE family = $1 FOR UPDATE", family.as_str())
        .execute(&mut *transaction)
        .await?;
    let pinned = sqlx::query!(
        "INSERT INTO pins (family, key, number)
         SELECT $1, $2, number FROM generate_series(0, $3::int - 1) AS free (number)
         WHERE number NOT IN (SELECT number FROM pins WHERE family = $1)
         ORDER BY number LIMIT 1
         ON CONFLICT ON CONSTRAINT pins_pkey DO NOTHING",
        family.as_str(),
        key,
        i32::from(MAX_PINS),
    )
    .execute(&mut *transaction)
    .await?;
    let pin = select(&mut transaction, Some((family, key))).await?.pop();
    let pin = pin.ok_or_else(|| Problem::new(Code::TooManyPins))?;
    if pinned.rows_affected() > 0 {
        let change = Change::new(admin.user_id, "pin", target(family, key));
        change.after(&pin)?.note(&mut transaction).await?;
    }
    transaction.commit().await?;
    Ok(json::ok(&pin))
}

/// Puts a coupon or product back into the line that it shares, in order as well.
///
/// # Errors
/// 400, 401, 403, 404, 503.
#[utoipa::path(
    delete, path = "/api/admin/pins/{family}/{key}", operation_id = "unpin", tag = "Admin",
    responses((status = 204, description = "It is not pinned any more.")),
    extensions(("x-codes" = json!([Code::PinNotFound]))),
)]
pub async fn unpin(
    State(state): State<AppState>,
    Admin(admin): Admin,
    Contended { family, key }: Contended,
) -> Result<StatusCode, Problem> {
    let mut connection = state.pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    let pin = select(&mut transaction, Some((family, key))).await?.pop();
    let deleted =
        sqlx::query!("DELETE FROM pins WHERE family = $1 AND key = $2", family.as_str(), key)
            .execute(&mut *transaction)
            .await?;
    let pin = pin.filter(|_| deleted.rows_affected() > 0);
    let pin = pin.ok_or_else(|| Problem::new(Code::PinNotFound))?;
    let change = Change::new(admin.user_id, "unpin", target(family, key));
    change.before(&pin)?.note(&mut transaction).await?;
    transaction.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn target(family: Family, key: i64) -> String {
    format!("pins/{}/{key}", family.as_str())
}

async fn select(
    connection: &mut PgConnection,
    one: Option<(Family, i64)>,
) -> Result<Vec<PinView>, sqlx::Error> {
    sqlx::query_as!(
        PinView,
        r#"SELECT family, key, created_at,
                  CASE WHEN EXISTS (
                      SELECT FROM partition_leases AS l JOIN routing USING (family, generation)
                      WHERE l.family = pins.family AND l.line = 'pin-' || pins.key AND l.opened_at IS NOT NULL
                  ) THEN 'active' ELSE 'pending' END AS "state!"
           FROM pins WHERE $1::text IS NULL OR (family = $1 AND key = $2) ORDER BY family, key"#,
        one.map(|(family, _)| family.as_str()),
        one.map(|(_, key)| key),
    )
    .fetch_all(connection)
    .await
}
