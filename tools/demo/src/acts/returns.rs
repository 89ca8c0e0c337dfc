//! Act 3: a tenth of act 2's winners change their minds, while others still wait for what they got.

use std::sync::Arc;

use anyhow::Context;
use firstcome_rig::{figures::count, settings::Settings};
use firstcome_workers::commands::mock_data_platform::Received;
use sqlx::PgPool;

use super::product_sale::ProductSale;
use crate::{
    args::DemoArgs,
    consumers::{self, CaughtUp},
    load::{Customer, Load},
    report::{Report, returns::lines},
    returns::Plan,
    stored::{StoredSale, Totals},
    verify::{
        Check,
        returns::{Books, checks},
    },
    watch::Watch,
};

/// Returns that were taken.
#[derive(Debug)]
pub(crate) struct Returns {
    load: Arc<Load>,
    plan: Plan,
    caught_up: CaughtUp,
    received: Vec<Received>,
}

impl Returns {
    /// Takes them; returns when everything is settled and the statistics and the data platform have
    /// it all, or nothing moves any more.
    ///
    /// # Errors
    /// If it cannot even begin.
    pub(crate) async fn hold(
        args: &DemoArgs,
        settings: &Settings,
        customers: &Arc<[Customer]>,
        sale: &ProductSale,
        watch: &mut Watch<'_>,
        pool: &PgPool,
    ) -> anyhow::Result<Self> {
        let mut plan = Plan::new(&sale.load.record(), &sale.offer, &sale.stored, customers.len());
        let opening = Load::open(
            settings.api_for_clients(),
            Arc::clone(customers),
            plan.clicks()?,
            args.connections as usize,
        );
        let (load, tasks) = watch.screen.during("opening connections", opening).await?;
        watch.screen.line(format_args!(
            "\nAct 3, second thoughts: {} of act 2's {} orders are cancelled amid {} orders for what they give back, {} requests",
            count(plan.returns.len()),
            count(sale.stored.orders.len()),
            count(plan.offer.orders.len()),
            count(plan.offer.clicks),
        ));
        watch.load(&load, tasks).await;

        let (events, last_settled) = {
            let record = load.record();
            (record.orders().len() + record.cancelled().len(), record.last_settled())
        };
        let events = sale.stored.orders.len() + events;
        let address = settings.data_platform.context("no data platform was started")?;
        let caught_up = consumers::catch_up(events, last_settled, address, watch, pool).await;
        let received = consumers::received(address).await?;
        Ok(Self { load, plan, caught_up, received })
    }

    pub(crate) async fn report(
        &self,
        sale: &ProductSale,
        pool: &PgPool,
    ) -> anyhow::Result<Vec<String>> {
        let stored = StoredSale::read_after(pool, self.plan.offer.campaign, &sale.stored).await?;
        let record = &*self.load.record();
        let report = Report {
            record,
            outcomes: &stored.outcomes,
            opened_at: self.load.opened_at,
            connections: self.load.connections,
        };
        Ok(lines(&report, &self.plan, self.caught_up))
    }

    /// What came of it.
    pub(crate) async fn audit(
        &self,
        sale: &ProductSale,
        pool: &PgPool,
    ) -> anyhow::Result<(Totals, Vec<Check>)> {
        let stored = StoredSale::read_after(pool, self.plan.offer.campaign, &sale.stored).await?;
        let record = &*self.load.record();
        let books = Books { before: &sale.stored, after: &stored, received: &self.received };
        Ok((stored.outcomes.totals(record), checks(record, &self.plan, books)))
    }
}
