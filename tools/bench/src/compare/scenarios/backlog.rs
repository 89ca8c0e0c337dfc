//! How fast a backlog is drained, and how fast the same batches are without a broker.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use chrono::{DateTime, Utc};
use firstcome_contract::{
    ids::{CouponId, ProductId, UserId},
    job::{Envelope, IssueCoupon, Job, JobId, PlaceOrder},
    line::Place,
    order::{Fulfilment, Item},
};
use firstcome_process::database::settings::BY_KEY;
use firstcome_workers::line::{MAX_JOBS, settle_directly};
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::Instant;

use crate::compare::{
    cost::{Drained, Meter},
    databases::Database,
    load::{ClosedLoop, Requests},
    plan::MOST_CONNECTIONS,
    requests::HOT_PRODUCT,
    run::{FIRSTCOME, Run},
    sale::Sale,
    servers::{Firstcome, WithoutWorkers},
    throughput::outcomes,
};

/// How long it may take to submit the backlog.
const SUBMIT_DEADLINE: Duration = Duration::from_secs(120);

/// What waits when the workers start.
pub(super) struct Backlog {
    pub(super) jobs: usize,
    /// At least as many.
    pub(super) requests: Requests,
    /// Outcomes that are there already.
    pub(super) settled: i64,
}

pub(super) async fn backlogs(run: &mut Run<'_>) -> anyhow::Result<()> {
    for sale in Sale::ALL {
        drained_by_workers(run, sale).await?;
        raw(run, sale).await?;
    }
    Ok(())
}

/// The workers start when all jobs wait; the API is idle. From the end of the first batch to the end of
/// the last one, so that the start of the processes is not in it.
async fn drained_by_workers(run: &mut Run<'_>, sale: Sale) -> anyhow::Result<()> {
    run.say(format_args!("firstcome, draining a backlog of {}", sale.kind().as_str()));
    let database = run.databases.used("bench_drain").await?;
    let (system, settled) = run.firstcome(&database, sale).await?;
    let system = system.stop_workers().await?;
    let (requests, _) = run.hot(sale, &database).await?;
    let backlog = Backlog { jobs: run.plan.backlog, requests, settled };
    let (system, drained) = drain(run, &database, system, backlog).await?;
    system.stop().await?;
    run.note_backlog(scenario(sale), FIRSTCOME, &drained);
    database.audit(FIRSTCOME).await?;
    run.databases.delete(database).await
}

/// Submits the jobs, then starts the workers.
pub(super) async fn drain(
    run: &Run<'_>,
    database: &Database,
    system: WithoutWorkers,
    Backlog { jobs, requests, settled }: Backlog,
) -> anyhow::Result<(Firstcome, Drained)> {
    let requests: Requests = Arc::new(move |index| requests(index).filter(|_| index < jobs));
    let load = ClosedLoop {
        window: SUBMIT_DEADLINE,
        ..run.load(system.address, MOST_CONNECTIONS, requests)
    };
    let idle = Meter::read(&database.pool, &system.processes()).await?;
    let answered = load.run().await?;
    let accepted = Meter::read(&database.pool, &system.processes()).await?;
    ensure!(answered.granted == jobs, "only {} of {jobs} jobs were accepted", answered.granted);
    database.settle_down().await;
    let waiting = Meter::read(&database.pool, &system.processes()).await?;
    let before: DateTime<Utc> =
        sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(&database.pool).await?;
    let system = system.start_workers()?;
    outcomes(&database.pool, settled + i64::try_from(jobs)?).await?;
    let settled = Meter::read(&database.pool, &system.processes()).await?;
    let (accepting, _) = accepted.per_job(&idle, jobs);
    let (settling, wal_bytes) = settled.per_job(&waiting, jobs);
    let per_second = drained(&database.pool, before).await?;
    Ok((system, Drained { per_second, accepting, settling, wal_bytes }))
}

/// The worker's own batches, one after the other, of jobs that are there already.
async fn raw(run: &mut Run<'_>, sale: Sale) -> anyhow::Result<()> {
    let database = run.databases.used("bench_raw").await?;
    let options: PgConnectOptions = database.settings.database_url.parse()?;
    let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(options.options(BY_KEY));
    let mut batches = batches(sale, &database, run.plan.backlog).await?.into_iter();
    let first = batches.next().context("no jobs")?;
    settle_directly(&pool, first).await?; // connects, prepares
    database.settle_down().await;
    let (started, mut jobs) = (Instant::now(), 0.0);
    for batch in batches {
        #[expect(clippy::cast_precision_loss, reason = "a thousand")]
        let size = batch.len() as f64;
        settle_directly(&pool, batch).await?;
        jobs += size;
    }
    pool.close().await;
    run.note_drained(scenario(sale), "raw", jobs / started.elapsed().as_secs_f64());
    database.audit("the raw batches").await?;
    run.databases.delete(database).await
}

const fn scenario(sale: Sale) -> &'static str {
    match sale {
        Sale::Coupons => "drain_coupon",
        Sale::Orders => "drain_order",
    }
}

/// Jobs settled per second since then, the first batch not counted.
async fn drained(pool: &PgPool, since: DateTime<Utc>) -> anyhow::Result<f64> {
    let batches: Vec<(DateTime<Utc>, i64)> = sqlx::query_as(
        "SELECT settled_at, count(*) FROM job_outcomes WHERE settled_at > $1 GROUP BY 1 ORDER BY 1",
    )
    .bind(since)
    .fetch_all(pool)
    .await?;
    let (first, last) = batches.first().zip(batches.last()).context("nothing was drained")?;
    let jobs: i64 = batches.iter().skip(1).map(|(_, jobs)| jobs).sum();
    let took = (last.0 - first.0).to_std()?.as_secs_f64();
    ensure!(took > 0.0, "drained in one batch: the backlog is too small");
    #[expect(clippy::cast_precision_loss, reason = "some hundred thousand at most")]
    Ok(jobs as f64 / took)
}

/// A job for each user, as full as the worker's batches get.
async fn batches(
    sale: Sale,
    database: &Database,
    jobs: usize,
) -> anyhow::Result<Vec<Vec<Envelope>>> {
    let campaign = CouponId::new(database.campaign().await?);
    let item = Item { product_id: ProductId::new(HOT_PRODUCT), quantity: 1 };
    let now = u64::try_from(Utc::now().timestamp_millis())?;
    let envelope = |number: u32| {
        let job = match sale {
            Sale::Coupons => Job::IssueCoupon(IssueCoupon { coupon_id: campaign }),
            Sale::Orders => Job::PlaceOrder(PlaceOrder {
                items: vec![item],
                coupon_id: None,
                fulfilment: Fulfilment::All,
                from_cart: false,
            }),
        };
        Envelope {
            id: JobId::compose(now, sale.kind(), Place::UNKNOWN, number, 0),
            user_id: UserId::new(i64::from(number) + 1),
            idempotency: None,
            trace: None,
            request_id: None,
            job,
        }
    };
    let envelopes: Vec<Envelope> = (0..u32::try_from(jobs)?).map(envelope).collect();
    Ok(envelopes.chunks(MAX_JOBS).map(<[Envelope]>::to_vec).collect())
}
