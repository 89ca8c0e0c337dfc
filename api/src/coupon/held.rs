//! `GET /api/users/coupons`

use axum::{
    extract::{RawQuery, State},
    response::Response,
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema, openapi::Object};

use crate::{
    http::{
        auth::Caller,
        fields::Fields,
        json,
        page::{List, Page},
        problem::Problem,
        schema::one_of,
    },
    known::shown::discount_types,
    state::AppState,
};

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = UserCoupon, example = json!({
    "id": 1, "couponId": 2, "name": "10 percent off", "issueNumber": 1, "status": "used",
    "discountType": "percent", "discountValue": 10, "maxDiscount": 5_000,
    "issuedAt": "2026-03-01T12:00:00.250Z", "validUntil": "2100-01-01T00:00:00Z", "usedAt": "2026-03-01T12:00:01.250Z", "orderId": 1,
}))]
struct HeldCoupon {
    id: i64,
    coupon_id: i64,
    name: String,
    issue_number: i64,
    #[schema(schema_with = statuses)]
    status: String,
    #[schema(schema_with = discount_types)]
    discount_type: String,
    discount_value: i64,
    #[schema(required)]
    max_discount: Option<i64>,
    issued_at: DateTime<Utc>,
    /// First instant at which it can no longer be used.
    valid_until: DateTime<Utc>,
    #[schema(required)]
    used_at: Option<DateTime<Utc>>,
    #[schema(required)]
    order_id: Option<i64>,
}

const STATUSES: [(&str, &str); 3] =
    [("available", "available"), ("used", "used"), ("expired", "expired")];

fn statuses() -> Object {
    one_of(STATUSES.map(|(name, _)| name))
}

/// Which coupons.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
struct Held {
    /// All of them, unless given.
    #[param(required = false, schema_with = statuses)]
    status: Option<&'static str>,
}

impl Held {
    fn read(fields: &mut Fields) -> Self {
        Self { status: fields.optional_choice("status", &STATUSES) }
    }
}

/// The caller's coupons, newest first, also of campaigns that were deleted since.
///
/// # Errors
/// 400, 503.
#[utoipa::path(
    get, path = "/api/users/coupons", operation_id = "listUserCoupons", tag = "Coupons",
    params(Held, Page),
    responses((status = 200, description = "A page of the caller's coupons.", body = List<HeldCoupon>)),
)]
pub async fn held(
    State(state): State<AppState>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut fields = Fields::from_query(query.as_deref());
    let Held { status } = Held::read(&mut fields);
    let page = Page::read(&mut fields);
    fields.finish()?;
    let coupons = sqlx::query_as!(
        HeldCoupon,
        r#"SELECT id AS "id!", coupon_id AS "coupon_id!", name AS "name!", issue_number AS "issue_number!", status AS "status!", discount_type AS "discount_type!",
                  discount_value AS "discount_value!", max_discount, issued_at AS "issued_at!",
                  valid_until AS "valid_until!", used_at, order_id
           FROM (SELECT held.id, held.coupon_id, coupons.*, held.issue_number, held.issued_at, held.used_at, held.order_id,
                        CASE WHEN held.used_at IS NOT NULL THEN 'used'
                             WHEN coupons.valid_until <= now() THEN 'expired'
                             ELSE 'available' END AS status
                 FROM (SELECT * FROM user_coupons WHERE user_id = $1 OFFSET 0) AS held
                 CROSS JOIN LATERAL (SELECT name, discount_type, discount_value, max_discount, valid_until FROM coupons WHERE id = held.coupon_id LIMIT 1) AS coupons) AS mine
           WHERE ($2::text IS NULL OR status = $2) AND id < $3
           ORDER BY id DESC LIMIT $4"#,
        caller.user_id.get(),
        status,
        page.before(),
        page.rows(),
    )
    .fetch_all(&state.pool)
    .await?;
    Ok(json::ok(&page.cut(coupons, |coupon| coupon.id)))
}
