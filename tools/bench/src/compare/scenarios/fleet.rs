//! One hot coupon through one API, and through as many as a large shop has.

use std::net::SocketAddr;

use firstcome_rig::{
    settings::Settings,
    system::{API, System, free_port},
};
use tokio::time::{Instant, sleep};

use crate::compare::{
    cost::Meter,
    databases::Database,
    load::ClosedLoop,
    plan::MOST_CONNECTIONS,
    run::{FIRSTCOME, Run},
    sale::Sale,
    servers::{Firstcome, fine},
    throughput::measure,
};

/// The system with more APIs.
const FLEET: &str = "firstcome-fleet";

/// The same system, first with one API, then with all of them.
pub(super) async fn fleet(run: &mut Run<'_>) -> anyhow::Result<()> {
    let apis = run.plan.apis;
    run.say(format_args!("firstcome, {apis} APIs"));
    let database = run.databases.used("bench_fleet").await?;
    let (system, _) = run.firstcome(&database, Sale::Coupons).await?;
    one_hot_coupon(run, FIRSTCOME, &[system.address], &system, &database).await?;

    let mut others = Vec::new();
    let mut addresses = vec![system.address];
    while addresses.len() < apis {
        let settings = Settings { api_addr: free_port().await?, ..database.settings.clone() };
        addresses.push(settings.api_for_clients());
        others.push(System::start(settings, &[API])?);
    }
    for other in &mut others {
        other.ready().await?;
    }
    one_hot_coupon(run, FLEET, &addresses, &system, &database).await?;

    for other in others {
        fine(other.stop().await)?;
    }
    system.stop().await?;
    database.audit(FIRSTCOME).await?;
    run.databases.delete(database).await
}

/// What they cost with nothing to do, and then with a hot coupon.
async fn one_hot_coupon(
    run: &mut Run<'_>,
    side: &str,
    addresses: &[SocketAddr],
    system: &Firstcome,
    database: &Database,
) -> anyhow::Result<()> {
    sleep(run.plan.idle / 2).await;
    let (began, before) = (Instant::now(), Meter::read(&database.pool, &system.processes()).await?);
    sleep(run.plan.idle).await;
    let idle = Meter::read(&database.pool, &system.processes()).await?;
    let seconds = began.elapsed().as_secs_f64();
    for (program, percent) in idle.percent(&before, seconds) {
        run.measurements.add(format!("fleet.{side}.idle.{program}.cpu_percent"), percent);
    }

    let on_all = |load: ClosedLoop| ClosedLoop { addresses: addresses.to_vec(), ..load };
    let (requests, goods) = run.hot(Sale::Coupons, database).await?;
    measure(&on_all(run.warm_up(system.address, requests)), &goods, &database.pool).await?;
    let (requests, goods) = run.hot(Sale::Coupons, database).await?;
    let load = on_all(run.load(system.address, MOST_CONNECTIONS, requests));
    database.settle_down().await;
    let throughput = measure(&load, &goods, &database.pool).await?;
    run.note("fleet", side, MOST_CONNECTIONS, &throughput);
    Ok(())
}
