//! Act 2: everybody wants a console, with and without extras, coupons and money.

use std::{collections::HashSet, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use chrono::{DateTime, Utc};
use firstcome_rig::{
    answers::SettledJob,
    figures::count,
    http::{Client, call},
    settings::Settings,
};
use firstcome_workers::commands::mock_data_platform::{self, Received};
use http::{Method, StatusCode, Uri};
use serde::de::DeserializeOwned;
use sqlx::PgPool;

use crate::{
    args::DemoArgs,
    load::{Customer, Load, Record},
    mix::{self, Offer},
    report::{
        Pace, Report,
        orders::{CaughtUp, lines},
    },
    setup,
    stored::{self, StoredSale, Totals},
    verify::{Check, orders::checks},
    watch::{Progress, Watch},
};

/// How long the data platform's stand-in may take to list what it got.
const LIST_DEADLINE: Duration = Duration::from_secs(15);

/// A product sale that was held.
#[derive(Debug)]
pub(crate) struct ProductSale {
    load: Arc<Load>,
    offer: Offer,
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
        let clicks = mix::clicks(&orders)?;
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
        let caught_up = catch_up(&load, address, watch, pool).await?;
        let received = ask(address, Uri::from_static("/orders")).await?;
        Ok(Self { load, offer, caught_up, received })
    }

    pub(crate) async fn report(&self, pool: &PgPool) -> anyhow::Result<Vec<String>> {
        let stored = StoredSale::read(pool, self.offer.campaign).await?;
        let record = &*self.load.record();
        let report = self.reported(record, &stored);
        Ok(lines(&report, &self.offer, &stored.stocks, self.caught_up))
    }

    /// What came of it.
    pub(crate) async fn audit(&self, pool: &PgPool) -> anyhow::Result<(Totals, Pace, Vec<Check>)> {
        let stored = StoredSale::read(pool, self.offer.campaign).await?;
        let record = &*self.load.record();
        let (totals, pace) =
            (stored.outcomes.totals(record), self.reported(record, &stored).pace());
        Ok((totals, pace, checks(record, &self.offer, &stored, &self.received)))
    }

    fn reported<'a>(&self, record: &'a Record, stored: &'a StoredSale) -> Report<'a> {
        Report {
            record,
            outcomes: &stored.outcomes,
            opened_at: self.load.opened_at,
            connections: self.load.connections,
        }
    }
}

/// Waits until the statistics have counted and the data platform has got every completed order.
async fn catch_up(
    load: &Load,
    data_platform: SocketAddr,
    watch: &mut Watch<'_>,
    pool: &PgPool,
) -> anyhow::Result<CaughtUp> {
    let (orders, last_settled) = {
        let record = load.record();
        let orders = record.settled.iter().filter_map(|told| told.outcome.order());
        let orders: HashSet<i64> = orders.map(|order| order.order_id.get()).collect();
        (orders.len(), record.settled.iter().map(|told| told.outcome.settled_at).max())
    };
    let since = |at: DateTime<Utc>| {
        last_settled.and_then(|settled| (at - settled).to_std().ok()).unwrap_or_default()
    };
    let mut caught_up = CaughtUp::default();
    let mut platform_at = None;
    watch
        .until_done(async || {
            // What cannot be asked just now has not moved.
            let (counted, counted_at) = stored::counted(pool).await.unwrap_or_default();
            let counted = usize::try_from(counted).unwrap_or_default();
            let got: mock_data_platform::Report =
                ask(data_platform, Uri::from_static("/events")).await.unwrap_or_default();
            if got.distinct >= orders {
                platform_at.get_or_insert_with(Utc::now);
            }
            caught_up = CaughtUp {
                statistics: counted_at.map(since).unwrap_or_default(),
                data_platform: platform_at.map(since).unwrap_or_default(),
                requests: got.requests,
            };
            Progress {
                status: format!(
                    "waiting for the consumers of {} events: the statistics have {}, the data platform has {}",
                    count(orders),
                    count(counted),
                    count(got.distinct)
                ),
                figures: [counted, got.distinct, 0],
                done: counted >= orders && got.distinct >= orders,
            }
        })
        .await;
    Ok(caught_up)
}

/// Asks the stand-in for the data platform what it got.
async fn ask<T: DeserializeOwned>(address: SocketAddr, path: Uri) -> anyhow::Result<T> {
    let mut client = Client::new(address, LIST_DEADLINE);
    let answer = client.send(call(Method::GET, path, None)).await?;
    ensure!(answer.status == StatusCode::OK, "the data platform answered {}", answer.status);
    Ok(serde_json::from_slice(&answer.body)?)
}
