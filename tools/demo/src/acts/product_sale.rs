//! Act 2: everybody wants a console, with and without extras, coupons and money.

use std::{collections::HashSet, sync::Arc};

use anyhow::Context;
use firstcome_rig::{answers::SettledJob, figures::count, settings::Settings};
use firstcome_workers::commands::mock_data_platform::Received;
use sqlx::PgPool;

use crate::{
    args::DemoArgs,
    consumers::{self, CaughtUp},
    load::{Customer, Load, Record},
    mix::{self, Offer},
    report::{Pace, Report, orders::lines},
    setup,
    stored::{self, StoredSale, Totals},
    verify::{Check, orders::checks},
    watch::Watch,
};

/// A product sale that was held.
#[derive(Debug)]
pub(crate) struct ProductSale {
    pub(crate) load: Arc<Load>,
    pub(crate) offer: Offer,
    /// What it left in the database.
    pub(crate) stored: StoredSale,
    caught_up: CaughtUp,
    received: Vec<Received>,
}

impl ProductSale {
    /// Holds it; returns when everything is settled and the statistics and the data platform have
    /// it all, or nothing moves any more.
    ///
    /// # Errors
    /// If it cannot even begin.
    pub(crate) async fn hold(
        args: &DemoArgs,
        settings: &Settings,
        customers: &Arc<[Customer]>,
        drop: (&Load, i64),
        watch: &mut Watch<'_>,
        pool: &PgPool,
    ) -> anyhow::Result<Self> {
        let (drop, campaign) = drop;
        let products = setup::create_products(settings, args.stock, args.orders).await?;
        let won = |told: &SettledJob| told.outcome.coupon().map(|_| told.user);
        let winners: HashSet<i64> = drop.record().settled.iter().filter_map(won).collect();
        let holders = mix::indexes(customers, &winners);
        let orders =
            mix::orders(&products, customers.len(), &holders, campaign, args.orders as usize);
        let clicks = mix::clicks("order", &orders)?;
        let balances = stored::balances(pool).await?;
        let offer = Offer { products, orders, clicks: clicks.len(), balances, winners, campaign };

        let opening = Load::open(
            settings.api_for_clients(),
            Arc::clone(customers),
            clicks,
            args.connections as usize,
        );
        let (load, tasks) = watch.screen.during("opening connections", opening).await?;
        watch.screen.line(format_args!(
            "\nAct 2, the product sale: {} orders by the same users, {} requests, {} consoles, {} coupons won in act 1",
            count(offer.orders.len()),
            count(offer.clicks),
            count(args.stock as usize),
            count(offer.winners.len()),
        ));
        watch.load(&load, tasks).await;

        let address = settings.data_platform.context("no data platform was started")?;
        let (events, last_settled) = {
            let record = load.record();
            (record.orders().len(), record.last_settled())
        };
        let caught_up = consumers::catch_up(events, last_settled, address, watch, pool).await;
        let received = consumers::received(address).await?;
        // All of it has come to rest: the next act changes it.
        let stored = StoredSale::read(pool, offer.campaign).await?;
        Ok(Self { load, offer, stored, caught_up, received })
    }

    pub(crate) fn report(&self) -> Vec<String> {
        let record = &*self.load.record();
        lines(&self.reported(record), &self.offer, &self.stored.stocks, self.caught_up)
    }

    /// What came of it.
    pub(crate) fn audit(&self) -> (Totals, Pace, Vec<Check>) {
        let record = &*self.load.record();
        let (totals, pace) = (self.stored.outcomes.totals(record), self.reported(record).pace());
        (totals, pace, checks(record, &self.offer, &self.stored, &self.received))
    }

    fn reported<'a>(&'a self, record: &'a Record) -> Report<'a> {
        Report {
            record,
            outcomes: &self.stored.outcomes,
            opened_at: self.load.opened_at,
            connections: self.load.connections,
        }
    }
}
