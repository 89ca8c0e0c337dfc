//! `GET /api/admin/coupons/{id}/winners` and `GET /api/admin/products/{id}/buyers`: in pages, or the whole as a table.

use std::fmt::Write;

use axum::{
    body::Body,
    extract::{FromRequestParts, State},
    http::{header, request::Parts},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, SecondsFormat, Utc};
use firstcome_process::database::Pool;
use futures_util::{future::BoxFuture, stream::try_unfold};
use serde::Serialize;
use utoipa::{ToSchema, openapi::Object};

use crate::{
    http::{
        accept,
        auth::Auditor,
        fields::Fields,
        json,
        page::{List, Page},
        path::PathId,
        problem::{Code, Problem},
        schema::one_of,
    },
    state::AppState,
};

const CSV: &str = "text/csv";
/// Rows that are read at a time for a table, and all that is held of it.
const ROWS: i64 = 1_000;

const COMPLETED: &str = "completed";
const CANCELLED: &str = "cancelled";

/// Someone who got a coupon of the campaign.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Winner, example = json!({
    "userId": 7, "userCouponId": 3, "issueNumber": 1, "issuedAt": "2026-03-01T12:00:00.250Z", "usedAt": null, "orderId": null,
}))]
struct Winner {
    user_id: i64,
    user_coupon_id: i64,
    issue_number: i64,
    issued_at: DateTime<Utc>,
    #[schema(required)]
    used_at: Option<DateTime<Utc>>,
    /// Where it was used.
    #[schema(required)]
    order_id: Option<i64>,
}

/// An order with the product.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Buyer, example = json!({
    "userId": 7, "orderId": 1, "quantity": 2, "paid": 2_700, "status": "completed", "completedAt": "2026-03-01T12:00:01.250Z",
}))]
struct Buyer {
    user_id: i64,
    order_id: i64,
    /// Of this product.
    quantity: i64,
    /// For the whole order.
    paid: i64,
    #[schema(schema_with = statuses)]
    status: &'static str,
    completed_at: DateTime<Utc>,
}

fn statuses() -> Object {
    one_of([COMPLETED, CANCELLED])
}

/// What is asked for: a page, or all of it as a table, which has none.
pub struct Wanted(Option<Page>);

impl<S: Send + Sync> FromRequestParts<S> for Wanted {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut fields = Fields::from_query(parts.uri.query());
        let page = (!accept::names(&parts.headers, CSV)).then(|| Page::read(&mut fields));
        fields.finish()?;
        Ok(Self(page))
    }
}

/// Who has a coupon of this campaign, also of one that was deleted, by issue number: in pages, or with
/// `Accept: text/csv` all of them as a table, which takes neither `limit` nor `cursor`.
///
/// # Errors
/// 400, 401, 403, 404, 503.
#[utoipa::path(
    get, path = "/api/admin/coupons/{id}/winners", operation_id = "listWinners", tag = "Admin",
    params(Page),
    responses((
        status = 200, description = "A page of the winners, or all of them.",
        content((List<Winner> = "application/json"), (String = "text/csv")),
    )),
    extensions(("x-codes" = json!([Code::CouponNotFound]))),
)]
pub async fn list_winners(
    State(state): State<AppState>,
    _auditor: Auditor,
    PathId(id): PathId,
    wanted: Wanted,
) -> Result<Response, Problem> {
    let is_there = sqlx::query_scalar!(r#"SELECT 1 AS "one!" FROM coupons WHERE id = $1"#, id)
        .fetch_optional(&state.pool)
        .await?;
    is_there.ok_or_else(|| Problem::new(Code::CouponNotFound))?;
    answer::<Winner>(&state.pool, id, wanted, format!("coupon-{id}-winners.csv")).await
}

/// The orders with this product, also with one that was deleted, those that were cancelled included, in the order in
/// which they were settled: in pages, or with `Accept: text/csv` all of them as a table, which takes neither `limit`
/// nor `cursor`.
///
/// # Errors
/// 400, 401, 403, 404, 503.
#[utoipa::path(
    get, path = "/api/admin/products/{id}/buyers", operation_id = "listBuyers", tag = "Admin",
    params(Page),
    responses((
        status = 200, description = "A page of the buyers, or all of them.",
        content((List<Buyer> = "application/json"), (String = "text/csv")),
    )),
    extensions(("x-codes" = json!([Code::ProductNotFound]))),
)]
pub async fn list_buyers(
    State(state): State<AppState>,
    _auditor: Auditor,
    PathId(id): PathId,
    wanted: Wanted,
) -> Result<Response, Problem> {
    let is_there = sqlx::query_scalar!(r#"SELECT 1 AS "one!" FROM products WHERE id = $1"#, id)
        .fetch_optional(&state.pool)
        .await?;
    is_there.ok_or_else(|| Problem::new(Code::ProductNotFound))?;
    answer::<Buyer>(&state.pool, id, wanted, format!("product-{id}-buyers.csv")).await
}

/// A row of a list that can be told as a table. No cell is a text of somebody's: none can be a formula.
trait Row: Serialize + Sized + Send + 'static {
    const COLUMNS: &str;

    /// Those of this coupon or product, after this key.
    fn read(
        pool: &Pool,
        of: i64,
        after: Option<i64>,
        limit: i64,
    ) -> BoxFuture<'_, Result<Vec<Self>, sqlx::Error>>;

    /// What rows are in the order of.
    fn key(&self) -> i64;

    /// The row as a line of the table, without its end.
    fn line(&self) -> String;
}

async fn answer<R: Row>(
    pool: &Pool,
    of: i64,
    Wanted(page): Wanted,
    file: String,
) -> Result<Response, Problem> {
    if let Some(page) = page {
        let rows = R::read(pool, of, page.after, page.rows()).await?;
        return Ok(json::ok(&page.cut(rows, R::key)));
    }
    let first = R::read(pool, of, None, ROWS).await?;
    let head = format!("{}\r\n", R::COLUMNS);
    let pool = pool.clone();
    // Read on only when the client has taken what was read. Where the database goes away the table breaks off, which
    // is seen: it has no end.
    let body = try_unfold(Some((head, first)), move |part| {
        let pool = pool.clone();
        async move {
            let Some((mut text, rows)) = part else { return Ok::<_, sqlx::Error>(None) };
            for row in &rows {
                // To a string it cannot fail.
                let _ = write!(text, "{}\r\n", row.line());
            }
            let is_full = i64::try_from(rows.len()).is_ok_and(|rows| rows == ROWS);
            let next = match rows.last().filter(|_| is_full) {
                Some(last) => {
                    Some((String::new(), R::read(&pool, of, Some(last.key()), ROWS).await?))
                }
                None => None,
            };
            Ok(Some((text, next)))
        }
    });
    let headers = [
        (header::CONTENT_TYPE, format!("{CSV}; charset=utf-8")),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{file}\"")),
    ];
    Ok((headers, Body::from_stream(body)).into_response())
}

impl Row for Winner {
    const COLUMNS: &str = "userId,userCouponId,issueNumber,issuedAt,usedAt,orderId";

    fn read(
        pool: &Pool,
        of: i64,
        after: Option<i64>,
        limit: i64,
    ) -> BoxFuture<'_, Result<Vec<Self>, sqlx::Error>> {
        Box::pin(async move {
            sqlx::query_as!(
                Self,
                "SELECT user_id, id AS user_coupon_id, issue_number, issued_at, used_at, order_id FROM user_coupons
                 WHERE coupon_id = ANY(ARRAY[$1::bigint]) AND issue_number > COALESCE($2::bigint, 0)
                 ORDER BY coupon_id, issue_number LIMIT $3",
                of,
                after,
                limit,
            )
            .fetch_all(pool)
            .await
        })
    }

    fn key(&self) -> i64 {
        self.issue_number
    }

    fn line(&self) -> String {
        let Self { user_id, user_coupon_id, issue_number, .. } = self;
        let (issued, used) = (instant(self.issued_at), self.used_at.map(instant));
        let order = self.order_id.map(|id| id.to_string());
        let (used, order) = (used.unwrap_or_default(), order.unwrap_or_default());
        format!("{user_id},{user_coupon_id},{issue_number},{issued},{used},{order}")
    }
}

impl Row for Buyer {
    const COLUMNS: &str = "userId,orderId,quantity,paid,status,completedAt";

    fn read(
        pool: &Pool,
        of: i64,
        after: Option<i64>,
        limit: i64,
    ) -> BoxFuture<'_, Result<Vec<Self>, sqlx::Error>> {
        Box::pin(async move {
            let rows = sqlx::query!(
                r#"SELECT placed.user_id AS "user_id!", bought.order_id, bought.quantity, placed.paid AS "paid!",
                          placed.completed_at AS "completed_at!", cancelled.order_id IS NOT NULL AS "is_cancelled!"
                   FROM (SELECT order_id, quantity FROM order_items
                         WHERE product_id = ANY(ARRAY[$1::bigint]) AND order_id > COALESCE($2::bigint, 0)
                         ORDER BY product_id, order_id LIMIT $3) AS bought
                   LEFT JOIN LATERAL (SELECT user_id, paid, completed_at FROM orders WHERE id BETWEEN bought.order_id AND bought.order_id
                                      ORDER BY id LIMIT 1) AS placed ON true
                   LEFT JOIN LATERAL (SELECT order_id FROM cancellations WHERE order_id = bought.order_id LIMIT 1) AS cancelled ON true
                   ORDER BY bought.order_id"#,
                of,
                after,
                limit,
            )
            .fetch_all(pool)
            .await?;
            Ok(rows
                .into_iter()
                .map(|row| Self {
                    user_id: row.user_id,
                    order_id: row.order_id,
                    quantity: row.quantity,
                    paid: row.paid,
                    status: if row.is_cancelled { CANCELLED } else { COMPLETED },
                    completed_at: row.completed_at,
                })
                .collect())
        })
    }

    fn key(&self) -> i64 {
        self.order_id
    }

    fn line(&self) -> String {
        let Self { user_id, order_id, quantity, paid, status, completed_at } = self;
        let completed = instant(*completed_at);
        format!("{user_id},{order_id},{quantity},{paid},{status},{completed}")
    }
}

/// As it stands in JSON.
fn instant(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}
