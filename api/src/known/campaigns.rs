//! What this process knows of the campaigns that are asked for: enough to say "sold out", "paused", "not started",
//! "ended" or "no such coupon" without a line.

use std::{collections::HashMap, sync::Arc};

use chrono::{DateTime, Utc};
use firstcome_contract::{campaign::Campaign, ids::CouponId, rejection::Rejection};
use firstcome_process::database::Pool;
use sqlx::PgConnection;

use super::{board::Board, early::Early};
use crate::cache::Cache;

/// How many campaigns are kept in memory.
const CAPACITY: usize = 10_000;

/// The Redis channel for ids of campaigns that an operator changed.
#[must_use]
pub fn changed_channel(namespace: &str) -> String {
    format!("{namespace}:coupon-changed")
}

/// Campaigns that were asked for lately.
#[derive(Debug)]
pub struct Campaigns(Arc<Board<CouponId, Campaign>>);

impl Campaigns {
    /// Makes a board that knows no campaign yet.
    #[must_use]
    pub fn new(pool: &Pool, cache: Cache, namespace: &str) -> Self {
        let channel = changed_channel(namespace);
        Self(Board::new(pool, cache, channel, CAPACITY, |connection, ids| {
            Box::pin(stored(connection, ids))
        }))
    }

    /// Why the line would reject every request for this coupon that is submitted then, if that is
    /// certain.
    pub async fn early_rejection(
        &self,
        id: CouponId,
        submitted_at: DateTime<Utc>,
    ) -> Option<Early> {
        let Some(campaign) = self.0.look(id).await? else {
            return Some(Early::new(Rejection::CouponNotFound));
        };
        let checked = campaign.check_window(submitted_at).and_then(|()| campaign.check_stock());
        let rejection = checked.err()?;
        Some(if rejection == Rejection::CouponNotStarted {
            Early::until(campaign.starts_at, rejection)
        } else {
            Early::new(rejection)
        })
    }

    /// Forgets a campaign that an operator changed here, and has every other API forget it.
    pub async fn changed(&self, id: CouponId) {
        self.0.changed(id).await;
    }

    /// The same of many that an import changed.
    pub async fn all_changed(&self, ids: &[i64]) {
        self.0.all_changed(ids.iter().copied().map(CouponId::new)).await;
    }

    /// Forgets a campaign that was changed.
    pub fn forget(&self, id: CouponId) {
        self.0.forget(id);
    }

    /// Hears that none was left for a job: a campaign that is known otherwise is read anew.
    pub fn sold_out(&self, id: CouponId) {
        if self.0.last_seen(id).is_some_and(|campaign| campaign.check_stock().is_ok()) {
            self.forget(id);
        }
    }
}

async fn stored(
    connection: &mut PgConnection,
    ids: Vec<CouponId>,
) -> Result<HashMap<CouponId, Campaign>, sqlx::Error> {
    let ids: Vec<i64> = ids.into_iter().map(CouponId::get).collect();
    let rows = sqlx::query!(
        "SELECT id, total, issued, starts_at, ends_at, paused_at FROM coupons WHERE id = ANY($1) AND deleted_at IS NULL",
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
                paused_at: row.paused_at,
            };
            (CouponId::new(row.id), campaign)
        })
        .collect())
}
