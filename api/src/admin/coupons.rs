//! `POST /api/admin/coupons`, `PATCH`, `DELETE /api/admin/coupons/{id}`

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use firstcome_shared::{ids::CouponId, order::MAX_PRICE};

use super::created;
use crate::{
    auth::Admin,
    coupon::CouponView,
    extract::{Body, PathId},
    once::once,
    problem::{Code, Problem},
    state::AppState,
};

/// The largest number of coupons.
const MAX_TOTAL: i64 = 1_000_000_000;
/// The kinds of discounts.
const TYPES: [(&str, &str); 2] = [("fixed", "fixed"), ("percent", "percent")];

/// Creates a campaign.
///
/// # Errors
/// 400, 401, 403, 422, 503.
pub async fn create_coupon(
    State(state): State<AppState>,
    Admin(admin): Admin,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Body { mut fields, bytes } = body;
    let name = fields.text("name", 200);
    let discount_type = fields.optional_choice("discountType", &TYPES);
    let percent = discount_type == Some("percent");
    let value = fields.integer("discountValue", 1..=if percent { 100 } else { MAX_PRICE });
    let max_discount = fields.optional_integer("maxDiscount", 1..=MAX_PRICE);
    let total = fields.integer("total", 1..=MAX_TOTAL);
    let starts_at = fields.instant("startsAt");
    let ends_at = fields.instant("endsAt");
    if discount_type.is_none() {
        // Does nothing where the choice was there but wrong.
        fields.reject("discountType", "is required");
    }
    if discount_type == Some("fixed") && max_discount.is_some() {
        fields.reject("maxDiscount", "goes with discountType percent only");
    }
    if starts_at >= ends_at {
        fields.reject("endsAt", "must be after startsAt");
    }
    fields.finish()?;

    let coupon = once(&state.pool, admin.user_id, "create-coupon", &headers, &bytes, async |transaction| {
        let coupon = sqlx::query_as!(
            CouponView,
            r#"INSERT INTO coupons (name, discount_type, discount_value, max_discount, total, starts_at, ends_at)
               VALUES ($1, $2, $3, $4, $5, $6, $7)
               RETURNING id, name, discount_type, discount_value, max_discount, total,
                         total - issued AS "remaining!", starts_at, ends_at"#,
            name,
            discount_type.unwrap_or_default(),
            value,
            max_discount,
            total,
            starts_at,
            ends_at,
        )
        .fetch_one(transaction)
        .await?;
        Ok(coupon)
    })
    .await?;
    Ok(created(&coupon))
}

/// Changes what is given, also of a campaign that is on. A larger total ends a sold-out at once.
///
/// # Errors
/// 400, 401, 403, 404, 409 for a total below what is issued; 503.
pub async fn edit_coupon(
    State(state): State<AppState>,
    _admin: Admin,
    PathId(id): PathId,
    body: Body,
) -> Result<Response, Problem> {
    let Body { mut fields, .. } = body;
    let name = fields.optional_text("name", 200);
    let discount_type = fields.optional_choice("discountType", &TYPES);
    let value = fields.optional_integer("discountValue", 1..=MAX_PRICE);
    // `null` takes the cap away.
    let uncapped = fields.has("maxDiscount");
    let max_discount = fields.optional_integer("maxDiscount", 1..=MAX_PRICE);
    let total = fields.optional_integer("total", 1..=MAX_TOTAL);
    let starts_at = fields.optional_instant("startsAt");
    let ends_at = fields.optional_instant("endsAt");
    fields.finish()?;
    let coupon = sqlx::query_as!(
        CouponView,
        r#"UPDATE coupons SET name = COALESCE($2, name), discount_type = COALESCE($3, discount_type),
                  discount_value = COALESCE($4, discount_value),
                  max_discount = CASE WHEN $5 THEN $6 ELSE max_discount END, total = COALESCE($7, total),
                  starts_at = COALESCE($8, starts_at), ends_at = COALESCE($9, ends_at)
           WHERE id = $1 AND deleted_at IS NULL
           RETURNING id, name, discount_type, discount_value, max_discount, total,
                     total - issued AS "remaining!", starts_at, ends_at"#,
        id,
        name,
        discount_type,
        value,
        uncapped,
        max_discount,
        total,
        starts_at,
        ends_at,
    )
    .fetch_optional(&state.pool)
    .await
    .map_err(|error| match error.as_database_error().and_then(|error| error.constraint()) {
        Some("coupons_issued_within_total") => Problem::new(Code::TotalBelowIssued),
        Some("coupons_window") => Problem::invalid("endsAt", "must be after startsAt"),
        Some("coupons_discount") => Problem::invalid("discountValue", "must be from 1 to 100 percent"),
        Some("coupons_cap_is_of_percent") => {
            Problem::invalid("maxDiscount", "goes with discountType percent only")
        }
        _ => error.into(),
    })?;
    state.coupons.changed(CouponId::new(id)).await;
    Ok(crate::json(&coupon.ok_or_else(|| Problem::new(Code::CouponNotFound))?))
}

/// Ends a campaign for good. Coupons in users' hands stay good.
///
/// # Errors
/// 401, 403, 404, 503.
pub async fn delete_coupon(
    State(state): State<AppState>,
    _admin: Admin,
    PathId(id): PathId,
) -> Result<StatusCode, Problem> {
    let deleted = sqlx::query!(
        "UPDATE coupons SET deleted_at = now() WHERE id = $1 AND deleted_at IS NULL",
        id
    )
    .execute(&state.pool)
    .await?;
    state.coupons.changed(CouponId::new(id)).await;
    if deleted.rows_affected() == 0 {
        return Err(Problem::new(Code::CouponNotFound));
    }
    Ok(StatusCode::NO_CONTENT)
}
