//! Act 1: everybody wants one of a few coupons.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, bail};
use firstcome_rig::{
    answers::coupon_path,
    figures::{count, duration},
    http::call,
    settings::Settings,
};
use http::Method;
use sqlx::PgPool;
use tokio::time::timeout;
use uuid::Uuid;

use crate::{
    args::DemoArgs,
    load::{Click, Customer, Load},
    report::Report,
    setup,
    stored::{StoredDrop, Totals},
    verify::{
        Check,
        coupons::{Expected, checks},
    },
    watch::Watch,
};

/// How long one job may take on a system at rest, the start of the workers included.
const TRIAL_DEADLINE: Duration = Duration::from_secs(30);
/// Every how many customers one is impatient.
const IMPATIENT: usize = 5;

/// A coupon drop that was held.
#[derive(Debug)]
pub(crate) struct CouponDrop {
    pub(crate) load: Arc<Load>,
    pub(crate) campaign: i64,
    trials: Vec<Uuid>,
    at_rest: Duration,
}

impl CouponDrop {
    /// Holds it; returns when everything is settled, or nothing moves any more.
    ///
    /// # Errors
    /// If it cannot even begin.
    pub(crate) async fn hold(
        args: &DemoArgs,
        settings: &Settings,
        customers: &Arc<[Customer]>,
        watch: &mut Watch<'_>,
    ) -> anyhow::Result<Self> {
        let trying = watch.screen.during("trying one job", setup::try_out(settings));
        let (trials, at_rest) = timeout(TRIAL_DEADLINE, trying)
            .await
            .unwrap_or_else(|_| bail!("it is not settled after {TRIAL_DEADLINE:?}"))
            .with_context(|| {
                format!("the trial job failed; {}", watch.system.end_of_log("coupons"))
            })?;
        let campaign = setup::create_coupon(settings, args.coupons).await?;
        let opening = Load::open(
            settings.api_for_clients(),
            Arc::clone(customers),
            clicks(campaign, customers.len())?,
            args.connections as usize,
        );
        let (load, tasks) = watch.screen.during("opening connections", opening).await?;
        watch.screen.line(format_args!(
            "\nAct 1, the coupon drop: {} users, {} clicks, {} coupons, {} connections clicking and as many polling",
            count(customers.len()),
            count(load.size()),
            count(args.coupons as usize),
            count(load.connections)
        ));
        watch.load(&load, tasks).await;
        Ok(Self { load, campaign, trials, at_rest })
    }

    pub(crate) async fn report(
        &self,
        args: &DemoArgs,
        pool: &PgPool,
    ) -> anyhow::Result<Vec<String>> {
        let stored = StoredDrop::read(pool, self.campaign, &self.trials).await?;
        let record = &*self.load.record();
        let report = Report {
            record,
            outcomes: &stored.outcomes,
            opened_at: self.load.opened_at,
            connections: self.load.connections,
        };
        let mut lines = vec![report.of_coupons(args.users as usize, args.coupons as usize)];
        lines.extend(report.speed());
        lines.extend(report.pictures());
        lines.push(format!(
            "  one job on the idle system, from the click to the outcome at the client: {}",
            duration(self.at_rest)
        ));
        Ok(lines)
    }

    /// What came of it.
    pub(crate) async fn audit(
        &self,
        args: &DemoArgs,
        pool: &PgPool,
    ) -> anyhow::Result<(Totals, Vec<Check>)> {
        let stored = StoredDrop::read(pool, self.campaign, &self.trials).await?;
        let record = &*self.load.record();
        let issued = args.users.min(args.coupons) as usize;
        let expected = Expected { clicks: self.load.size(), issued };
        Ok((stored.outcomes.totals(record), checks(record, &stored, expected)))
    }
}

/// Each customer clicks once, and the impatient ones again at once.
fn clicks(campaign: i64, customers: usize) -> anyhow::Result<Vec<Click>> {
    let call = Arc::new(call(Method::POST, coupon_path(campaign)?, None));
    let times = |customer: usize| if customer.is_multiple_of(IMPATIENT) { 2 } else { 1 };
    let clicking =
        (0..customers).flat_map(|customer| std::iter::repeat_n(customer, times(customer)));
    let click = |(intent, customer)| Click { customer, intent, call: Arc::clone(&call) };
    Ok(clicking.enumerate().map(click).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fifth_customer_clicks_twice() {
        let customers =
            |clicks: Vec<Click>| clicks.iter().map(|click| click.customer).collect::<Vec<_>>();
        assert_eq!(customers(clicks(1, 7).unwrap()), [0, 0, 1, 2, 3, 4, 5, 5, 6]);
        assert_eq!(clicks(1, 20_000).unwrap().len(), 24_000);
    }
}
