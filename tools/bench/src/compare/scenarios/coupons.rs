//! Coupons: one hot campaign, a thousand evenly, one that is sold out, and latencies on the same
//! system.

use std::net::SocketAddr;

use anyhow::ensure;

use super::latency::latencies;
use crate::compare::{
    databases::Database,
    load::ClosedLoop,
    plan::{CONNECTIONS, MOST_CONNECTIONS},
    requests,
    run::{FIRSTCOME, Run},
    sale::Sale,
    servers::Firstcome,
    throughput::{Goods, Throughput, measure, outcomes},
};

/// Campaigns of the spread scenario.
const CAMPAIGNS: i64 = 1_000;
/// The system, when every client polls to its outcome.
const POLLED: &str = "firstcome-polled";

pub(super) async fn coupons(run: &mut Run<'_>) -> anyhow::Result<()> {
    run.say("firstcome, coupons");
    let database = run.databases.used("bench_coupons").await?;
    let (system, mut accepted) = run.firstcome(&database, Sale::Coupons).await?;
    let mut most = 0.0;
    for (side, to_the_outcome) in [(FIRSTCOME, false), (POLLED, true)] {
        for connections in CONNECTIONS {
            let (throughput, _) =
                hot_coupon(run, &system, &database, connections, to_the_outcome).await?;
            accepted += throughput.answered.units;
            most = throughput.per_second.max(most);
            run.note("hot_coupon", side, connections, &throughput);
        }
    }

    accepted += spread_coupon(run, system.address, &database, FIRSTCOME).await?;
    accepted += sold_out(run, &system, &database, accepted).await?;
    latencies(run, &system, &database, most, accepted).await?;
    system.stop().await?;
    database.audit(FIRSTCOME).await?;
    run.databases.delete(database).await
}

/// A new campaign that nobody can exhaust; tells what was sold, too.
pub(super) async fn hot_coupon(
    run: &Run<'_>,
    system: &Firstcome,
    database: &Database,
    connections: usize,
    to_the_outcome: bool,
) -> anyhow::Result<(Throughput, Goods)> {
    let (requests, goods) = run.hot(Sale::Coupons, database).await?;
    let load = ClosedLoop { to_the_outcome, ..run.load(system.address, connections, requests) };
    database.settle_down().await;
    Ok((measure(&load, &goods, &database.pool).await?, goods))
}

/// A thousand new campaigns that nobody can exhaust; tells how many coupons were granted.
pub(super) async fn spread_coupon(
    run: &mut Run<'_>,
    address: SocketAddr,
    database: &Database,
    side: &str,
) -> anyhow::Result<i64> {
    let campaigns = database.many_campaigns(CAMPAIGNS).await?;
    let requests = requests::coupons(&run.databases.bearers, &campaigns)?;
    let load = run.load(address, MOST_CONNECTIONS, requests);
    database.settle_down().await;
    let throughput = measure(&load, &Goods::Coupons(campaigns), &database.pool).await?;
    run.note("spread_coupon", side, MOST_CONNECTIONS, &throughput);
    Ok(throughput.answered.units)
}

/// About a hundred want each coupon. So many jobs were accepted before; tells how many more are.
async fn sold_out(
    run: &mut Run<'_>,
    system: &Firstcome,
    database: &Database,
    before: i64,
) -> anyhow::Result<i64> {
    let total = run.plan.users / 150;
    let campaigns = database.campaigns(1, total).await?;
    let Some(campaign) = campaigns.first() else { anyhow::bail!("no campaign") };
    let requests = requests::coupons_again_and_again(&run.databases.bearers, *campaign)?;
    database.settle_down().await;
    let load = run.load(system.address, MOST_CONNECTIONS, requests);
    let throughput = Throughput::of_answers(load.run().await?);
    let accepted = throughput.answered.units;
    outcomes(&database.pool, before + accepted).await?;
    let issued = Goods::Coupons(campaigns).sold(&database.pool).await?;
    ensure!(issued == total, "{issued} coupons issued of {total}, though all were asked for");
    run.note("sold_out", FIRSTCOME, MOST_CONNECTIONS, &throughput);
    Ok(accepted)
}
