//! What this process knows of the campaigns that are asked for: enough to say "sold out", "ended"
//! or "no such coupon" without a line. Optional by design: without the database everything goes to
//! the line, which decides anyway.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use firstcome_contract::{campaign::Campaign, ids::CouponId, rejection::Rejection};
use firstcome_process::database::Pool;
use quick_cache::sync::Cache;
use redis::AsyncTypedCommands;
use sqlx::PgConnection;
use tokio::time::timeout;

use super::batched::Batched;

/// How many campaigns are kept in memory.
const CAPACITY: usize = 10_000;
/// Younger than this, what we know is used as it is.
const FRESH_TTL: Duration = Duration::from_millis(500);
/// Younger than this, it is used while it is read again; older, the request waits for the reading.
/// An operator's change is thus seen everywhere within a second even if its announcement is lost.
const USABLE_TTL: Duration = Duration::from_secs(1);
/// How long a request waits for the database before it goes to the line unjudged.
const LOOK_UP_TIMEOUT: Duration = Duration::from_millis(500);

/// The Redis channel for ids of campaigns that an operator changed.
#[must_use]
pub fn changed_channel(namespace: &str) -> String {
    format!("{namespace}:coupon-changed")
}

#[derive(Debug)]
struct Seen {
    campaign: Campaign,
    at: Instant,
    refreshing: AtomicBool,
}

/// Campaigns that were asked for lately, each as it was at its last reading.
#[derive(Debug)]
pub struct Campaigns {
    seen: Cache<CouponId, Arc<Seen>>,
    /// Counts what was forgotten, for those who were reading meanwhile.
    changes: AtomicU64,
    cache: crate::cache::Cache,
    channel: String,
    stored: Batched<CouponId, Campaign>,
}

impl Campaigns {
    /// Makes a board that knows no campaign yet.
    #[must_use]
    pub fn new(pool: &Pool, cache: crate::cache::Cache, namespace: &str) -> Arc<Self> {
        Arc::new(Self {
            seen: Cache::new(CAPACITY),
            changes: AtomicU64::new(0),
            cache,
            channel: changed_channel(namespace),
            stored: Batched::start(pool, |connection, ids| Box::pin(stored(connection, ids))),
        })
    }

    /// Why the line would reject every request for this coupon that is submitted then, if that is
    /// certain.
    pub async fn early_rejection(
        self: &Arc<Self>,
        id: CouponId,
        submitted_at: DateTime<Utc>,
    ) -> Option<Rejection> {
        let seen = self.seen.get(&id).filter(|seen| seen.at.elapsed() < USABLE_TTL);
        let campaign = match seen {
            Some(seen) => {
                if seen.at.elapsed() > FRESH_TTL && !seen.refreshing.swap(true, Ordering::Relaxed) {
                    let board = Arc::clone(self);
                    tokio::spawn(async move { board.read(id).await });
                }
                Some(seen.campaign)
            }
            None => timeout(LOOK_UP_TIMEOUT, self.read(id)).await.ok().flatten()?,
        };
        let Some(campaign) = campaign else {
            return Some(Rejection::CouponNotFound);
        };
        campaign.check_window(submitted_at).and_then(|()| campaign.check_stock()).err()
    }

    /// Forgets a campaign that an operator changed here, and has every other API forget it.
    pub async fn changed(&self, id: CouponId) {
        self.forget(id);
        // Lost where Redis is away: they notice within `USABLE_TTL`.
        self.cache.ask(async |mut redis| redis.publish(&self.channel, id.get()).await).await;
    }

    /// Forgets a campaign that was changed.
    pub fn forget(&self, id: CouponId) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.seen.remove(&id);
    }

    /// Hears that none was left for a job: a campaign that is known otherwise is read anew.
    pub fn sold_out(&self, id: CouponId) {
        if self.seen.get(&id).is_some_and(|seen| seen.campaign.check_stock().is_ok()) {
            self.forget(id);
        }
    }

    /// `None`: the database is away; `Some(None)`: there is no such campaign.
    async fn read(&self, id: CouponId) -> Option<Option<Campaign>> {
        // The age counts from before the reading: what was changed meanwhile is older.
        let at = Instant::now();
        let changes = self.changes.load(Ordering::SeqCst);
        let campaign = self.stored.get(id).await.ok()?;
        match campaign {
            Some(campaign) => {
                self.seen.insert(
                    id,
                    Arc::new(Seen { campaign, at, refreshing: AtomicBool::new(false) }),
                );
                // Read before the change, and put back after it.
                if self.changes.load(Ordering::SeqCst) != changes {
                    self.seen.remove(&id);
                }
            }
            None => {
                self.seen.remove(&id);
            }
        }
        Some(campaign)
    }
}

async fn stored(
    connection: &mut PgConnection,
    ids: Vec<CouponId>,
) -> Result<HashMap<CouponId, Campaign>, sqlx::Error> {
    let ids: Vec<i64> = ids.into_iter().map(CouponId::get).collect();
    let rows = sqlx::query!(
        "SELECT id, total, issued, starts_at, ends_at FROM coupons WHERE id = ANY($1) AND deleted_at IS NULL",
        &ids,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let campaign = Campaign {
                starts_at: row.starts_at,
                ends_at: row.ends_at,
                total: row.total,
                issued: row.issued,
            };
            (CouponId::new(row.id), campaign)
        })
        .collect())
}
