//! How many requests were answered without a job, by what they were about: counted here, told to PostgreSQL every few
//! seconds, for the report of the sale. What a process that crashed had not told is missing there.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use firstcome_contract::{family::Family, job::Job, rejection::Rejection};
use firstcome_process::database::Pool;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Time between two tellings.
const TELL_INTERVAL: Duration = Duration::from_secs(2);
/// The most counts that are kept: of things that there are, of a few codes each. While they cannot be told, others are not
/// counted.
const MOST_COUNTS: usize = 10_000;

/// A coupon or product, and why requests for it were refused. In the order in which rows are locked.
type Counted = (Family, i64, &'static str);

/// What is counted and not told yet.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<BTreeMap<Counted, i64>>);

impl Refusals {
    /// Tells what is counted, until `stop` and once more then; `tasks` waits for that.
    #[must_use]
    pub fn start(
        pool: &Pool,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) -> std::sync::Arc<Self> {
        let refusals = std::sync::Arc::new(Self::default());
        let (counting, pool, stop) = (std::sync::Arc::clone(&refusals), pool.clone(), stop.clone());
        tasks.spawn(async move {
            let mut ticks = interval(TELL_INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while stop.run_until_cancelled(ticks.tick()).await.is_some() {
                counting.tell(&pool).await;
            }
            counting.tell(&pool).await;
        });
        refusals
    }

    /// Counts a request for such a job, once for each of what it asks for. Nothing, where that is not there: anybody can
    /// think of an id.
    pub fn count(&self, job: &Job, rejection: Rejection) {
        if matches!(rejection, Rejection::CouponNotFound | Rejection::ProductNotFound) {
            return;
        }
        let family = job.kind().family();
        let mut counts = self.counts();
        for key in job.keys() {
            let is_full = counts.len() >= MOST_COUNTS;
            let counted = (family, key, rejection.code());
            if let Some(count) = counts.get_mut(&counted) {
                *count += 1;
            } else if !is_full {
                counts.insert(counted, 1);
            }
        }
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<Counted, i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn tell(&self, pool: &Pool) {
        let counts = mem::take(&mut *self.counts());
        if counts.is_empty() {
            return;
        }
        if let Err(error) = store(pool, &counts).await {
            tracing::debug!(%error, "early refusals are told later");
            let mut newer = self.counts();
            for (counted, count) in counts {
                *newer.entry(counted).or_default() += count;
            }
        }
    }
}

async fn store(pool: &Pool, counts: &BTreeMap<Counted, i64>) -> Result<(), sqlx::Error> {
    let families: Vec<&str> = counts.keys().map(|(family, ..)| family.as_str()).collect();
    let keys: Vec<i64> = counts.keys().map(|(_, key, _)| *key).collect();
    let codes: Vec<&str> = counts.keys().map(|(.., code)| *code).collect();
    let counts: Vec<i64> = counts.values().copied().collect();
    sqlx::query!(
        "INSERT INTO early_refusals (family, key, code, refused)
         SELECT * FROM UNNEST($1::text[], $2::bigint[], $3::text[], $4::bigint[])
         ON CONFLICT ON CONSTRAINT early_refusals_pkey DO UPDATE SET refused = early_refusals.refused + excluded.refused",
        &families as &[&str],
        &keys,
        &codes as &[&str],
        &counts,
    )
    .execute(pool)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use firstcome_contract::{
        ids::{CouponId, ProductId},
        job::{IssueCoupon, PlaceOrder},
        order::{Fulfilment, Item},
    };

    #[test]
    fn each_thing_that_there_is_has_its_count() {
        let refusals = Refusals::default();
        let coupon = Job::IssueCoupon(IssueCoupon { coupon_id: CouponId::new(7) });
        refusals.count(&coupon, Rejection::CouponSoldOut);
        refusals.count(&coupon, Rejection::CouponSoldOut);
        refusals.count(&coupon, Rejection::CouponNotFound);
        let item = |id| Item { product_id: ProductId::new(id), quantity: 1 };
        let order = PlaceOrder {
            items: vec![item(1), item(2)],
            coupon_id: None,
            fulfilment: Fulfilment::All,
            from_cart: false,
        };
        refusals.count(&Job::PlaceOrder(order), Rejection::SalePaused);
        let counts: Vec<_> = refusals.counts().clone().into_iter().collect();
        assert_eq!(
            counts,
            [
                ((Family::Coupon, 7, "coupon-sold-out"), 2),
                ((Family::Product, 1, "sale-paused"), 1),
                ((Family::Product, 2, "sale-paused"), 1),
            ]
        );
    }
}
