//! `GET /api/coupons`, `GET /api/coupons/{couponId}`

use axum::{extract::State, response::Response};
use sqlx::PgPool;

use super::CouponView;
use crate::{
    extract::{List, Page, PathId},
    problem::{Code, Problem},
    state::AppState,
};

/// All campaigns, by id.
///
/// # Errors
/// 400, 503.
#[utoipa::path(
    get, path = "/api/coupons", operation_id = "listCoupons", tag = "Coupons", security(),
    params(Page),
    responses((status = 200, description = "A page of the campaigns.", body = List<CouponView>)),
)]
pub async fn list(State(state): State<AppState>, page: Page) -> Result<Response, Problem> {
    let coupons = select(&state.pool, None, page).await?;
    Ok(crate::json(&page.cut(coupons, |coupon| coupon.id)))
}

/// One campaign.
///
/// # Errors
/// 404, 503.
#[utoipa::path(
    get, path = "/api/coupons/{couponId}", operation_id = "getCoupon", tag = "Coupons", security(),
    responses((status = 200, description = "The campaign.", body = CouponView)),
    extensions(("x-codes" = json!([Code::CouponNotFound]))),
)]
pub async fn get(State(state): State<AppState>, PathId(id): PathId) -> Result<Response, Problem> {
    let found = select(&state.pool, Some(id), Page { limit: 1, after: None }).await?;
    let coupon = found.into_iter().next().ok_or_else(|| Problem::new(Code::CouponNotFound))?;
    Ok(crate::json(&coupon))
}

async fn select(
    pool: &PgPool,
    id: Option<i64>,
    page: Page,
) -> Result<Vec<CouponView>, sqlx::Error> {
    sqlx::query_as!(
        CouponView,
        r#"SELECT id, name, discount_type, discount_value, max_discount, total,
                  total - issued AS "remaining!", starts_at, ends_at
           FROM coupons
           WHERE deleted_at IS NULL AND ($1::bigint IS NULL OR id = $1) AND id > COALESCE($2::bigint, 0)
           ORDER BY id LIMIT $3"#,
        id,
        page.after,
        page.rows(),
    )
    .fetch_all(pool)
    .await
}
