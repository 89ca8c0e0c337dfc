//! The first seconds of a sale that is opened with nothing warmed up, on a new database, beside the same on a system that
//! has been in use.

use std::sync::Arc;

use http::header::HeaderValue;

use crate::compare::{
    databases::Database,
    load::ClosedLoop,
    plan::MOST_CONNECTIONS,
    requests,
    run::{FIRSTCOME, Run},
    sale::Sale,
    servers::Firstcome,
    throughput::{Goods, Throughput, measure, outcomes},
};

/// The system that has been in use.
const WARM: &str = "firstcome-warm";

/// Both, one right after the other; these are the users that ask.
pub(super) async fn cold_start(
    run: &mut Run<'_>,
    bearers: &Arc<[HeaderValue]>,
) -> anyhow::Result<()> {
    // Nobody is always the first.
    if run.round.is_multiple_of(2) {
        warm(run, bearers).await?;
        cold(run, bearers).await
    } else {
        cold(run, bearers).await?;
        warm(run, bearers).await
    }
}

async fn cold(run: &mut Run<'_>, bearers: &Arc<[HeaderValue]>) -> anyhow::Result<()> {
    run.say("firstcome, a cold start");
    let database = run.databases.fresh("bench_cold").await?;
    database.more_users(run.plan.cold_users).await?;
    database.settle_down().await;
    let system = Firstcome::start(&database).await?;
    let throughput = hot_coupon(run, &system, &database, bearers).await?;
    database.is_fresh().await?;
    run.note("cold_start", FIRSTCOME, MOST_CONNECTIONS, &throughput);
    outcomes(&database.pool, throughput.answered.units).await?;
    database.analyze().await?;
    close(run, database, system).await
}

async fn warm(run: &mut Run<'_>, bearers: &Arc<[HeaderValue]>) -> anyhow::Result<()> {
    run.say("firstcome, the same warmed up");
    let database = run.databases.used("bench_warm").await?;
    database.more_users(run.plan.cold_users).await?;
    database.vacuum().await?;
    let (system, accepted) = run.firstcome(&database, Sale::Coupons).await?;
    database.settle_down().await;
    let throughput = hot_coupon(run, &system, &database, bearers).await?;
    run.note("cold_start", WARM, MOST_CONNECTIONS, &throughput);
    outcomes(&database.pool, accepted + throughput.answered.units).await?;
    close(run, database, system).await
}

/// For longer than others are measured, and so with more users.
async fn hot_coupon(
    run: &Run<'_>,
    system: &Firstcome,
    database: &Database,
    bearers: &Arc<[HeaderValue]>,
) -> anyhow::Result<Throughput> {
    let campaign = vec![database.campaign().await?];
    let requests = requests::coupons(bearers, &campaign)?;
    let load = run.load(system.address, MOST_CONNECTIONS, requests);
    let load = ClosedLoop { window: run.plan.cold_window, ..load };
    measure(&load, &Goods::Coupons(campaign), &database.pool).await
}

async fn close(run: &Run<'_>, database: Database, system: Firstcome) -> anyhow::Result<()> {
    system.stop().await?;
    database.audit(FIRSTCOME).await?;
    run.databases.delete(database).await
}
