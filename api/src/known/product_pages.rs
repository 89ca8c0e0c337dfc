//! Lists of products in Redis, up to `PRODUCTS_TTL` old.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::body::Bytes;
use redis::{AsyncTypedCommands, IntegerReplyOrNoOp};
use tokio::{sync::Notify, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{cache::Cache, http::page::Page};

/// The most pages in Redis, about, besides the first one of each limit: anyone can ask for as many as
/// there are ids, and a shop's visitors open the first few.
const MAX_LATER_PAGES: usize = 400;
/// How long a page says at most that something is sold out, in seconds: what ends that is announced, and the
/// announcement may be lost. Below the 30 s of the contract by what reading and rounding take.
const SOLD_OUT_TTL: i64 = 25;
/// How often the pages are forgotten at most for what is heard, however many orders are cancelled.
const FORGET_INTERVAL: Duration = Duration::from_millis(500);

/// The pages in Redis: one hash, so that a change of the catalogue forgets all of them at once.
#[derive(Debug)]
pub struct Pages {
    cache: Cache,
    hash: String,
    seconds: i64,
    /// Counts when they were forgotten, for those who were reading meanwhile.
    changes: AtomicU64,
    /// That something was changed elsewhere.
    heard: Notify,
}

impl Pages {
    /// Keeps pages of this namespace in Redis, each for so many `seconds`; hears of changes until `stop`.
    #[must_use]
    pub fn start(
        cache: Cache,
        namespace: &str,
        seconds: u32,
        stop: &CancellationToken,
    ) -> Arc<Self> {
        let pages = Arc::new(Self {
            cache,
            // Under `products` the release before this one keeps pages that tell less of a product.
            hash: format!("{namespace}:product-pages"),
            seconds: seconds.into(),
            changes: AtomicU64::new(0),
            heard: Notify::new(),
        });
        let hearing = forget_when_heard(Arc::clone(&pages));
        tokio::spawn(stop.clone().run_until_cancelled_owned(hearing));
        pages
    }

    /// Forgets every page.
    pub async fn forget(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.delete().await;
    }

    /// Hears of a change that was made elsewhere: forgets every page, soon.
    pub fn changed(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.heard.notify_one();
    }

    /// How many changes this process knows of: to be asked before a page is read.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    pub(crate) async fn get(&self, page: Page) -> Option<Bytes> {
        let cached = self.cache.ask(async |mut redis| redis.hget(&self.hash, field(page)).await);
        cached.await.flatten().map(Bytes::from)
    }

    /// Keeps a page that was read after so many changes, unless there are more by now.
    pub(crate) async fn put(&self, page: Page, body: Vec<u8>, has_sold_out: bool, changes: u64) {
        if self.changes() != changes {
            return;
        }
        let seconds = if has_sold_out { self.seconds.min(SOLD_OUT_TTL) } else { self.seconds };
        let put = self.cache.ask(async |mut redis| {
            if page.after.is_some() && redis.hlen(&self.hash).await? >= MAX_LATER_PAGES {
                return Ok(());
            }
            redis.hset(&self.hash, field(page), body).await?;
            // The age of the whole counts from its first page: later pages may shorten it, and do not prolong it.
            let left = redis.ttl(&self.hash).await?;
            let is_bounded = matches!(left, IntegerReplyOrNoOp::IntegerReply(left) if i64::try_from(left).is_ok_and(|left| left <= seconds));
            if !is_bounded {
                redis.expire(&self.hash, seconds).await?;
            }
            Ok(())
        });
        put.await;
        // Read before the change, and put after it.
        if self.changes() != changes {
            self.delete().await;
        }
    }

    async fn delete(&self) {
        self.cache.ask(async |mut redis| redis.del(&self.hash).await).await;
    }
}

/// What is heard while they are forgotten has them forgotten once more.
async fn forget_when_heard(pages: Arc<Pages>) {
    loop {
        pages.heard.notified().await;
        pages.delete().await;
        sleep(FORGET_INTERVAL).await;
    }
}

fn field(page: Page) -> String {
    format!("{}:{}", page.limit, page.after.unwrap_or_default())
}
