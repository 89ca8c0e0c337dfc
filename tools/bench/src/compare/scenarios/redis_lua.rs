//! The design that decides in Redis, on a Redis of its own: what it accepts, what of that is durable, what is in the
//! database; and what is left of it when Redis is killed.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use firstcome_rig::{answers::job_of, http::Client};
use http::StatusCode;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::coupons::spread_coupon;
use crate::{
    compare::{
        databases::Database,
        load::{PAUSE, Requests, clients, described},
        own_redis::{self, OwnRedis},
        plan::{CONNECTIONS, MOST_CONNECTIONS},
        run::Run,
        sale::Sale,
        servers::RivalServer,
        throughput::{Throughput, measure, outcomes},
    },
    rivals::Rival,
};

/// One writes, the other reads campaigns.
const POOL: u32 = 2;
/// With `everysec`, when the last write is synced at the latest, if the disk keeps up.
const SYNCED_AFTER: Duration = Duration::from_secs(1);
/// How long the writer may take for what is in the stream after a kill.
const WRITE_DEADLINE: Duration = Duration::from_secs(60);

/// Fails early, and not in the middle of a run.
pub(super) fn can_start() -> anyhow::Result<()> {
    own_redis::program().map(drop)
}

/// Measures one of the two.
pub(super) async fn redis_lua(run: &mut Run<'_>, rival: Rival) -> anyhow::Result<()> {
    let name = rival.as_str();
    run.say(name);
    let appendfsync = if rival == Rival::RedisLuaAlways { "always" } else { "everysec" };
    // Without foreign keys: a batch is better off with one check per statement.
    let mut database = run.databases.used(&format!("bench_{}", name.replace('-', "_"))).await?;
    let mut redis = OwnRedis::start(appendfsync, &database.settings).await?;
    database.settings.redis_url = redis.url();
    let server = RivalServer::start(&database, rival, POOL).await?;
    let (requests, goods) = run.hot(Sale::Coupons, &database).await?;
    let warm_up = run.warm_up(server.address, requests);
    let mut granted = measure(&warm_up, &goods, &database.pool).await?.answered.units;
    for connections in CONNECTIONS {
        let (requests, goods) = run.hot(Sale::Coupons, &database).await?;
        let load = run.load(server.address, connections, requests);
        database.settle_down().await;
        let throughput = measure(&load, &goods, &database.pool).await?;
        granted += throughput.answered.units;
        run.note("hot_coupon", name, connections, &throughput);
        let durable = if rival == Rival::RedisLuaAlways {
            throughput.answered.granted_per_second()
        } else {
            durable_per_second(&throughput)
        };
        let key = format!("hot_coupon.{name}.{connections}.durable_per_second");
        run.measurements.add(key, durable);
    }
    if rival == Rival::RedisLuaEverysec {
        granted += spread_coupon(run, server.address, &database, name).await?;
    }
    outcomes(&database.pool, granted).await?;
    killed(run, name, &mut redis, &server, &database).await?;
    server.stop().await?;
    database.audit(name).await?;
    run.databases.delete(database).await?;
    redis.stop().await
}

/// Of `everysec`: what was accepted ÷ the time until all of it was in the database, or synced. The latter cannot be seen
/// from outside, so it counts as late as it is promised.
fn durable_per_second(Throughput { answered, per_second }: &Throughput) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "some hundred thousand at most")]
    let granted = answered.granted as f64;
    per_second.max(granted / (answered.took + SYNCED_AFTER).as_secs_f64())
}

/// Kills Redis under load, and counts what it accepted that then is nowhere.
async fn killed(
    run: &mut Run<'_>,
    name: &str,
    redis: &mut OwnRedis,
    server: &RivalServer,
    database: &Database,
) -> anyhow::Result<()> {
    let (requests, _) = run.hot(Sale::Coupons, database).await?;
    let half = run.plan.window / 2;
    database.settle_down().await;
    let stop = CancellationToken::new();
    let sending = accepted(server.address, requests, &stop);
    let killing = async {
        sleep(half).await;
        redis.kill_and_start_again().await?;
        sleep(half).await;
        stop.cancel();
        Ok(())
    };
    let (accepted, ()) = tokio::try_join!(sending, killing)?;
    ensure!(!accepted.is_empty(), "nothing was accepted while Redis went and came");
    all_written(&redis.url()).await?;
    let lost: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM UNNEST($1::uuid[]) AS accepted (id)
         WHERE NOT EXISTS (SELECT FROM job_outcomes WHERE job_id = id)",
    )
    .bind(&accepted)
    .fetch_one(&database.pool)
    .await?;
    #[expect(clippy::cast_precision_loss, reason = "some hundred thousand at most")]
    for (metric, count) in [("accepted", accepted.len() as f64), ("lost", lost as f64)] {
        run.measurements.add(format!("killed.{name}.{MOST_CONNECTIONS}.{metric}"), count);
    }
    let accepted = accepted.len();
    run.say(format_args!("  {name}, Redis killed: {lost} of {accepted} accepted requests lost"));
    Ok(())
}

/// The jobs of the requests that were accepted while Redis went and came.
async fn accepted(
    address: SocketAddr,
    requests: Requests,
    stop: &CancellationToken,
) -> anyhow::Result<Vec<Uuid>> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for client in clients(&[address], MOST_CONNECTIONS).await? {
        tasks.spawn(send(client, Arc::clone(&requests), Arc::clone(&next), stop.clone()));
    }
    let mut jobs = Vec::new();
    while let Some(accepted) = tasks.join_next().await {
        jobs.extend(accepted??);
    }
    Ok(jobs)
}

async fn send(
    mut client: Client,
    requests: Requests,
    next: Arc<AtomicUsize>,
    stop: CancellationToken,
) -> anyhow::Result<Vec<Uuid>> {
    let mut jobs = Vec::new();
    while !stop.is_cancelled()
        && let Some((call, _)) = requests(next.fetch_add(1, Ordering::Relaxed))
    {
        let answer = client.send(call).await?;
        match answer.status {
            StatusCode::ACCEPTED => jobs.push(job_of(&answer).context("202 without a job")?),
            // What became of it is unknown; nothing was promised.
            StatusCode::SERVICE_UNAVAILABLE => sleep(PAUSE).await,
            _ => bail!(described(&answer)),
        }
    }
    Ok(jobs)
}

/// Returns when nothing is in the stream any more.
async fn all_written(redis_url: &str) -> anyhow::Result<()> {
    let mut redis = redis::Client::open(redis_url)?.get_multiplexed_async_connection().await?;
    let give_up = Instant::now() + WRITE_DEADLINE;
    loop {
        let waiting: i64 =
            redis::cmd("XLEN").arg(crate::rivals::STREAM).query_async(&mut redis).await?;
        if waiting == 0 {
            return Ok(());
        }
        ensure!(Instant::now() < give_up, "{waiting} coupons are still in the stream");
        sleep(PAUSE).await;
    }
}
