//! `GET /api/products/popular`: what sold best of late, from the sales statistics.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, NaiveDate, Utc};
use redis::{AsyncTypedCommands, ExistenceCheck, SetExpiry, SetOptions};
use serde::Serialize;
use sqlx::PgPool;
use tokio::sync::Mutex;
use utoipa::ToSchema;

use crate::{cache::Cache, problem::Problem, state::AppState};

/// How many products.
const TOP: i64 = 5;
/// How far back, in days before today.
const DAYS: i32 = 3;
/// How long another process may take to rebuild before this one does.
const REBUILD_SECONDS: u64 = 10;
/// How long an answer is kept for when the database is away.
const STALE_SECONDS: u64 = 7 * 24 * 3600;

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PopularProducts)]
struct Popular {
    items: Vec<Item>,
    /// First day that counts.
    from: NaiveDate,
    /// Last day that counts.
    to: NaiveDate,
    generated_at: DateTime<Utc>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PopularProduct, example = json!({"productId": 1, "name": "Product 1", "price": 1_000, "quantitySold": 1_234}))]
struct Item {
    product_id: i64,
    name: String,
    price: i64,
    quantity_sold: i64,
}

/// The top 5 by quantity sold since the day three days ago.
///
/// # Errors
/// 503 if the database is away and nothing older is known.
#[utoipa::path(
    get, path = "/api/products/popular", operation_id = "listPopularProducts", tag = "Products", security(),
    responses((status = 200, description = "The best sold first.", body = Popular)),
)]
pub async fn popular(State(state): State<AppState>) -> Result<Response, Problem> {
    let body = state.popular.get(&state.pool).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body.as_ref().clone()).into_response())
}

/// The answer in Redis, and how it is renewed: by one request of one process at a time, while the
/// others get the old one.
#[derive(Debug)]
pub struct PopularBoard {
    cache: Cache,
    fresh: String,
    stale: String,
    rebuilding: String,
    seconds: u64,
    time_zone: String,
    /// The last answer of this process, and the turn to renew it.
    last: Mutex<Option<Arc<Vec<u8>>>>,
}

impl PopularBoard {
    /// An answer lives so many seconds.
    #[must_use]
    pub fn new(cache: Cache, namespace: &str, seconds: u32, time_zone: &str) -> Self {
        let key = |what: &str| format!("{namespace}:popular:{what}");
        Self {
            cache,
            fresh: key("fresh"),
            stale: key("stale"),
            rebuilding: key("rebuilding"),
            seconds: seconds.into(),
            time_zone: time_zone.to_owned(),
            last: Mutex::default(),
        }
    }

    async fn get(&self, pool: &PgPool) -> Result<Arc<Vec<u8>>, Problem> {
        if let Some(fresh) = self.cached(&self.fresh).await {
            return Ok(fresh);
        }
        let mut last = self.last.lock().await;
        // Whoever had the turn before may have renewed it.
        if let Some(fresh) = self.cached(&self.fresh).await {
            return Ok(fresh);
        }
        if !self.my_turn().await
            && let Some(stale) = self.cached(&self.stale).await
        {
            return Ok(stale);
        }
        match tokio::time::timeout(Duration::from_secs(3), generate(pool, &self.time_zone)).await {
            Ok(Ok(popular)) => {
                let body = Arc::new(serde_json::to_vec(&popular).unwrap_or_default());
                self.put(&self.fresh, &body, self.seconds).await;
                self.put(&self.stale, &body, STALE_SECONDS).await;
                *last = Some(Arc::clone(&body));
                Ok(body)
            }
            failed => {
                let error = failed.map_or(sqlx::Error::PoolTimedOut, |result| {
                    result.err().unwrap_or(sqlx::Error::RowNotFound)
                });
                tracing::warn!(%error, "popular products cannot be renewed; answering with the last ones");
                let stale = self.cached(&self.stale).await;
                stale.or_else(|| last.clone()).ok_or_else(|| error.into())
            }
        }
    }

    async fn cached(&self, key: &str) -> Option<Arc<Vec<u8>>> {
        let cached = self.cache.ask(async |mut redis| redis.get(key).await).await.flatten();
        cached.map(|body| Arc::new(body.into_bytes()))
    }

    async fn put(&self, key: &str, body: &[u8], seconds: u64) {
        self.cache.ask(async |mut redis| redis.set_ex(key, body, seconds).await).await;
    }

    /// Whether no other process is at it; without Redis nobody can know, so yes.
    async fn my_turn(&self) -> bool {
        let options = SetOptions::default()
            .conditional_set(ExistenceCheck::NX)
            .with_expiration(SetExpiry::EX(REBUILD_SECONDS));
        let taken =
            self.cache.ask(async |mut redis| redis.set_options(&self.rebuilding, 1, options).await);
        taken.await.is_none_or(|taken| taken.is_some())
    }
}

async fn generate(pool: &PgPool, time_zone: &str) -> Result<Popular, sqlx::Error> {
    let window = sqlx::query!(
        r#"SELECT (now() AT TIME ZONE $1)::date - $2::int AS "from!", (now() AT TIME ZONE $1)::date AS "to!""#,
        time_zone,
        DAYS,
    )
    .fetch_one(pool)
    .await?;
    let items = sqlx::query_as!(
        Item,
        r#"SELECT product_id, name, price, sum(quantity)::bigint AS "quantity_sold!"
           FROM product_sales JOIN products ON products.id = product_id AND deleted_at IS NULL
           WHERE day >= $1
           GROUP BY product_id, name, price HAVING sum(quantity) > 0
           ORDER BY 4 DESC, product_id LIMIT $2"#,
        window.from,
        TOP,
    )
    .fetch_all(pool)
    .await?;
    Ok(Popular { items, from: window.from, to: window.to, generated_at: Utc::now() })
}
