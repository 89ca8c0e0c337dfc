//! `GET /api/products`

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use firstcome_process::database::Pool;

use crate::{
    http::{
        json,
        page::{List, Page},
        problem::Problem,
    },
    known::shown::ProductView,
    state::AppState,
};

/// The products on sale, by id; up to `PRODUCTS_TTL` old.
///
/// # Errors
/// 400, 503.
#[utoipa::path(
    get, path = "/api/products", operation_id = "listProducts", tag = "Products", security(),
    params(Page),
    responses((status = 200, description = "A page of the products.", body = List<ProductView>)),
)]
pub async fn list(State(state): State<AppState>, page: Page) -> Result<Response, Problem> {
    if let Some(cached) = state.product_pages.get(page).await {
        return Ok(([(header::CONTENT_TYPE, "application/json")], cached).into_response());
    }
    let list = read_page(&state.pool, page).await?;
    if !list.items.is_empty()
        && let Ok(body) = serde_json::to_vec(&list)
    {
        state.product_pages.put(page, body).await;
    }
    Ok(json::ok(&list))
}

/// The products on sale, as they are now.
pub(crate) async fn read_page(pool: &Pool, page: Page) -> Result<List<ProductView>, sqlx::Error> {
    let products = sqlx::query_as!(
        ProductView,
        r#"SELECT id, name, price, stock, stock = 0 AS "sold_out!" FROM products
           WHERE deleted_at IS NULL AND id > COALESCE($1::bigint, 0)
           ORDER BY id LIMIT $2"#,
        page.after,
        page.rows(),
    )
    .fetch_all(pool)
    .await?;
    Ok(page.cut(products, |product| product.id))
}
