//! The other designs on a hot key, and the floors.

use super::coupons::spread_coupon;
use crate::{
    compare::{
        databases::Database,
        load::{ClosedLoop, Requests},
        plan::{CONNECTIONS, MOST_CONNECTIONS},
        requests,
        run::Run,
        sale::Sale,
        servers::RivalServer,
        throughput::{Goods, Throughput, measure, outcomes},
    },
    rivals::Rival,
};

/// The rivals whose best pool is searched.
const WITH_POOL: [Rival; 5] =
    [Rival::Pessimistic, Rival::Optimistic, Rival::RedisLock, Rival::Atomic, Rival::SyncOrder];
/// Connections of the load while a pool is searched.
const SEARCH_CONNECTIONS: usize = 64;

/// Finds the pool with which each rival is fastest.
pub(super) async fn search(run: &mut Run<'_>) -> anyhow::Result<()> {
    let database = run.databases.used("bench_search").await?.with_foreign_keys().await?;
    let mut granted = 0;
    for rival in WITH_POOL {
        let mut best = (0.0, 0);
        let mut seen = Vec::new();
        for pool in run.plan.pools {
            let (requests, goods) = hot(run, rival, &database).await?;
            let server = RivalServer::start(&database, rival, *pool).await?;
            granted += warm_up(run, &server, rival, &database).await?;
            let load = ClosedLoop {
                window: run.plan.search_window,
                ..run.load(server.address, SEARCH_CONNECTIONS, requests)
            };
            let Throughput { answered, per_second } =
                measure(&load, &goods, &database.pool).await?;
            server.stop().await?;
            granted += answered.units;
            seen.push(format!("{pool}: {per_second:.0}/s"));
            if per_second > best.0 {
                best = (per_second, *pool);
            }
        }
        run.pools.insert(rival, best.1);
        let (name, seen) = (rival.as_str(), seen.join(", "));
        run.say(format_args!("best pool of {name}: {} ({seen})", best.1));
    }
    outcomes(&database.pool, granted).await?;
    database.audit("a rival").await?;
    run.databases.delete(database).await
}

/// Measures one of them.
pub(super) async fn rival(run: &mut Run<'_>, rival: Rival) -> anyhow::Result<()> {
    let name = rival.as_str();
    run.say(name);
    let database = run.databases.used(&format!("bench_{}", name.replace('-', "_"))).await?;
    let database = database.with_foreign_keys().await?;
    let pool = run.pools.get(&rival).copied().unwrap_or(1);
    let server = RivalServer::start(&database, rival, pool).await?;
    let mut granted = warm_up(run, &server, rival, &database).await?;
    let scenario = match rival {
        Rival::Hello => "hello",
        Rival::SyncOrder => "hot_product",
        Rival::Publish
        | Rival::Pessimistic
        | Rival::Optimistic
        | Rival::RedisLock
        | Rival::Atomic
        | Rival::RedisLuaEverysec
        | Rival::RedisLuaAlways => "hot_coupon",
    };
    for connections in CONNECTIONS {
        let (requests, goods) = hot(run, rival, &database).await?;
        let load = run.load(server.address, connections, requests);
        database.settle_down().await;
        let throughput = if rival.is_floor() {
            Throughput::of_answers(load.run().await?)
        } else {
            measure(&load, &goods, &database.pool).await?
        };
        granted += throughput.answered.units;
        run.note(scenario, name, connections, &throughput);
    }
    if matches!(rival, Rival::Pessimistic | Rival::Atomic) {
        granted += spread_coupon(run, server.address, &database, name).await?;
    }
    if rival == Rival::SyncOrder {
        let products = Goods::Products((1..=requests::PRODUCTS).collect());
        let requests = requests::spread_orders(&run.databases.bearers);
        database.settle_down().await;
        let load = run.load(server.address, MOST_CONNECTIONS, requests);
        let throughput = measure(&load, &products, &database.pool).await?;
        granted += i64::try_from(throughput.answered.granted)?;
        run.note("spread_product", name, MOST_CONNECTIONS, &throughput);
    }
    server.stop().await?;
    if !rival.is_floor() {
        outcomes(&database.pool, granted).await?;
        database.audit(name).await?;
    }
    run.databases.delete(database).await
}

/// The requests for a new hot key, and what they contend for.
async fn hot(
    run: &Run<'_>,
    rival: Rival,
    database: &Database,
) -> anyhow::Result<(Requests, Goods)> {
    match rival {
        Rival::Hello => Ok((requests::hellos(), Goods::Coupons(Vec::new()))),
        Rival::SyncOrder => run.hot(Sale::Orders, database).await,
        Rival::Publish
        | Rival::Pessimistic
        | Rival::Optimistic
        | Rival::RedisLock
        | Rival::Atomic
        | Rival::RedisLuaEverysec
        | Rival::RedisLuaAlways => run.hot(Sale::Coupons, database).await,
    }
}

/// Tells how many requests were granted.
async fn warm_up(
    run: &Run<'_>,
    server: &RivalServer,
    rival: Rival,
    database: &Database,
) -> anyhow::Result<i64> {
    let (requests, _) = hot(run, rival, database).await?;
    Ok(run.warm_up(server.address, requests).run().await?.units)
}
