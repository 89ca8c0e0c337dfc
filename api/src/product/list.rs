//! `GET /api/products`

use axum::{extract::State, http::HeaderMap, response::Response};
use firstcome_process::database::Pool;

use crate::{
    http::{
        limit::Anyone,
        page::{List, Page},
        problem::Problem,
        public,
    },
    known::shown::ProductView,
    state::AppState,
};

/// The products of the shop, by id; up to `PRODUCTS_TTL` old.
///
/// # Errors
/// 400, 503.
#[utoipa::path(
    get, path = "/api/products", operation_id = "listProducts", tag = "Products", security(),
    params(Page),
    responses((status = 200, description = "A page of the products.", body = List<ProductView>)),
)]
pub async fn list(
    State(state): State<AppState>,
    _anyone: Anyone,
    page: Page,
    asked: HeaderMap,
) -> Result<Response, Problem> {
    if let Some(cached) = state.product_pages.get(page).await {
        return Ok(public::stored(&asked, cached));
    }
    let changes = state.product_pages.changes();
    let list = read_page(&state.pool, page).await?;
    if !list.items.is_empty()
        && let Ok(body) = serde_json::to_vec(&list)
    {
        let has_sold_out = list.items.iter().any(|product| product.sold_out);
        state.product_pages.put(page, body, has_sold_out, changes).await;
    }
    Ok(public::list(&asked, &list))
}

/// The products on sale, as they are now.
pub(crate) async fn read_page(pool: &Pool, page: Page) -> Result<List<ProductView>, sqlx::Error> {
    let products = sqlx::query_as!(
        ProductView,
        r#"SELECT id, name, price, on_sale_from, on_sale_until, per_customer, paused_at IS NOT NULL AS "paused!",
                  stock, stock = 0 AS "sold_out!" FROM products
           WHERE deleted_at IS NULL AND id > COALESCE($1::bigint, 0)
           ORDER BY id LIMIT $2"#,
        page.after,
        page.rows(),
    )
    .fetch_all(pool)
    .await?;
    Ok(page.cut(products, |product| product.id))
}
