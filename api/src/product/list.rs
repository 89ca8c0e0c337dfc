//! `GET /api/products`, cached in Redis.

use axum::{
    body::Bytes,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use firstcome_process::database::Pool;
use redis::{AsyncTypedCommands, IntegerReplyOrNoOp};

use super::ProductView;
use crate::{
    http::{
        extract::{List, Page},
        problem::Problem,
    },
    known::cache::Cache,
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
    Ok(crate::json(&list))
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

/// The most pages in Redis, about, besides the first one of each limit: anyone can ask for as many as
/// there are ids, and a shop's visitors open the first few.
const MAX_LATER_PAGES: usize = 400;

/// The pages in Redis: one hash, so that a change of the catalogue forgets all of them at once.
#[derive(Debug)]
pub struct Pages {
    cache: Cache,
    hash: String,
    seconds: i64,
}

impl Pages {
    /// Pages that live so many seconds.
    #[must_use]
    pub fn new(cache: Cache, namespace: &str, seconds: u32) -> Self {
        Self { cache, hash: format!("{namespace}:products"), seconds: seconds.into() }
    }

    /// Forgets every page.
    pub async fn forget(&self) {
        self.cache.ask(async |mut redis| redis.del(&self.hash).await).await;
    }

    async fn get(&self, page: Page) -> Option<Bytes> {
        let cached = self.cache.ask(async |mut redis| redis.hget(&self.hash, field(page)).await);
        cached.await.flatten().map(Bytes::from)
    }

    async fn put(&self, page: Page, body: Vec<u8>) {
        let put = self.cache.ask(async |mut redis| {
            if page.after.is_some() && redis.hlen(&self.hash).await? >= MAX_LATER_PAGES {
                return Ok(());
            }
            redis.hset(&self.hash, field(page), body).await?;
            // The age of the whole counts from its first page: later pages do not prolong it.
            let forever = IntegerReplyOrNoOp::ExistsButNotRelevant;
            if redis.ttl(&self.hash).await? == forever {
                redis.expire(&self.hash, self.seconds).await?;
            }
            Ok(())
        });
        put.await;
    }
}

fn field(page: Page) -> String {
    format!("{}:{}", page.limit, page.after.unwrap_or_default())
}
