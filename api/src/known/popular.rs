//! What sold best of late, from the sales statistics: in Redis, and up to `POPULAR_TTL` old.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use chrono::{DateTime, NaiveDate, Utc};
use firstcome_process::database::{Pool, within};
use redis::{AsyncTypedCommands, ExistenceCheck, SetExpiry, SetOptions};
use serde::Serialize;
use tokio::{sync::Mutex, time::Instant};
use utoipa::ToSchema;

use super::batched::Unavailable;
use crate::{cache::Cache, http::problem::Problem};

/// How many products the list has.
const TOP: i64 = 5;
/// How far back, in days before today.
const DAYS: i32 = 3;
/// How long another process may take to rebuild before this one does.
const REBUILD_LOCK_TTL_SECONDS: u64 = 10;
/// How long the database may take to work the answer out.
const REBUILD_TIMEOUT: Duration = Duration::from_secs(3);
/// How long nobody tries again after that failed: one request in a while waits in vain.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// How long an answer is kept for when the database is away.
const STALE_TTL_SECONDS: u64 = 7 * 24 * 3600;

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PopularProducts)]
pub(crate) struct Popular {
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

/// The answer in Redis, and how it is renewed: by one request of one process at a time, while the
/// others get the last one at once.
#[derive(Debug)]
pub struct PopularBoard {
    cache: Cache,
    fresh: String,
    stale: String,
    rebuilding: String,
    seconds: u64,
    time_zone: String,
    /// The last answer that this process saw.
    last: RwLock<Option<Last>>,
    /// The turn to renew it, and when that last failed.
    turn: Mutex<Option<Instant>>,
}

#[derive(Debug, Clone)]
struct Last {
    body: Arc<Vec<u8>>,
    /// It is used without asking anyone until then: how old an answer of another process is,
    /// Redis knows.
    fresh_until: Instant,
}

impl PopularBoard {
    /// Makes a board whose answers are renewed when they are so many `seconds` old.
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
            last: RwLock::default(),
            turn: Mutex::default(),
        }
    }

    pub(crate) async fn get(&self, pool: &Pool) -> Result<Arc<Vec<u8>>, Problem> {
        let arrived = Instant::now();
        if let Some(fresh) = self.cached(&self.fresh).await {
            return Ok(fresh);
        }
        let last = match self.last() {
            Some(last) if last.fresh_until > arrived => return Ok(last.body),
            Some(last) => Some(last.body),
            None => self.cached(&self.stale).await,
        };
        let mut failed_at = match (self.turn.try_lock(), last) {
            (Ok(turn), _) => turn,
            (Err(_), Some(last)) => return Ok(last),
            // The first answer of all is waited for.
            (Err(_), None) => self.turn.lock().await,
        };
        // Whoever had the turn meanwhile has renewed it, or found that it cannot be renewed.
        let last = self.last();
        if let Some(renewed) = last.as_ref().filter(|last| last.fresh_until > arrived) {
            return Ok(Arc::clone(&renewed.body));
        }
        let last = last.map(|last| last.body);
        if failed_at.is_some_and(|failed_at| failed_at.elapsed() < RETRY_INTERVAL) {
            return last.ok_or_else(|| Unavailable.into());
        }
        if !self.my_turn().await
            && let Some(last) = last
        {
            return Ok(last);
        }
        let began = Instant::now();
        match within(REBUILD_TIMEOUT, generate(pool, &self.time_zone)).await {
            Ok(popular) => {
                let body = Arc::new(serde_json::to_vec(&popular).unwrap_or_default());
                self.remember(&body, began + Duration::from_secs(self.seconds));
                self.put(&self.fresh, &body, self.seconds).await;
                self.put(&self.stale, &body, STALE_TTL_SECONDS).await;
                // An answer that lives shorter than that is renewed as soon as it is over.
                self.cache.ask(async |mut redis| redis.del(&self.rebuilding).await).await;
                Ok(body)
            }
            Err(error) => {
                tracing::warn!(%error, "popular products cannot be renewed; answering with the last ones");
                *failed_at = Some(Instant::now());
                last.ok_or_else(|| error.into())
            }
        }
    }

    fn last(&self) -> Option<Last> {
        self.last.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn remember(&self, body: &Arc<Vec<u8>>, fresh_until: Instant) {
        let last = Last { body: Arc::clone(body), fresh_until };
        *self.last.write().unwrap_or_else(PoisonError::into_inner) = Some(last);
    }

    /// What Redis has, remembered for when it is away.
    async fn cached(&self, key: &str) -> Option<Arc<Vec<u8>>> {
        let cached = self.cache.ask(async |mut redis| redis.get(key).await).await.flatten();
        let body = Arc::new(cached?.into_bytes());
        if self.last().is_none_or(|last| last.body != body) {
            self.remember(&body, Instant::now());
        }
        Some(body)
    }

    async fn put(&self, key: &str, body: &[u8], seconds: u64) {
        self.cache.ask(async |mut redis| redis.set_ex(key, body, seconds).await).await;
    }

    /// Whether no other process is at it; without Redis nobody can know, so yes.
    async fn my_turn(&self) -> bool {
        let options = SetOptions::default()
            .conditional_set(ExistenceCheck::NX)
            .with_expiration(SetExpiry::EX(REBUILD_LOCK_TTL_SECONDS));
        let taken =
            self.cache.ask(async |mut redis| redis.set_options(&self.rebuilding, 1, options).await);
        taken.await.is_none_or(|taken| taken.is_some())
    }
}

async fn generate(pool: &Pool, time_zone: &str) -> Result<Popular, sqlx::Error> {
    let window = sqlx::query!(
        r#"SELECT (now() AT TIME ZONE $1)::date - $2::int AS "from!", (now() AT TIME ZONE $1)::date AS "to!""#,
        time_zone,
        DAYS,
    )
    .fetch_one(pool)
    .await?;
    let items = sqlx::query_as!(
        Item,
        r#"SELECT product_id, name, price, quantity AS "quantity_sold!"
           FROM (SELECT product_id, sum(quantity)::bigint AS quantity FROM product_sales WHERE day >= $1
                 GROUP BY product_id HAVING sum(quantity) > 0) AS sold
           CROSS JOIN LATERAL (SELECT name, price FROM products WHERE id = product_id AND deleted_at IS NULL LIMIT 1) AS product
           ORDER BY quantity DESC, product_id LIMIT $2"#,
        window.from,
        TOP,
    )
    .fetch_all(pool)
    .await?;
    Ok(Popular { items, from: window.from, to: window.to, generated_at: Utc::now() })
}
