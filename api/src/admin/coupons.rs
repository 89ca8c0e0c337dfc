//! `POST /api/admin/coupons`

use axum::{extract::State, http::HeaderMap, response::Response};

use super::create;
use crate::{auth::Admin, coupon::CouponView, extract::Body, problem::Problem, state::AppState};

/// The largest amount of a discount, in won, and the largest number of coupons.
const LARGEST: i64 = 1_000_000_000;

/// Creates a campaign.
///
/// # Errors
/// 400, 401, 403, 422, 503.
pub async fn create_coupon(
    State(state): State<AppState>,
    admin: Admin,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Body { mut fields, bytes } = body;
    let name = fields.text("name", 200);
    let percent = fields.optional_choice("discountType", &[("fixed", false), ("percent", true)]);
    let value =
        fields.integer("discountValue", 1..=if percent == Some(true) { 100 } else { LARGEST });
    let max_discount = fields.optional_integer("maxDiscount", 1..=LARGEST);
    let total = fields.integer("total", 1..=LARGEST);
    let starts_at = fields.instant("startsAt");
    let ends_at = fields.instant("endsAt");
    if percent.is_none() {
        // Does nothing where the choice was there but wrong.
        fields.reject("discountType", "is required");
    }
    if percent == Some(false) && max_discount.is_some() {
        fields.reject("maxDiscount", "goes with discountType percent only");
    }
    if starts_at >= ends_at {
        fields.reject("endsAt", "must be after startsAt");
    }
    fields.finish()?;

    create(&state, admin, "create-coupon", &headers, &bytes, async |transaction| {
        let coupon = sqlx::query_as!(
            CouponView,
            r#"INSERT INTO coupons (name, discount_type, discount_value, max_discount, total, starts_at, ends_at)
               VALUES ($1, $2, $3, $4, $5, $6, $7)
               RETURNING id, name, discount_type, discount_value, max_discount, total,
                         total - issued AS "remaining!", starts_at, ends_at"#,
            name,
            if percent == Some(true) { "percent" } else { "fixed" },
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
    .await
}
