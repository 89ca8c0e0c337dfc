//! Orders: one hot product, and all products evenly.

use crate::compare::{
    plan::{CONNECTIONS, MOST_CONNECTIONS},
    requests,
    run::{FIRSTCOME, Run},
    sale::Sale,
    throughput::{Goods, measure, outcomes},
};

pub(super) async fn orders(run: &mut Run<'_>) -> anyhow::Result<()> {
    run.say("firstcome, orders");
    let database = run.databases.used("bench_orders").await?;
    let (system, mut accepted) = run.firstcome(&database, Sale::Orders).await?;
    for connections in CONNECTIONS {
        let (requests, goods) = run.hot(Sale::Orders, &database).await?;
        let load = run.load(system.address, connections, requests);
        database.settle_down().await;
        let throughput = measure(&load, &goods, &database.pool).await?;
        accepted += throughput.answered.units;
        run.note("hot_product", FIRSTCOME, connections, &throughput);
    }
    let requests = requests::spread_orders(&run.databases.bearers);
    let products = Goods::Products((1..=requests::PRODUCTS).collect());
    let load = run.load(system.address, MOST_CONNECTIONS, requests);
    database.settle_down().await;
    let throughput = measure(&load, &products, &database.pool).await?;
    accepted += i64::try_from(throughput.answered.granted)?;
    run.note("spread_product", FIRSTCOME, MOST_CONNECTIONS, &throughput);
    system.stop().await?;
    outcomes(&database.pool, accepted).await?;
    database.audit(FIRSTCOME).await?;
    run.databases.delete(database).await
}
