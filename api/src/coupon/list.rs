//! `GET /api/coupons`, `GET /api/coupons/{couponId}`

use axum::{extract::State, http::HeaderMap, response::Response};
use firstcome_process::database::Pool;

use crate::{
    http::{
        limit::Anyone,
        page::{List, Page},
        path::PathId,
        problem::{Code, Problem},
        public,
    },
    known::shown::CouponView,
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
pub async fn list(
    State(state): State<AppState>,
    _anyone: Anyone,
    page: Page,
    asked: HeaderMap,
) -> Result<Response, Problem> {
    Ok(public::list(&asked, &read_page(&state.pool, page).await?))
}

/// The campaigns that are there.
pub(crate) async fn read_page(pool: &Pool, page: Page) -> Result<List<CouponView>, sqlx::Error> {
    let coupons = sqlx::query_as!(
        CouponView,
        r#"SELECT id, name, discount_type, discount_value, max_discount, total,
                  total - issued AS "remaining!", starts_at, ends_at, valid_until, paused_at IS NOT NULL AS "paused!"
           FROM coupons
           WHERE deleted_at IS NULL AND id > COALESCE($1::bigint, 0)
           ORDER BY id LIMIT $2"#,
        page.after,
        page.rows(),
    )
    .fetch_all(pool)
    .await?;
    Ok(page.cut(coupons, |coupon| coupon.id))
}

/// One campaign.
///
/// # Errors
/// 404, 503.
#[utoipa::path(
    get, path = "/api/coupons/{couponId}", operation_id = "getCoupon", tag = "Coupons", security(),
    responses((
        status = 200, description = "The campaign.", body = CouponView,
        headers(("ETag" = String, description = "Names this state, for `If-None-Match` and the `If-Match` of an edit.")),
    )),
    extensions(("x-codes" = json!([Code::CouponNotFound]))),
)]
pub async fn get(
    State(state): State<AppState>,
    _anyone: Anyone,
    PathId(id): PathId,
    asked: HeaderMap,
) -> Result<Response, Problem> {
    let coupon = state.shown.coupons.get(id).await?;
    let coupon = coupon.ok_or_else(|| Problem::new(Code::CouponNotFound))?;
    Ok(public::one(&asked, &coupon))
}
