//! Which products exist, for the early 404 of an order. Optional by design: the line decides.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use firstcome_contract::{ids::ProductId, order::Item};
use firstcome_process::database::Pool;
use quick_cache::sync::Cache;
use sqlx::PgConnection;
use tokio::time::timeout;

use super::batched::Batched;

/// How many products are remembered.
const CAPACITY: usize = 100_000;
/// How long a product is believed to exist. One that is deleted meanwhile is rejected by the line.
const SEEN_TTL: Duration = Duration::from_secs(60);
/// How long a request waits for the database before it goes to the line unjudged.
const LOOK_UP_TIMEOUT: Duration = Duration::from_millis(500);

/// Products that were there when last looked for.
#[derive(Debug)]
pub struct Products {
    seen: Cache<ProductId, Instant>,
    stored: Batched<ProductId, ()>,
}

impl Products {
    /// Makes a board that knows no product yet.
    #[must_use]
    pub fn new(pool: &Pool) -> Self {
        Self {
            seen: Cache::new(CAPACITY),
            stored: Batched::start(pool, |connection, ids| Box::pin(stored(connection, ids))),
        }
    }

    /// Whether one of the products certainly does not exist.
    pub async fn lacks_any(&self, items: &[Item]) -> bool {
        let unknown = items
            .iter()
            .map(|item| item.product_id)
            .filter(|id| self.seen.get(id).is_none_or(|seen| seen.elapsed() >= SEEN_TTL));
        let looked_up = futures_util::future::join_all(unknown.map(async |id| {
            let found = self.stored.get(id).await.ok()?;
            if found.is_some() {
                self.seen.insert(id, Instant::now());
            }
            Some(found.is_some())
        }));
        let looked_up = timeout(LOOK_UP_TIMEOUT, looked_up).await.unwrap_or_default();
        looked_up.contains(&Some(false))
    }
}

async fn stored(
    connection: &mut PgConnection,
    ids: Vec<ProductId>,
) -> Result<HashMap<ProductId, ()>, sqlx::Error> {
    let ids: Vec<i64> = ids.into_iter().map(ProductId::get).collect();
    let rows = sqlx::query_scalar!(
        "SELECT id FROM products WHERE id = ANY($1) AND deleted_at IS NULL",
        &ids
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|id| (ProductId::new(id), ())).collect())
}
