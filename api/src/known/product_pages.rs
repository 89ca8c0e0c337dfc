//! Lists of products in Redis, up to `PRODUCTS_TTL` old.

use axum::body::Bytes;
use redis::{AsyncTypedCommands, IntegerReplyOrNoOp};

use crate::{cache::Cache, http::page::Page};

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
    /// Keeps pages of this namespace in Redis, each for so many `seconds`.
    #[must_use]
    pub fn new(cache: Cache, namespace: &str, seconds: u32) -> Self {
        Self { cache, hash: format!("{namespace}:products"), seconds: seconds.into() }
    }

    /// Forgets every page.
    pub async fn forget(&self) {
        self.cache.ask(async |mut redis| redis.del(&self.hash).await).await;
    }

    pub(crate) async fn get(&self, page: Page) -> Option<Bytes> {
        let cached = self.cache.ask(async |mut redis| redis.hget(&self.hash, field(page)).await);
        cached.await.flatten().map(Bytes::from)
    }

    pub(crate) async fn put(&self, page: Page, body: Vec<u8>) {
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
