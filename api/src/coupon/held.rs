//! `GET /api/users/coupons`

use axum::{
    extract::{RawQuery, State},
    response::Response,
};
use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::{auth::Caller, extract::Fields, problem::Problem, state::AppState};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct HeldCoupon {
    id: i64,
    coupon_id: i64,
    name: String,
    issue_number: i64,
    status: String,
    issued_at: DateTime<Utc>,
    used_at: Option<DateTime<Utc>>,
    order_id: Option<i64>,
}

/// The caller's coupons, newest first.
///
/// # Errors
/// 400, 503.
pub async fn held(
    State(state): State<AppState>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut fields = Fields::from_query(query.as_deref());
    let status = fields.optional_choice(
        "status",
        &[("available", "available"), ("used", "used"), ("expired", "expired")],
    );
    let page = fields.page();
    fields.finish()?;
    let coupons = sqlx::query_as!(
        HeldCoupon,
        r#"SELECT id, coupon_id, name, issue_number, status AS "status!", issued_at, used_at, order_id
           FROM (SELECT held.id, held.coupon_id, coupons.name, held.issue_number, held.issued_at, held.used_at, held.order_id,
                        CASE WHEN held.used_at IS NOT NULL THEN 'used'
                             WHEN coupons.ends_at <= now() THEN 'expired'
                             ELSE 'available' END AS status
                 FROM user_coupons held JOIN coupons ON coupons.id = held.coupon_id
                 WHERE held.user_id = $1) AS mine
           WHERE ($2::text IS NULL OR status = $2) AND ($3::bigint IS NULL OR id < $3)
           ORDER BY id DESC LIMIT $4"#,
        caller.user_id.get(),
        status,
        page.after,
        page.rows(),
    )
    .fetch_all(&state.pool)
    .await?;
    Ok(crate::json(&page.cut(coupons, |coupon| coupon.id)))
}
